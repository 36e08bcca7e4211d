// What the parts of the engine share: the Space and its mirror, the table of pages, the doors, the
// store, the numbers. One object, made by the engine, handed to each part by reference.
#pragma once

#include <atomic>
#include <cstdint>

#include "runtime/arena.h"
#include "runtime/base/ports.h"
#include "runtime/config/stats.h"
#include "runtime/large_pages.h"
#include "runtime/node_tiers.h"
#include "runtime/pageblock_table.h"
#include "runtime/probation.h"
#include "runtime/protection.h"
#include "runtime/tiers/store_tier.h"

namespace heaptier {

inline constexpr std::size_t kStagingPages = 64;

// What a thread that moves pages has for itself. One thread at a time.
struct Worker {
  StoreWorkspace* workspace = nullptr;
  char* staging = nullptr;  // kStagingPages pages
  bool background = false;
  int toucher_cpu = -1;     // FaultEvent::cpu of the fault at hand
  Nanos throttled_since{};  // 0: not throttled
};

struct Core {
  Core(Space& s, PageblockTable& t, MemoryOps& o, Stats& n)
      : space(s), table(t), ops(o), stats(n) {}

  Space& space;
  PageblockTable& table;
  MemoryOps& ops;
  Stats& stats;
  StoreTier* store = nullptr;  // null: no store tier in the chain
  NodeTiers* nodes = nullptr;  // null: one tier of nodes
  FaultPort* port = nullptr;   // null until userfaultfd is open
  // How a page is made to tell of its next touch: null, by parking it; else by hiding it, and there
  // is no port. Set before the engine is awake.
  Protection* protection = nullptr;
  // Looks after what may be parked whole and what in parts; null (tests): anything may.
  LargePages* large_pages = nullptr;
  bool only_user_only = false;  // and only in heaps that were declared user-only
  std::uintptr_t park_base =
      0;  // mirror of the Space: same offsets. Where pages are hidden: itself
  bool park_claimed =
      false;  // as a whole, without access; else pageblock by pageblock (ensure_park)
  Probation
      fetched;  // clean pages that no write could have reached since they were made; no times kept
  Probation copied;  // clean pages that were writable before: these wait out the grace time

  // Pages discarded so far; the clock of refault distances.
  std::atomic<std::uint64_t> discards{0};
  std::atomic<std::uint32_t> stamp_shift{0};
  // Pages of unmanaged blocks, by the last scan.
  std::atomic<std::uint64_t> unmanaged_pages{0};
  // Watermarks in pages, UINT64_MAX: no limit. Set by the tiering loop.
  std::atomic<std::uint64_t> high_pages{UINT64_MAX};
  std::atomic<std::uint64_t> low_pages{UINT64_MAX};
  // Pages that probation may hold at most before its oldest leave, pressure or not.
  std::atomic<std::uint64_t> probation_pages{UINT64_MAX};
  // Nothing is demoted any more (Engine::retire).
  std::atomic<bool> retired{false};
  // Where the next fault that must make room for itself looks first, in spans of 64 pages
  // (reclaim.h).
  std::atomic<std::uint64_t> reclaim_hand{0};
  // Until then the store is known to be full and only asked if the application wants that.
  std::atomic<std::int64_t> store_full_until{0};
  // Until then pages of main memory are known to refuse, and are not tried on behalf of faults; and
  // the length of that rest, 0 when some could leave (reclaim.h).
  std::atomic<std::int64_t> reclaim_rests_until{0};
  std::atomic<std::int64_t> reclaim_rest{0};
  // Kernel id of the thread that is inside read_pages(), 0: none.
  std::atomic<std::uint32_t> reading_tid{0};
  // Some pageblock has lazy_touched set.
  std::atomic<bool> lazy_touched{false};
  // Set to wake the background thread (engine.h).
  std::atomic<std::uint32_t> kicked{0};

