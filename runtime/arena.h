// The Space: all address space that heaps draw from, as pageblocks grouped by mobility.
//
// One window of address space, so that "is this pointer ours" is one subtraction and one comparison. The window
// is reserved without access, and committed (made writable) in steps as it is carved; under RLIMIT_AS it
// is claimed in steps too. Each pageblock has a mobility, an owner and a usemap (one bit a page). Runs of pages
// are carved from pageblocks of the wanted mobility; a foreign pageblock is used only when the allocation
// would otherwise fail (a fallback, counted).
//
// Thread rule: any thread; one spin lock inside, never held across a system call other than commit/reserve.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "runtime/base/mobility.h"
#include "runtime/base/ports.h"
#include "runtime/base/spinlock.h"
#include "runtime/base/units.h"

namespace heaptier {

// Who carved a pageblock: decides who frees a pointer into it.
enum class Owner : std::uint8_t { kNone = 0, kJemalloc, kMimalloc, kAllocatorMetadata };

struct SpaceConfig {
  std::size_t window_bytes = 0;      // 0: chosen from physical memory and RLIMIT_AS
  std::size_t address_limit = 0;     // RLIMIT_AS in force, 0: none
  std::size_t physical_bytes = 0;    // of the machine, for the default window
  std::uint64_t seed = 0;            // randomises the window's place
};

struct SpaceUsage {
  std::size_t window_bytes = 0;
  std::size_t committed_bytes = 0;
  std::size_t carved_bytes = 0;                  // handed out now
  std::size_t blocks[kMobilities] = {};          // pageblocks of each mobility in use
  std::uint64_t fallbacks = 0;                   // runs carved from a pageblock of another mobility
  std::uint64_t refusals = 0;                    // requests that no address space was left for
};

class Space {
 public:
  constexpr Space() = default;
  Errno init(MemoryOps& ops, const SpaceConfig& config);

  // [addr, addr+bytes) committed, read as zero, or nullptr. `bytes` a multiple of 4 KiB, `align` a power of two
  // (at least 4 KiB). Runs of a pageblock and more start on a pageblock boundary.
  void* allocate(std::size_t bytes, std::size_t align, Mobility mobility, Owner owner);
  // Gives a run, or any page-aligned part of one or several adjacent ones, back. The caller has dropped its
  // content (it reads as zero). A pageblock with no page in use loses its mobility and may be grouped anew.
  void release(void* at, std::size_t bytes);

  bool contains(const void* p) const {
    return reinterpret_cast<std::uintptr_t>(p) - base_ < bytes_;
  }
  std::uintptr_t base() const { return base_; }
  std::size_t bytes() const { return bytes_; }
  // Pageblocks below this number have been carved at some time; those above are untouched.
  std::uint32_t block_limit() const { return block_limit_.load(std::memory_order_acquire); }

  PageIndex page_at(std::uintptr_t addr) const {
    return {static_cast<std::uint32_t>((addr - base_) >> kPageShift)};
  }
  std::uintptr_t address_of(PageIndex p) const {
    return base_ + (static_cast<std::uintptr_t>(p.v) << kPageShift);
  }
  std::uintptr_t address_of(BlockIndex b) const {
    return base_ + (static_cast<std::uintptr_t>(b.v) << kPageblockShift);
  }

  Mobility mobility_of(BlockIndex b) const;
  Owner owner_of(BlockIndex b) const;
  // Pages of the pageblock handed out now, 0..512.
  std::uint32_t pages_used(BlockIndex b) const;

  SpaceUsage usage() const;
  void lock_for_fork() { lock_.lock(); }
  void unlock_after_fork() { lock_.unlock(); }

 private:
  struct Block;
  std::uintptr_t base_ = 0;
  std::size_t bytes_ = 0;
  std::atomic<std::uint32_t> block_limit_{0};
  mutable SpinLock lock_;
  MemoryOps* ops_ = nullptr;
  Block* blocks_ = nullptr;
  // (allocator state: free to whoever implements arena.cc)
};

}  // namespace heaptier
