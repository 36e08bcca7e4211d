// How placement.h finds out what is hot: which block is watched when, in which way, and what is to
// be made of it.
//
// A huge page is parked whole, and at some length before it goes up, to see whether all of it is
// hot (density.h). Of small pages four are parked first, for a while, to answer for all; if one was
// touched soon, sixteen. If all of these are hot all are taken to be; if some are, all are parked
// for once, and each is judged by itself. What is not touched within the window comes home without
// a fault.
#pragma once

#include <cstdint>

#include "policies/placed_block.h"
#include "policies/quota.h"

namespace heaptier {

class BlockWatcher {
 public:
  // Of a page that is judged by one measurement, half octaves more than is asked of others: at
  // random one of 22 pages that are not worth it is touched so soon.
  static constexpr unsigned kOnce = 2;

  // A parked page of the last tier goes to the store after this long.
  static constexpr Nanos kIdleForStore = seconds(2);

  constexpr BlockWatcher() = default;
  // A page below the first tier whose gap is this or shorter is worth promoting. kUnknownGap: none
  // is, or nobody knows; kCoolest: there is room for all that are used at all.
  void set_promote_below(Gap gap) { promote_below_ = gap; }
  Gap promote_below() const { return promote_below_; }
  // A page that was touched within this time was touched soon.
  Gap soon() const { return every_page_goes_up() ? kLongestGap : hotter(promote_below_, kOnce); }
  // One of a block all of whose pages are parked that was touched within this time may be hot: by
  // chance one in sixteen of those that are is not touched soon.
  Gap perhaps() const { return every_page_goes_up() ? kLongestGap : promote_below_; }
  // Whether a block of small pages has been watched for long enough, so that observe_all() wants to
  // know what has come of it.
  bool due(const PlacedBlock& b, Nanos now) const;

  // What watching has told since the last tick: sets what is `wanted` of each block.
  void observe_all(PlacementView& view, Nanos now);
  // Nobody rests any longer.
  void wake_all(PlacementView& view, Nanos now);
  // Once a tick. `busy`: memory is being exchanged.
  void refill(const PlacementBudget& budget, bool busy);
  // Some blocks were never measured: the next round is to be soon.
  bool learning() const { return unknown_ > 0; }
  bool may_look_again() const { return urgent_.any() && watches_ > 0; }
  // Adds the step; false: the plan is full.
  bool watch(PlacedBlock& b, Watch how, PlacementPlan& plan);
  void plan(PlacementView& view, Nanos now, PlacementPlan& plan);

 private:
  bool every_page_goes_up() const { return promote_below_ == kCoolest; }
  bool may_look_around() const { return saved_.any() && pace_.any() && watches_ > 0; }
  Nanos window() const;
  bool unsure(const PlacedBlock& b) const;
  std::uint64_t faults_of(const PlacedBlock& b, Watch how) const;
  bool pays(const PlacedBlock& b) const;
  void observe(PlacedBlock& b, Nanos now);
  void observe_sockets(PlacedBlock& b, Nanos now);
  void observe_huge(PlacedBlock& b, Nanos now);
  void observe_small(PlacedBlock& b, Nanos now);
  void judge_glance(PlacedBlock& b, Nanos now);
  bool judge_whole(PlacedBlock& b, Nanos now);
  void judge_probe(PlacedBlock& b, Nanos now);
  void judge_sweep(PlacedBlock& b, Nanos now);
  void judge_candidates(PlacedBlock& b);
  void rest(PlacedBlock& b, Nanos now);

  policy::Allowance saved_;   // of hint time for looking around, over the long run
  policy::Allowance pace_;    // and what of it may be used now
  policy::Allowance urgent_;  // to look again at what seems hot, or has to go: it pays for itself
  bool begun_ = false;
  std::uint64_t hint_cost_ = 0;
  Gap promote_below_ = kUnknownGap;
  std::uint32_t hand_ = 0;
  std::uint32_t watches_ = 0;  // that may still be planned in this tick
  // By the last look: blocks never measured, whether some of these say what a promotion costs, and
  // blocks that are to be watched again at once.
  std::uint32_t unknown_ = 0;
  bool price_first_ = false;
  std::uint32_t urgent_blocks_ = 0;
};

}  // namespace heaptier
