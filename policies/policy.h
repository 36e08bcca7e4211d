// What a policy sees and what it decides. Policies are arithmetic: (View, now, Budget) -> Plan. No
// system call, clock, lock, allocation or global: the simulator in bench/ and the unit tests run
// the same objects as the tiering loop.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "runtime/base/mobility.h"
#include "runtime/base/units.h"

namespace heaptier {

enum class BlockPhase : std::uint8_t {
  kUnmanaged,  // not registered: the kernel alone serves its faults
  kWhole,      // registered, never demoted since; its pages are dense
  kParked,     // its pages lie in the park since parked_since: the hint is out
  kScattered,  // some pages resident, others stored: handled page by page
};

struct BlockView {
  BlockIndex index;
  BlockPhase phase = BlockPhase::kUnmanaged;
  Mobility mobility = Mobility::kMovable;
  bool huge = false;           // backed by one huge page
  std::uint16_t resident = 0;  // pages mapped at home (clean ones included)
  std::uint16_t clean = 0;     // of these, pages with a stored copy (probation)
  std::uint16_t parked = 0;
  std::uint16_t stored = 0;  // stored or same-filled
  // Hint faults and fetches since the last decide(); zeroed after each.
  std::uint16_t touches = 0;
  // Demotions in a row that found nothing to gain (pinned, incompressible). A sweep that met only
  // credits is not one.
  std::uint16_t fruitless = 0;
  Nanos parked_since{};  // when it was last parked; stays when it comes home

  // The policy's own, zero at first, kept for it between ticks. A block that is freed and carved
  // anew starts from zero again.
  std::uint16_t heat = 0;     // pages that came back when it was last parked
  std::uint16_t watched = 0;  // pages it had when its park was planned; 0: not being watched
  std::uint16_t backoff = 0;  // times in a row it came straight back: log2 of the rest it earns
  std::uint16_t noted = 0;    // the value of `fruitless` that has been reacted to
  Nanos not_before{};         // earliest time to try again; the smaller, the colder
};

struct Budget {
  std::uint64_t fast_bytes = 0;    // what home and park together may hold; 0: no limit
  std::uint64_t high_bytes = 0;    // above: eviction inline with the fault
  std::uint64_t low_bytes = 0;     // background demotion works down to here
  std::uint64_t hint_nanos = 0;    // CPU time that may go into hinting until the next tick
  std::uint64_t hint_cost = 6000;  // measured cost of a hint fault with its share of the move, ns
  bool collapse = false;           // HEAPTIER_HUGE=auto: dense small blocks may be made huge
};

struct View {
  std::span<BlockView> blocks;  // every managed or manageable pageblock, by index; the policy's own
                                // fields may be written
  std::uint64_t resident_bytes = 0;  // mapped at home, all blocks
  std::uint64_t parked_bytes = 0;
  std::uint64_t stored_bytes = 0;     // uncompressed size of what is stored
  std::uint64_t probation_bytes = 0;  // clean pages, part of resident_bytes
  bool store_has_room = true;
  std::uint32_t clock_hand = 0;  // position in `blocks`, kept for the policy between ticks
};

enum class Action : std::uint8_t {
  // Register the block if need be and move its resident pages to the park, whole if huge: the hint,
  // and the first half of a demotion.
  kPark,
  // The block's parked pages go to the store; it is scattered then.
  kStore,
  // Take a credit from each resident page that has any and demote the others, page by page. A whole
  // block becomes scattered by it (and its huge page, if any, is split).
  kSweep,
  // Bring a parked block home without waiting for a touch.
  kUnpark,
  // Make a dense block huge.
  kCollapse,
  // Park a huge block after breaking it up, so that a touch brings back one page and not all. Where
  // that cannot be done, kSweep does it worse.
  kParkSplit,
};

enum class Reason : std::uint8_t { kPressure, kIdle, kHot, kDense };

struct Step {
  BlockIndex block;
  Action action;
  Reason reason;
};

// A bounded list, most urgent first, no block twice; the storage is the caller's. Who carries it
// out may stop anywhere: what was not done will be decided again.
class Plan {
 public:
  constexpr explicit Plan(std::span<Step> storage) : storage_(storage) {}
  constexpr bool full() const { return size_ == storage_.size(); }
  constexpr std::size_t room() const { return storage_.size() - size_; }
  // False when the list is full: the rest waits for the next tick.
  constexpr bool add(Step s) {
    if (full()) return false;
    storage_[size_++] = s;
    return true;
  }
  constexpr std::span<const Step> steps() const { return storage_.first(size_); }

 private:
  std::span<Step> storage_;
  std::size_t size_ = 0;
};

// One policy. State that must live between ticks is in the View (BlockView's own fields,
// clock_hand) or in small fixed-size members; decide() is called by one thread at a time.
class Policy {
 public:
  virtual const char* name() const = 0;
  virtual void decide(View& view, Nanos now, const Budget& budget, Plan& plan) = 0;

 protected:
  ~Policy() = default;
};

}  // namespace heaptier
