// The placement policy against a simulated machine of two nodes whose blocks are touched at random,
// and against views made by hand.
#include "policies/placement.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace heaptier {
namespace {

constexpr auto kBlockPages = static_cast<std::uint16_t>(kPagesPerBlock);

TEST(Gap, GrowsWithTheTimeInHalfOctaves) {
  EXPECT_EQ(gap_of({0}), 1);
  Gap last = 0;
  for (std::int64_t us = 1; us < (std::int64_t{1} << 30); us = us * 3 / 2 + 1) {
    const Gap g = gap_of(micros(us));
    EXPECT_GE(g, last);
    EXPECT_LE(g, kLongestGap);
    last = g;
  }
  EXPECT_EQ(last, kLongestGap);
  EXPECT_EQ(gap_of(micros(8 * 4096)) - gap_of(micros(4096)), 6);
  EXPECT_EQ(hotter(gap_of(micros(8 * 4096)), 6), gap_of(micros(4096)));
  EXPECT_EQ(hotter(3, 3), kUnknownGap);
  EXPECT_EQ(mix_gaps(kUnknownGap, 9), 9);
  EXPECT_EQ(mix_gaps(9, 19), 14);
  GapEstimate e;
  for (const int g : {20, 14, 22, 23}) e = e.after(static_cast<Gap>(g));
  EXPECT_EQ(e.gap, 20);
  EXPECT_EQ(e.measured, 4);
  EXPECT_EQ(e.after(25).gap, 22) << "rounded towards the new one";
  EXPECT_EQ(e.after(30).measured, 1) << "its use has changed";
  EXPECT_EQ(e.after(12).gap, 12);
  EXPECT_FALSE(worth_promoting(GapEstimate{5, 3}, 10)) << "measured thrice only";
  EXPECT_TRUE(worth_promoting(GapEstimate{5, 4}, 10));
  EXPECT_TRUE(worth_promoting(GapEstimate{50, 1}, kLongestGap)) << "there is room for all";
  EXPECT_FALSE(worth_promoting(kUnknownGap, 10, 10)) << "once, and not clearly";
  EXPECT_TRUE(worth_promoting(kUnknownGap, 4, 10));
  EXPECT_TRUE(worth_promoting(8, 12, 10));
}

// Huge pages on two nodes; the accesses of a second are shared out by weight. A parked block comes
// home at its first touch, as the fault path has it: measured, and promoted if it is worth it.
class Machine {
 public:
  Machine(std::uint32_t count, std::uint64_t fast_blocks)
      : blocks_(count), weight_(count, 0.0), estimates_(count) {
    view_.tier_count = 2;
    view_.tiers[0].capacity_pages = (fast_blocks + 4) * kPagesPerBlock;
    view_.tiers[1].capacity_pages = 2 * count * kPagesPerBlock;
    for (std::uint32_t i = 0; i < count; ++i) {
      PlacedBlock& b = blocks_[i];
      b.index = {i};
      b.movable = b.huge = true;
      b.resident = kBlockPages;
      b.tier = i < fast_blocks ? 0 : 1;
      b.slow = b.tier == 0 ? 0 : kBlockPages;
    }
    fast_ = fast_blocks;
    room_ = 4;  // blocks
  }

  void set_hot(std::uint32_t first, std::uint32_t n, double share) {
    for (std::uint32_t i = 0; i < blocks_.size(); ++i) {
      const bool hot = i >= first && i < first + n;
      weight_[i] = hot ? share / n : (1 - share) / static_cast<double>(blocks_.size() - n);
    }
  }

  void run(double seconds, double accesses_per_second) {
    const auto end = now_ + Nanos{static_cast<std::int64_t>(seconds * 1e9)};
    while (now_ < end) {
      tick();
      const Nanos until = now_ + millis(10);
      for (PlacedBlock& b : blocks_) {
        if (b.parked == 0) continue;
        const double rate = weight_[b.index.v] * accesses_per_second;
        const std::int64_t wait =
            static_cast<std::int64_t>(std::exponential_distribution<>(rate)(random_) * 1e9);
        const Nanos from = std::max(b.parked_since, now_);
        if (from + Nanos{wait} < until) touch(b, from + Nanos{wait});
      }
      now_ = until;
      accesses += static_cast<std::uint64_t>(accesses_per_second / 100);
    }
  }

  double share_fast() const {
    double sum = 0;
    for (const PlacedBlock& b : blocks_) sum += b.tier == 0 ? weight_[b.index.v] : 0;
    return sum;
  }

