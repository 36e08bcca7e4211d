// Heat that a sampler tells: what looks say of how often something is used, and what placement
// makes of it without parking anything.
#include "policies/told_heat.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "tests/unit/policies/told_blocks.h"

namespace heaptier {
namespace {

constexpr Nanos kEach = millis(5);

// What looks at something that is used at random every `mean` would tell, a report of 20 at a time.
ToldHeat looked_at(Nanos mean, int reports) {
  std::mt19937_64 random{9};
  const double unused = std::exp(-static_cast<double>(kEach.v) / static_cast<double>(mean.v));
  std::binomial_distribution<std::uint32_t> used(20, 1 - unused);
  ToldHeat heat;
  for (int i = 0; i < reports; ++i) heat.add(20, used(random), kEach);
  return heat;
}

TEST(ToldHeat, KnowsTheMeanTimeBetweenTwoUses) {
  for (const Nanos mean : {millis(3), millis(10), millis(100), seconds(1), seconds(10)}) {
    const Gap gap = looked_at(mean, 1000).gap();
    EXPECT_NEAR(gap, gap_of(mean), 3) << mean.v;
  }
}

TEST(ToldHeat, WhatIsAlwaysUsedIsHotterThanLooksCanTell) {
  ToldHeat always;
  for (int i = 0; i < 10; ++i) always.add(20, 20, kEach);
  EXPECT_LT(length_of(always.gap()), kEach);
  EXPECT_TRUE(always.nearly_always_used());
  EXPECT_TRUE(always.surely_used());
}

TEST(ToldHeat, TheLongerSomethingIsNotUsedTheColderItIs) {
  ToldHeat heat;
  EXPECT_EQ(heat.gap(), kUnknownGap);
  heat.add(19, 0, kEach);
  EXPECT_EQ(heat.gap(), kUnknownGap) << "too few looks";
  heat.add(0, 5, kEach);
  EXPECT_FALSE(heat.used()) << "no look, no use";
  Gap last = 0;
  for (int i = 0; i < 100000; ++i) {
    heat.add(20, 0, kEach);
    EXPECT_GE(heat.gap() + 2, last);  // half of what has come is forgotten now and then
    last = std::max(last, heat.gap());
  }
  EXPECT_EQ(last, kLongestGap);
  EXPECT_FALSE(heat.used());
}

TEST(ToldHeat, AnotherUseCountsAtOnce) {
  ToldHeat heat = looked_at(seconds(100), 2000);
  EXPECT_GT(heat.gap(), gap_of(seconds(20)));
  heat.add(20, 20, kEach);
  EXPECT_LT(heat.gap(), gap_of(millis(10))) << "it has become hot";
  for (int i = 0; i < 5; ++i) heat.add(20, 20, kEach);
  heat.add(20, 0, kEach);
  EXPECT_GE(heat.gap(), gap_of(millis(100))) << "and cold";
}

TEST(ToldHeat, MoreUsesThanLooksAreNone) {
  ToldHeat heat;
  for (int i = 0; i < 5; ++i) heat.add(20, 4000000000U, kEach);
  EXPECT_TRUE(heat.nearly_always_used());
  EXPECT_NE(heat.gap(), kUnknownGap);
}

// Two tiers of 16 blocks and as many as are wanted, as a sampler tells them.
class Told : public ToldBlocks {
 protected:
  PlacedBlock& add(unsigned tier, Nanos mean) {
    PlacedBlock& b = add_block(tier);
    b.heat = looked_at(mean, 200);
    return b;
  }
  // Rounds until plans are made from prices that are known.
  PlacementPlan decide(int rounds = 3) {
    PlacementBudget budget;
    budget.hint_nanos = 1000000;
    budget.hint_saved = 1000000;
    budget.move_pages = 64 * kPagesPerBlock;
    PlacementPlan plan{steps_};
    for (int i = 0; i < rounds; ++i) {
      plan.count = 0;
      now_ = now_ + millis(100);
      policy_.decide(view_, now_, budget, plan);
    }
    return plan;
  }
  std::uint64_t count(const PlacementPlan& plan, PlaceAction what, unsigned tier) const {
    std::uint64_t n = 0;
    for (std::size_t i = 0; i < plan.count; ++i) {
      const PlaceStep& s = plan.steps[i];
      if (s.action == what && blocks_[s.block.v].tier == tier) ++n;
    }
    return n;
  }
};

TEST_P(Told, WhatIsHotComesUpAndWhatIsColdGoesDown) {
  for (int i = 0; i < 8; ++i) add(0, seconds(1000));
  for (int i = 0; i < 8; ++i) add(0, millis(10));
  for (int i = 0; i < 4; ++i) add(1, millis(10));
  for (int i = 0; i < 4; ++i) add(1, seconds(1000));
  view_.tiers[0] = {16 * kPagesPerBlock, 0, 0};
  const PlacementPlan first = decide();
  EXPECT_GE(count(first, PlaceAction::kDemote, 0), 4U);
  for (std::size_t i = 0; i < first.count; ++i) {
    if (first.steps[i].action == PlaceAction::kDemote) {
      EXPECT_LT(first.steps[i].block.v, 8U) << "nothing that is hot goes";
    }
  }
  view_.tiers[0].room_pages = 8 * kPagesPerBlock;
  const PlacementPlan second = decide(1);
  EXPECT_EQ(count(second, PlaceAction::kPromote, 1), 4U);
  for (const PlacementPlan& plan : {first, second}) {
    EXPECT_EQ(count(plan, PlaceAction::kWatch, 0) + count(plan, PlaceAction::kWatch, 1), 0U);
    EXPECT_EQ(count(plan, PlaceAction::kSplit, 0) + count(plan, PlaceAction::kSplit, 1), 0U);
  }
}

TEST_P(Told, BlocksOfEqualHeatStayWhereTheyAre) {
  for (int i = 0; i < 16; ++i) add(0, millis(20));
  for (int i = 0; i < 16; ++i) add(1, millis(10));
  view_.tiers[0] = {17 * kPagesPerBlock, kPagesPerBlock, 0};
  const PlacementPlan plan = decide();
  EXPECT_EQ(plan.count, 0U);
}

TEST_P(Told, WhereThereIsRoomAllThatIsUsedComesUp) {
  for (int i = 0; i < 4; ++i) add(0, millis(10));
  for (int i = 0; i < 4; ++i) add(1, seconds(1));
  for (int i = 0; i < 4; ++i) add(1, seconds(1000000));
  const PlacementPlan plan = decide(2);
  EXPECT_EQ(count(plan, PlaceAction::kPromote, 1), 4U);
}

TEST_P(Told, ForThatNoRoomIsMade) {
  for (int i = 0; i < 20; ++i) add(0, seconds(3));
  for (int i = 0; i < 16; ++i) add(1, seconds(1));
  view_.tiers[0].room_pages = 3 * kPagesPerBlock;
  const PlacementPlan first = decide(2);
  EXPECT_EQ(count(first, PlaceAction::kPromote, 1), 1U);
  EXPECT_EQ(count(first, PlaceAction::kDemote, 0), 0U);
  view_.tiers[0].room_pages = 2 * kPagesPerBlock;
  const PlacementPlan second = decide(1);
  EXPECT_EQ(count(second, PlaceAction::kDemote, 0), 0U);
}

TEST_P(Told, WhatMayNotBeMovedStaysAndIsForgotten) {
  add(1, millis(10)).movable = false;
  for (int i = 0; i < 4; ++i) add(0, seconds(1000)).movable = false;
  view_.tiers[0] = {4 * kPagesPerBlock, 0, kPagesPerBlock};
  EXPECT_EQ(decide().count, 0U);
  EXPECT_FALSE(blocks_[0].heat.known());
}

TEST_P(Told, OnTheWayToTheStoreItIsParked) {
  for (int i = 0; i < 16; ++i) add(1, seconds(1000));
  view_.tiers[1] = {16 * kPagesPerBlock, 0, 0};
  view_.store_has_room = true;
  const PlacementPlan plan = decide(1);
  ASSERT_GT(count(plan, PlaceAction::kWatch, 1), 0U);
  EXPECT_EQ(count(plan, PlaceAction::kStore, 1), 0U) << "nothing is parked yet";
  for (std::size_t i = 0; i < plan.count; ++i) {
    PlacedBlock& b = blocks_[plan.steps[i].block.v];
    b.parked = kBlockPages;
    b.resident = 0;
    b.parked_since = now_;
  }
  now_ = now_ + seconds(2);
  EXPECT_GT(count(decide(1), PlaceAction::kStore, 1), 0U);
  // What the store does not take comes home.
  view_.store_has_room = false;
  now_ = now_ + seconds(3);
  EXPECT_GT(count(decide(1), PlaceAction::kHome, 1), 0U);
}

TEST(ToldSmall, FewPagesThatAreThereAreNotTakenForCold) {
  std::vector<PlacedBlock> blocks(2);
  for (PlacedBlock& b : blocks) {
    b.movable = true;
    b.slow = b.resident = kBlockPages;
    b.heat = looked_at(seconds(1), 1000);
  }
  blocks[1].slow = blocks[1].resident = kBlockPages / 16;
  PlacementView view;
  view.blocks = blocks;
  judge_told(view, seconds(5), kUnknownGap);
  EXPECT_EQ(blocks[1].below.gap + 8, blocks[0].below.gap);
  EXPECT_EQ(blocks[0].wanted, Wanted::kNone) << "nobody knows what is worth it";
  judge_told(view, seconds(5), blocks[1].below.gap);
  EXPECT_EQ(blocks[0].wanted, Wanted::kNone);
  EXPECT_EQ(blocks[1].wanted, Wanted::kAll);
  EXPECT_EQ(blocks[1].wanted_pages, kBlockPages / 16);
}

TEST(ToldSmall, DenseIsWhatLooksFindUsedNearlyAlways) {
  std::vector<PlacedBlock> blocks(2);
  for (PlacedBlock& b : blocks) {
    b.movable = true;
    b.resident = kBlockPages;
  }
  blocks[0].heat = looked_at(millis(1), 100);
  blocks[1].heat = looked_at(millis(10), 100);
  PlacementView view;
  view.blocks = blocks;
  judge_told(view, seconds(5), gap_of(seconds(1)));
  EXPECT_TRUE(blocks[0].dense);
  EXPECT_FALSE(blocks[1].dense);
}

INSTANTIATE_TEST_SUITE_P(Of, Told, testing::Bool(), [](const auto& info) {
  return std::string(info.param ? "huge" : "small");
});

}  // namespace
}  // namespace heaptier
