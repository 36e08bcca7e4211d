// The Space: all address space that heaps draw from, as pageblocks grouped by mobility.
//
// One window of address space, so that "is this pointer ours" is one subtraction and one
// comparison. The window is reserved without access, and committed (made writable) in steps as it
// is carved; under RLIMIT_AS it is claimed in steps too. Each pageblock has a mobility, an owner
// and a usemap (one bit a page). Runs of pages are carved from pageblocks of the wanted mobility; a
// foreign pageblock is used only when the allocation would otherwise fail (a fallback, counted).
//
// Thread rule: any thread; one spin lock inside, never held across a system call other than
// commit, reserve and set_access.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "runtime/base/mobility.h"
#include "runtime/base/ports.h"
#include "runtime/base/spinlock.h"
#include "runtime/base/units.h"
#include "runtime/zone.h"

namespace heaptier {

// Who carved a pageblock: decides who frees a pointer into it.
enum class Owner : std::uint8_t {
  kNone = 0,
  kJemalloc,
  kMimalloc,
  kAllocatorMetadata,
  kUserOnly,  // jemalloc, for heaps whose memory is never passed to a system call
};
inline constexpr int kOwners = 5;

struct SpaceConfig {
  std::size_t window_bytes = 0;    // 0: chosen from physical memory and RLIMIT_AS
  std::size_t address_limit = 0;   // RLIMIT_AS in force, 0: none
  bool data_limited = false;       // RLIMIT_DATA is felt: what is free is not writable
  std::size_t physical_bytes = 0;  // of the machine, for the default window
  std::uint64_t seed = 0;          // randomises the window's place
  int huge_advice =
      0;  // madvise(2) number for ordinary memory (HEAPTIER_HUGE=always|never), 0: none
};

struct SpaceUsage {
  // What may be demoted, at least: handed out, less everything in unmovable pageblocks.
  std::size_t demotable_bytes() const {
    const std::size_t unmovable = blocks[static_cast<int>(Mobility::kUnmovable)] * kPageblockSize;
    return carved_bytes > unmovable ? carved_bytes - unmovable : 0;
  }

  std::size_t window_bytes = 0;
  std::size_t committed_bytes = 0;
  std::size_t carved_bytes = 0;          // handed out now
  std::size_t blocks[kMobilities] = {};  // pageblocks of each mobility in use
  std::uint64_t fallbacks = 0;           // runs carved from a pageblock of another mobility
  std::uint64_t refusals = 0;            // requests that no address space was left for
};

class Space {
 public:
  constexpr Space() = default;
  Errno init(MemoryOps& ops, const SpaceConfig& config);

  // [addr, addr+bytes) committed, read as zero, or nullptr. `bytes` a multiple of 4 KiB, `align` a
  // power of two (at least 4 KiB). Runs of whole pageblocks start on a pageblock boundary; others
  // begin where there is room, in the rest of a pageblock before all.
  void* allocate(std::size_t bytes, std::size_t align, Mobility mobility, Owner owner);
  // Exactly [at, at+bytes), to grow what ends at `at`; false when any of it is in use or of another
  // kind.
  bool extend(void* at, std::size_t bytes, Mobility mobility, Owner owner);
  // Gives a run, or any page-aligned part of one or several adjacent ones, back. The caller has
  // dropped its content (it reads as zero). A pageblock with no page in use loses its mobility and
  // may be grouped anew.
  void release(void* at, std::size_t bytes);

  bool contains(const void* p) const {
    return reinterpret_cast<std::uintptr_t>(p) - base_ < bytes_;
  }
  std::uintptr_t base() const { return base_; }
  std::size_t bytes() const { return bytes_; }
  // Pageblocks below this number have been carved at some time; those above are untouched.
  std::uint32_t block_limit() const { return block_limit_.load(std::memory_order_acquire); }
  // `b`, or the first pageblock behind the stretch between the zones that was never carved and in
  // which it lies. For walks over all pageblocks: for (b = 0; (b = next_block(b)) < block_limit();
  // ++b).
  std::uint32_t next_block(std::uint32_t b) const {
    const auto ordinary =
        static_cast<std::uint32_t>((ordinary_range_.start - base_) >> kPageblockShift);
    return b >= ordinary || b < special_limit_.load(std::memory_order_acquire) ? b : ordinary;
  }

