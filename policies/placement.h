// Which pageblocks belong on which memory node: the policy of chains with several node tiers.
//
// Pages of slow nodes stay in use where they are, so nothing faults by itself: what is hot has to
// be found out (block_watcher.h).
//
// Memory is exchanged only where that pays: what goes up must be kExchange hotter than what has to
// go down for it. Blocks of equal heat stay where they are, and a page that has just gone one way
// does not go back.
#pragma once

#include <algorithm>
#include <cstdint>

#include "policies/block_watcher.h"
#include "policies/placed_block.h"

namespace heaptier {

class PlacementPolicy {
 public:
  // Half octaves: 11 times.
  static constexpr unsigned kExchange = 7;

  constexpr PlacementPolicy() = default;
  void decide(PlacementView& view, Nanos now, const PlacementBudget& budget, PlacementPlan& plan);
  const BlockWatcher& watcher() const { return watcher_; }
  // Pages that a tier keeps free, so that what is promoted or new finds room at once.
  static constexpr std::uint64_t reserve_of(std::uint64_t capacity_pages) {
    return std::clamp<std::uint64_t>(capacity_pages / 64, kPagesPerBlock, 16 * kPagesPerBlock);
  }

 private:
  // Returns the pages worth promoting that there is no room for.
  std::uint64_t plan_promotions(PlacementView& view, Nanos now, std::uint64_t* left,
                                PlacementPlan& plan);
  void note_raised(std::uint64_t pages, Nanos now);
  void alarm(PlacementView& view, Nanos now);
  void plan_demotions(PlacementView& view, Nanos now, std::uint64_t wanted, std::uint64_t* left,
                      PlacementPlan& plan);
  void demote_from(unsigned tier, std::uint64_t need, std::uint64_t* left, Gap cut,
                   PlacementView& view, Nanos now, PlacementPlan& plan);
  void plan_stores(const PlacementView& view, Nanos now, PlacementPlan& plan);
  void plan_gathering(PlacementView& view, Nanos now, PlacementPlan& plan);
  void plan_crossings(PlacementView& view, Nanos now, std::uint64_t* left, PlacementPlan& plan);
  void plan_ways_home(PlacementView& view, PlacementPlan& plan);

  BlockWatcher watcher_;
  Nanos busy_until_{};        // exchanging: hints may use their whole budget
  Nanos raised_since_{};      // in this second so many pages were found worth promoting since
  std::uint64_t raised_ = 0;  // the last alarm; and in all, and in the second before it
  std::uint64_t rising_ = 0;
  std::uint64_t rose_ = 0;
  Nanos next_alarm_{};
};

}  // namespace heaptier
