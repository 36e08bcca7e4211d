// A zone: one end-to-end part of the Space's window, from which runs of whole pageblocks are taken.
// Freed runs are used first, lowest address first; then the frontier moves up. What lies below the
// frontier is committed; what lies above is at most claimed.
//
// Thread rule: none inside; the Space's lock guards it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/base/ports.h"
#include "runtime/free_runs.h"

namespace heaptier {

class Zone {
 public:
  static constexpr std::uint32_t kNone = FreeRuns::kNone;
  // Address space is claimed and committed in steps of 32 MiB: one system call for 16 pageblocks,
  // and little enough for a process that runs under a tight RLIMIT_AS or strict overcommit.
  static constexpr std::uint32_t kStepBlocks = 16;

  constexpr Zone() = default;
  // [base, base + blocks * 2 MiB). `claimed`: the address space is the caller's already; otherwise
  // it is claimed step by step, and a stretch that somebody else has taken is left out. Takes its
  // tables from the bootstrap heap. ENOMEM: no memory for them.
  Errno init(std::uintptr_t base, std::uint32_t blocks, bool claimed);

  // madvise(2) number given to every stretch as it is committed (huge pages wanted or not); 0:
  // none.
  void advise_on_commit(int advice) { advice_ = advice; }

  // RLIMIT_DATA counts what is writable: nothing is committed in advance, and what is free may not
  // be written. One system call for each pageblock that becomes free or is taken again.
  void keep_free_unwritable() { frugal_ = true; }

  // First block of a run of `count`, its address a multiple of `align` (a power of two, at least 2
  // MiB), committed; or kNone: the zone, the limit on address space or the memory is used up.
  std::uint32_t take(MemoryOps& ops, std::uint32_t count, std::size_t align);
  // Exactly [first, first + count), if nothing in it is taken and it does not lie beyond the
  // frontier.
  bool take_at(MemoryOps& ops, std::uint32_t first, std::uint32_t count);
  void give(MemoryOps& ops, std::uint32_t first, std::uint32_t count);

  std::uintptr_t base() const { return base_; }
  std::uint32_t blocks() const { return blocks_; }
  // Blocks from here on have never been taken.
  std::uint32_t frontier() const { return next_; }
  std::size_t committed_bytes() const;

 private:
  std::uint32_t take_freed(MemoryOps& ops, std::uint32_t count, std::size_t align);
  std::uint32_t take_fresh(MemoryOps& ops, std::uint32_t count, std::size_t align);
  Errno claim(MemoryOps& ops, std::uint32_t end);
  Errno commit(MemoryOps& ops, std::uint32_t end);
  Errno make_writable(MemoryOps& ops, std::uint32_t first, std::uint32_t count) const;
  void step_over(MemoryOps& ops);
  std::uintptr_t address(std::uint32_t block) const;
  std::uint32_t align_up(std::uint32_t block, std::size_t align) const;

  std::uintptr_t base_ = 0;
  int advice_ = 0;
  bool frugal_ = false;
  std::uint32_t blocks_ = 0;
  std::uint32_t next_ = 0;       // frontier
  std::uint32_t committed_ = 0;  // next_ <= committed_ <= claimed_ <= blocks_
  std::uint32_t claimed_ = 0;
  std::uint32_t lost_ = 0;  // blocks below the frontier that were never ours
  FreeRuns free_;
};

}  // namespace heaptier