  PageIndex page_at(std::uintptr_t addr) const {
    return {static_cast<std::uint32_t>((addr - base_) >> kPageShift)};
  }
  std::uintptr_t address_of(PageIndex p) const {
    return base_ + (static_cast<std::uintptr_t>(p.v) << kPageShift);
  }
  std::uintptr_t address_of(BlockIndex b) const {
    return base_ + (static_cast<std::uintptr_t>(b.v) << kPageblockShift);
  }

  // Of a pageblock below block_limit(). One that nothing is carved from: movable, kNone.
  Mobility mobility_of(BlockIndex b) const;
  Owner owner_of(BlockIndex b) const;
  // Pages of the pageblock handed out now, 0..512.
  std::uint32_t pages_used(BlockIndex b) const;

  // The window has two zones. In this one lies what is freed by the shortest way: movable memory of
  // jemalloc and mimalloc. Everything else is carved from the other (which comes first, and is
  // small) as long as that lasts.
  AddressRange ordinary_zone() const { return ordinary_range_; }
  bool in_ordinary_zone(std::uintptr_t addr) const {
    return addr - ordinary_range_.start < ordinary_range_.bytes;
  }
  // Handed out now; takes no lock.
  std::size_t carved_bytes() const { return carved_.load(std::memory_order_relaxed); }
  SpaceUsage usage() const;
  void lock_for_fork() { lock_.lock(); }
  void unlock_after_fork() { lock_.unlock(); }

 private:
  struct Block;
  // Partly used pageblocks of one owner and mobility, by the length of their longest free run:
  // list k holds those of 2^(k-1) .. 2^k - 1 pages. Links are block numbers + 1; 0: none.
  static constexpr int kBins = 11;
  struct Group {
    std::uint32_t heads[kBins] = {};
  };

  Errno place_window(const SpaceConfig& config, std::size_t wanted, bool whole);
  Zone& zone_for(Mobility mobility, Owner owner, bool other);
  std::uint32_t first_block(const Zone& zone) const;
  bool may_carve_at(std::uint32_t block, std::uint32_t page, std::uint32_t pages, Mobility mobility,
                    Owner owner) const;
  void mark_taken(std::uint32_t first, std::uint32_t count, Mobility mobility, Owner owner);
  std::uint32_t take_blocks(std::uint32_t count, std::size_t align, Mobility mobility, Owner owner);
  void* allocate_blocks(std::size_t bytes, std::size_t align, Mobility mobility, Owner owner);
  void* allocate_pages(std::uint32_t pages, std::uint32_t align_pages, Mobility mobility,
                       Owner owner);
  void* from_partial(std::uint32_t pages, std::uint32_t align_pages, Mobility group,
                     Mobility mobility, Owner owner);
  void* across_blocks(std::uint32_t pages, std::uint32_t align_pages, Mobility mobility,
                      Owner owner);
  bool carve_range(std::uint32_t first_page, std::uint32_t end_page, Mobility mobility,
                   Owner owner);
  void* carve(std::uint32_t block, std::uint32_t page, std::uint32_t pages);
  void release_in_block(std::uint32_t block, std::uint32_t page, std::uint32_t pages);
  void link(std::uint32_t block);
  void unlink(std::uint32_t block);

  std::uintptr_t base_ = 0;
  std::size_t bytes_ = 0;
  AddressRange ordinary_range_{};
  std::atomic<std::uint32_t> block_limit_{0};
  std::atomic<std::uint32_t> special_limit_{0};
  std::atomic<std::size_t> carved_{0};
  mutable SpinLock lock_;
  MemoryOps* ops_ = nullptr;
  Block* blocks_ = nullptr;
  Zone special_;
  Zone ordinary_;
  Group groups_[kOwners][kMobilities];
  std::size_t blocks_in_use_[kMobilities] = {};
  std::uint64_t fallbacks_ = 0;
  std::uint64_t refusals_ = 0;
};

}  // namespace heaptier