  std::uintptr_t home(PageIndex p) const { return space.address_of(p); }
  std::uintptr_t park(PageIndex p) const {
    return park_base + (space.address_of(p) - space.base());
  }
  bool in_park(std::uintptr_t addr) const {
    return park_base != 0 && protection == nullptr && addr - park_base < space.bytes();
  }
  // Whether pages of the block may be parked, or hidden.
  bool may_park(BlockIndex b) const {
    return !only_user_only || space.owner_of(b) == Owner::kUserOnly;
  }
  // Of an address at home or in the park: the one at home.
  std::uintptr_t home_of(std::uintptr_t addr) const {
    return in_park(addr) ? space.base() + (addr - park_base) : addr;
  }
  std::uint64_t present_pages() const {
    return table.present_pages() + unmanaged_pages.load(std::memory_order_relaxed);
  }
  // Demotable memory of a heap that is in use.
  bool manageable(BlockIndex b) const {
    return space.pages_used(b) > 0 && space.mobility_of(b) != Mobility::kUnmovable;
  }
  bool above_high() const { return present_pages() >= high_pages.load(std::memory_order_relaxed); }
  bool above_low() const { return present_pages() > low_pages.load(std::memory_order_relaxed); }

  // Ends ownership with a change of state, and counts it where it belongs.
  bool settle(PageIndex p, PageWord was, PageWord now, Counter& flow) {
    if (!table.publish(p, was, now)) {
      stats.errors_transition.add();
      return false;
    }
    flow.add();
    return true;
  }
  // The same for `n` pages of one pageblock from `first` on.
  void settle_all(PageIndex first, const PageWord* was, const PageWord* now, std::uint32_t n,
                  Counter& flow) {
    std::uint32_t refused = 0;
    flow.add(table.publish_all(first, was, now, n, &refused));
    if (refused != 0) stats.errors_transition.add(refused);
  }
  // The same for a whole block, whose words are joined if that can be (pageblock_table.h).
  void settle_and_join(BlockIndex b, const PageWord* was, const PageWord* now, Counter& flow) {
    std::uint32_t refused = 0;
    flow.add(table.publish_and_join(b, was, now, &refused));
    if (refused != 0) stats.errors_transition.add(refused);
  }
  // A page of the block that is to move at its next touch was touched, and its word says so.
  void note_lazy_touch(Pageblock& block) {
    block.lazy_touched.store(true, std::memory_order_release);
    lazy_touched.store(true, std::memory_order_release);
  }
  // The park holds frames of pages of the block that are at home, or dead: to be given back. A
  // hidden page has no other frame than the one at home.
  void leave_residue(Pageblock& block) const {
    if (protection != nullptr) return;
    block.park_in_parts.store(true, std::memory_order_relaxed);
    block.residue.store(true, std::memory_order_release);
  }
  // Has a page that was just settled as clean wait its turn to leave. A full queue: it gives up its
  // copy instead, since nobody would ever come for it.
  void queue_clean(Probation& queue, PageIndex p);
  std::uint32_t stamp_now() const;

  // The store has refused a page for lack of room: it rests for half a second.
  void store_refused(Nanos now) {
    store_full_until.store((now + millis(500)).v, std::memory_order_relaxed);
  }
  bool store_rests(Nanos now) const {
    return now.v < store_full_until.load(std::memory_order_relaxed);
  }

  // Parks, or hides, present pages that the calling thread has locked; of one pageblock. `whole`:
  // all of it, one huge page.
  RunResult take_away(PageIndex first, std::uint32_t pages, bool whole);
  // The way back; `wake` as FaultPort's.
  RunResult bring_home(PageIndex first, std::uint32_t pages, bool wake);

  // MemoryOps::copy_pages of pages that the calling thread has locked. Returns how many were read;
  // errors counted. One thread at a time.
  std::size_t read_pages(const std::uintptr_t* from, std::size_t count, void* to);

  // Claims the address space of the park, once: without an address limit in one mapping without
  // access, with one only the place. ensure_park makes a pageblock of it usable. What is not used
  // stays without access, so that an application that locks all of its memory does not have the
  // kernel fill it.
  Errno choose_park(bool piecewise);
  Errno ensure_park(BlockIndex b);
  // Makes it able to take a huge page in one piece, when small ones have been there; with the gate
  // held and no page of the block parked. What fails is for the next time.
  Errno renew_park(BlockIndex b);
};

}  // namespace heaptier