  std::uint64_t accesses = 0;
  std::uint64_t faults = 0;
  std::uint64_t moved = 0;  // blocks, either way

 private:
  void touch(PlacedBlock& b, Nanos at) {
    ++faults;
    const Gap measured = gap_of(at - b.parked_since);
    GapEstimate& e = estimates_[b.index.v];
    e = e.after(measured);
    b.gap = e.gap;
    b.times = e.measured;
    b.measured = measured;
    if (b.tier != 0 && worth_promoting(e, limit_)) b.hot = kBlockPages;
    b.parked = 0;
    b.resident = kBlockPages;
    b.touches = kBlockPages;
  }

  void tick() {
    view_.blocks = blocks_;
    view_.tiers[0].room_pages = room_ * kPagesPerBlock;
    view_.tiers[1].room_pages = view_.tiers[1].capacity_pages / 2;
    PlaceStep steps[256];
    PlacementPlan plan{steps};
    policy_.decide(view_, now_, {100'000, 6000, 64, 8 * kPagesPerBlock}, plan);
    limit_ = plan.promote_below;
    for (PlacedBlock& b : blocks_) b.touches = 0;
    for (std::size_t i = 0; i < plan.count; ++i) {
      PlacedBlock& b = blocks_[steps[i].block.v];
      if (steps[i].action == PlaceAction::kWatch) {
        b.parked = b.resident;
        b.resident = 0;
        b.parked_since = now_;
      } else if (steps[i].action == PlaceAction::kPromote) {
        ASSERT_EQ(b.tier, 1);
        ASSERT_GT(room_, 0u);
        b.tier = 0;
        b.slow = b.hot = 0;
        --room_;
        ++moved;
      } else if (steps[i].action == PlaceAction::kDemote) {
        ASSERT_EQ(b.tier, 0);
        b.tier = 1;
        b.slow = kBlockPages;
        ++room_;
        ++moved;
      }
    }
  }

  std::vector<PlacedBlock> blocks_;
  std::vector<double> weight_;
  std::vector<GapEstimate> estimates_;
  PlacementView view_;
  PlacementPolicy policy_;
  std::mt19937_64 random_{5};
  Nanos now_ = seconds(1);
  Gap limit_ = kUnknownGap;
  std::uint64_t fast_ = 0;
  std::uint64_t room_ = 0;
};

TEST(Placement, BringsTheHotSetUpAndFollowsIt) {
  for (const double speed : {1e5, 1e6, 1e8}) {
    Machine m(400, 208);
    m.set_hot(250, 50, 0.9);
    const double least = 0.9 + 0.1 * 150 / 350;
    m.run(10, speed);
    EXPECT_GT(m.share_fast(), 0.97 * least) << speed;
    EXPECT_LT(m.moved, 2 * 50 * 3 / 2u) << speed;
    m.set_hot(330, 50, 0.9);
    m.run(30, speed);
    EXPECT_GT(m.share_fast(), 0.97 * least) << speed;
    EXPECT_LT(m.moved, 4 * 50 * 3 / 2u) << speed;
    // Nothing more to gain: hardly a fault, and nothing moves.
    const std::uint64_t moved = m.moved;
    m.run(60, speed);
    const std::uint64_t faults = m.faults;
    const std::uint64_t accesses = m.accesses;
    m.run(60, speed);
    EXPECT_LE(m.moved, moved + 40) << speed;
    if (speed >= 1e6) {
      EXPECT_LT(static_cast<double>(m.faults - faults), 1.1e-4 * double(m.accesses - accesses))
          << speed;
    }
  }
}

TEST(Placement, EqualHeatIsLeftWhereItIs) {
  Machine m(400, 208);
  m.set_hot(0, 400, 1.0);
  m.run(60, 1e6);
  EXPECT_LT(m.moved, 40u) << "of 400, in a minute";
}

TEST(Placement, OneTierIsNothingToDo) {
  PlacementPolicy policy;
  PlacedBlock block;
  block.movable = true;
  block.resident = kBlockPages;
  PlacementView view;
  view.blocks = {&block, 1};
  view.tier_count = 1;
  PlaceStep steps[4];
  PlacementPlan plan{steps};
  policy.decide(view, seconds(1), {1'000'000, 6000, 64, 4096}, plan);
  EXPECT_EQ(plan.count, 0u);
}

}  // namespace
}  // namespace heaptier
