// Which pageblocks belong on which memory node: the policy of chains with several node tiers.
//
// Pages of slow nodes stay in use where they are, so nothing faults by itself. To learn what is hot
// a block is watched: parked, and the time until its first touch is measured (gap.h; by the fault
// path, which also notes what the threshold found here says is worth promoting). A block that
// nobody touches costs nothing and stays parked.
//
// Memory is exchanged only where that pays: what goes up must be kExchange hotter than what
// has to go down for it. Blocks of equal heat stay where they are, and a page that has just gone
// one way does not go back.
#pragma once

#include <cstdint>
#include <span>

#include "policies/gap.h"
#include "policies/policy.h"
#include "policies/quota.h"

namespace heaptier {

inline constexpr unsigned kMostPlaces = 8;

struct PlacedBlock {
  BlockIndex index;
  bool movable = false;        // may be parked and moved at all
  bool huge = false;           // one huge page
  std::uint8_t tier = 0;       // where most of its pages are
  std::uint16_t resident = 0;  // pages at home
  std::uint16_t parked = 0;
  std::uint16_t slow = 0;     // of both: pages below the first tier
  std::uint16_t touches = 0;  // pages whose touch brought them home since the last decide()
  std::uint16_t hot = 0;      // small pages on a slow node found worth promoting, which wait for it
  std::uint16_t warm = 0;     // and those that seemed so since the last decide()
  Gap gap = kUnknownGap;      // of a huge page: estimated,
  std::uint8_t times = 0;     // from so many measurements (GapEstimate),
  Gap measured = kUnknownGap;  // of which this was the last
  Nanos parked_since{};

  // The policy's own.
  std::uint16_t watched = 0;  // pages it had when it was to be parked; 0: not being watched
  std::uint8_t backoff = 0;
  bool suspect = false;  // seemed hot the last time
  Nanos not_before{};
  Nanos stays_until{};  // by whoever carries plans out: it would not be moved
};

struct PlaceView {
  std::uint64_t capacity_pages = 0;  // of the tier; what the option allows of it
  std::uint64_t room_pages = 0;      // free for the taking
  std::uint64_t over_pages = 0;      // that it holds beyond its capacity
};

struct PlacementView {
  std::span<PlacedBlock> blocks;
  PlaceView tiers[kMostPlaces];
  unsigned tier_count = 0;
  // After the last tier comes a store, and it takes pages.
  bool store_has_room = false;
};

enum class PlaceAction : std::uint8_t {
  kWatch,    // park what is at home
  kPromote,  // move the hot small pages to the first tier
  kDemote,   // move to the tier named: a huge page whole, of small ones those that are parked
  kStore,    // parked pages go to the store
};

struct PlaceStep {
  BlockIndex block;
  PlaceAction action;
  std::uint8_t tier;
};

// As Plan; and the threshold for the fault path.
struct PlacementPlan {
  std::span<PlaceStep> steps;
  std::size_t count = 0;
  // A page of a slow tier whose gap is this or shorter is worth promoting; kUnknownGap: none is.
  Gap promote_below = kUnknownGap;
  bool add(PlaceStep s) {
    if (count == steps.size()) return false;
    steps[count++] = s;
    return true;
  }
};

struct PlacementBudget {
  std::uint64_t hint_nanos = 0;    // CPU time for hint faults until the next tick
  std::uint64_t hint_cost = 6000;  // of one, ns
  std::uint32_t watches = 64;      // at most so many blocks are to be watched anew
  std::uint64_t move_pages = 0;    // at most so many are demoted until the next tick
};

class PlacementPolicy {
 public:
  // Half octaves: 11 times.
  static constexpr unsigned kExchange = 7;

  constexpr PlacementPolicy() = default;
  void decide(PlacementView& view, Nanos now, const PlacementBudget& budget, PlacementPlan& plan);
  // Pages that a tier keeps free, so that what is promoted or new finds room at once.
  static constexpr std::uint64_t reserve_of(std::uint64_t capacity_pages) {
    return std::clamp<std::uint64_t>(capacity_pages / 64, kPagesPerBlock, 16 * kPagesPerBlock);
  }

 private:
  void observe(PlacedBlock& b, Nanos now);
  // Returns the pages worth promoting that there is no room for.
  std::uint64_t plan_promotions(PlacementView& view, PlacementPlan& plan);
  void plan_demotions(const PlacementView& view, Nanos now, const PlacementBudget& budget,
                      std::uint64_t wanted, PlacementPlan& plan);
  void demote_from(unsigned tier, std::uint64_t need, Gap cut, const PlacementView& view, Nanos now,
                   PlacementPlan& plan);
  void plan_stores(const PlacementView& view, Nanos now, PlacementPlan& plan);
  bool watch(PlacedBlock& b, Nanos now, const PlacementBudget& budget, PlacementPlan& plan);
  void plan_watches(PlacementView& view, Nanos now, const PlacementBudget& budget,
                    PlacementPlan& plan);

  policy::Allowance hints_;
  Gap promote_below_ = kUnknownGap;
  std::uint32_t hand_ = 0;
  std::uint32_t unknown_ = 0;   // blocks never measured, by the last look
  std::uint32_t watches_ = 0;   // that may still be planned
  std::uint32_t suspects_ = 0;  // and those to be measured again at once
  Nanos busy_until_{};          // exchanging: hints may use their whole budget
};

}  // namespace heaptier
