// Heat that a sampler counts: what a few uses, seen at random, say of how often a block is used;
// and what placement makes of it.
#include "policies/counted_heat.h"

#include <gtest/gtest.h>

#include <functional>
#include <random>
#include <vector>

#include "tests/unit/policies/told_blocks.h"

namespace heaptier {
namespace {

constexpr auto kPages = static_cast<std::uint32_t>(kPagesPerBlock);
constexpr std::uint64_t kPeriod = 1000;  // uses to a sample

// A heap whose blocks are used so often each, and a sampler of it.
class Program {
 public:
  explicit Program(std::size_t blocks) : heat(blocks), weight(blocks, 1.0) {}

  // One of `kPeriod` uses is seen, `seen` in this time.
  void run(Nanos time, std::uint32_t seen, std::uint64_t period = kPeriod) {
    std::discrete_distribution<std::size_t> any(weight.begin(), weight.end());
    for (std::uint32_t i = 0; i < seen; ++i) heat[any(random_)].add(period);
    if (seen == 0) return;
    const auto blocks = static_cast<float>(heat.size());
    const auto n = static_cast<float>(seen);
    for (CountedHeat& h : heat) h.pass({time, n / blocks, n * static_cast<float>(period) / blocks});
  }
  void run_rounds(int rounds, std::uint32_t seen = 100) {
    for (int i = 0; i < rounds; ++i) run(millis(100), seen);
  }
  Gap gap(std::size_t b) const { return heat[b].gap_of_page(kPages); }
  // If a block is used so often in a second.
  static Gap true_gap_of(double uses) {
    return gap_of({static_cast<std::int64_t>(1e9 / uses * kPages)});
  }
  // So often each page of the block is used, if `seen` samples come in 100 ms.
  Gap true_gap(std::size_t b, std::uint32_t seen = 100) const {
    double all = 0;
    for (const double w : weight) all += w;
    return true_gap_of(weight[b] / all * seen * 10 * kPeriod);
  }

  std::vector<CountedHeat> heat;
  std::vector<double> weight;

 private:
  std::mt19937_64 random_{5};
};

TEST(CountedHeat, FindsHowOftenAPageIsUsed) {
  Program p(50);
  for (std::size_t b = 0; b < 10; ++b) p.weight[b] = 20;
  p.weight[10] = 500;
  p.run_rounds(300);
  for (std::size_t b = 0; b < 50; ++b) {
    ASSERT_TRUE(p.heat[b].known()) << b;
    const int near = p.weight[b] > 1 ? 2 : 5;
    EXPECT_NEAR(p.gap(b), p.true_gap(b), near) << b;
  }
  EXPECT_TRUE(p.heat[0].surely_used());
}

TEST(CountedHeat, ManyUsesToASampleCountAsMany) {
  Program p(10);
  p.run_rounds(100);
  Program rare(10);
  for (int i = 0; i < 100; ++i) rare.run(millis(100), 100, kPeriod * 64);
  EXPECT_NEAR(p.gap(0), rare.gap(0) + 12, 2) << "64 times as often: six octaves";
}

TEST(CountedHeat, SomethingUsedByTheBillionCanBeToldFromLess) {
  Program p(2);
  p.weight[0] = 100;
  for (int i = 0; i < 200; ++i) p.run(millis(100), 200, 10'000'000);
  EXPECT_NEAR(p.gap(1) - p.gap(0), 12, 3);
  EXPECT_NEAR(p.heat[0].sure_gap_of_page(kPages), p.true_gap_of(2e10 / 1.01), 1);
}

TEST(CountedHeat, WithoutAUseIsColdOnlyIfOneWasToBeExpected) {
  Program p(100);
  p.weight[7] = 0;
  p.run_rounds(3);  // three of each
  EXPECT_FALSE(p.heat[7].known());
  EXPECT_EQ(p.gap(7), kUnknownGap);
  p.run_rounds(2);
  EXPECT_TRUE(p.heat[7].known());
  EXPECT_FALSE(p.heat[7].used());
  const Gap soon = p.gap(7);
  p.run_rounds(40);
  EXPECT_GE(p.gap(7), soon + 5) << "the longer the colder";
  EXPECT_GE(p.gap(7), p.gap(8) + static_cast<int>(PlacementPolicy::kExchange));
}

TEST(CountedHeat, AProgramThatDoesNothingMakesNothingCold) {
  Program p(20);
  p.weight[3] = 0;
  p.run_rounds(20);
  const Gap hot = p.gap(0);
  const Gap cold = p.gap(3);
  for (int i = 0; i < 36000; ++i) p.run(millis(100), 0);
  EXPECT_EQ(p.gap(0), hot);
  EXPECT_EQ(p.gap(3), cold);
  Program idle(20);
  for (int i = 0; i < 36000; ++i) idle.run(millis(100), 0);
  for (const CountedHeat& h : idle.heat) EXPECT_FALSE(h.known());
}

TEST(CountedHeat, AHotSetThatMovesIsSeenWithinSeconds) {
  Program p(100);
  for (std::size_t b = 0; b < 10; ++b) p.weight[b] = 81;  // 90 %
  p.run_rounds(300);
  const Gap hot = p.gap(0);
  const Gap cold = p.gap(50);
  EXPECT_GE(cold, hot + 9);
  for (std::size_t b = 0; b < 100; ++b) p.weight[b] = b >= 90 ? 81 : 1;
  int found = 0;
  int left = 0;
  for (int second = 1; second <= 20; ++second) {
    p.run_rounds(10);
    bool all_hot = true;
    bool all_cold = true;
    for (std::size_t b = 90; b < 100; ++b) all_hot = all_hot && p.gap(b) <= hot + 3;
    for (std::size_t b = 0; b < 10; ++b) all_cold = all_cold && p.gap(b) >= hot + 7;
    if (all_hot && found == 0) found = second;
    if (all_cold && left == 0) left = second;
  }
  EXPECT_GE(found, 1);
  EXPECT_LE(found, 3);
  EXPECT_GE(left, 1);
  EXPECT_LE(left, 6);
}

TEST(CountedHeat, BlocksOfEqualUseStayTogether) {
  Program p(100);
  p.run_rounds(20);
  for (int i = 0; i < 200; ++i) {
    p.run_rounds(1);
    Gap coldest = 0;
    Gap hottest = kCoolest;
    for (std::size_t b = 0; b < 100; ++b) {
      coldest = std::max(coldest, p.gap(b));
      hottest = std::min(hottest, p.gap(b));
    }
    ASSERT_LT(coldest - hottest, static_cast<int>(PlacementPolicy::kExchange)) << i;
  }
}

TEST(CountedHeat, OfABlockWithFewPagesEachIsHotter) {
  Program p(10);
  p.run_rounds(30);
  EXPECT_NEAR(p.heat[0].gap_of_page(kPages / 16) + 8, p.gap(0), 1);
  EXPECT_EQ(p.heat[0].gap_of_page(0), kUnknownGap);
}

TEST(CountedHeat, OneSampleOfVeryManyUsesIsNotSureYet) {
  CountedHeat h;
  h.add(UINT64_MAX);
  h.pass({millis(100), 0.001F, 1});
  EXPECT_FALSE(h.surely_used());
  EXPECT_FALSE(h.known());
  h.pass({seconds(100), 5, 5000});
  EXPECT_TRUE(h.known());
  EXPECT_FALSE(h.surely_used());
  EXPECT_NE(h.gap_of_page(kPages), kUnknownGap);
  h.forget();
  EXPECT_FALSE(h.used());
}

TEST(CountedHeat, IsBoundedHoweverLongItGoesOn) {
  CountedHeat used;
  CountedHeat never;
  for (int i = 0; i < 1000000; ++i) {
    used.add(UINT32_MAX);
    used.pass({seconds(1), 0.1F, 0.1F});
    never.pass({seconds(1), 0.1F, 0.1F});
  }
  EXPECT_EQ(used.gap_of_page(kPages), gap_of({512'000'000'000 / UINT32_MAX}));
  EXPECT_GT(never.gap_of_page(kPages), kLongestGap);
  EXPECT_LE(never.gap_of_page(kPages), kCoolest);
}

// Two tiers of blocks as a sampler counts their uses.
class Counted : public ToldBlocks {
 protected:
  void add(unsigned tier, std::size_t blocks) {
    for (std::size_t i = 0; i < blocks; ++i) add_block(tier);
  }
  // Goes on for so long, doing what is planned.
  void run(Program& p, int rounds, std::uint32_t seen) {
    for (int i = 0; i < rounds; ++i) {
      p.run(millis(100), seen);
      now_ = now_ + millis(100);
      std::uint64_t fast = 0;
      for (std::size_t b = 0; b < blocks_.size(); ++b) {
        blocks_[b].uses = p.heat[b];
        fast += blocks_[b].tier == 0 ? kPages : 0;
      }
      view_.tiers[0].room_pages = view_.tiers[0].capacity_pages - fast;
      PlacementBudget budget;
      budget.move_pages = 64 * kPagesPerBlock;
      PlacementPlan plan{steps_};
      policy_.decide(view_, now_, budget, plan);
      for (std::size_t s = 0; s < plan.count; ++s) carry_out(plan.steps[s]);
    }
  }
  void carry_out(const PlaceStep& s) {
    PlacedBlock& b = blocks_[s.block.v];
    if (s.action == PlaceAction::kPromote) {
      b.tier = 0;
      b.slow = 0;
      ++promoted_;
    } else if (s.action == PlaceAction::kDemote) {
      b.tier = 1;
      b.slow = static_cast<std::uint16_t>(kPages);
      ++demoted_;
    } else {
      ADD_FAILURE() << "not by what is counted: " << static_cast<int>(s.action);
    }
  }
  std::size_t fast(std::size_t first, std::size_t count) const {
    std::size_t n = 0;
    for (std::size_t b = first; b < first + count; ++b) n += blocks_[b].tier == 0 ? 1 : 0;
    return n;
  }

  int promoted_ = 0;
  int demoted_ = 0;
};

TEST_P(Counted, TheHotSetComesUpAndFollowsWhereItGoes) {
  add(0, 60);
  add(1, 100);
  Program p(160);
  for (std::size_t b = 120; b < 150; ++b) p.weight[b] = 39;  // 90 %
  run(p, 100, 500);
  EXPECT_EQ(fast(120, 30), 30U) << "within ten seconds";
  for (std::size_t b = 0; b < 160; ++b) p.weight[b] = b >= 70 && b < 100 ? 39 : 1;
  run(p, 30, 500);
  EXPECT_EQ(fast(70, 30), 30U) << "within three";
  run(p, 300, 500);
  EXPECT_EQ(fast(70, 30), 30U);
  EXPECT_LE(promoted_, 60 + 15) << "and little else";
}

TEST_P(Counted, WhereAllIsUsedAlikeNothingMoves) {
  add(0, 60);
  add(1, 60);
  Program p(120);
  view_.tiers[0].capacity_pages = 62 * kPagesPerBlock;
  run(p, 600, 100);
  EXPECT_EQ(promoted_, 0);
  EXPECT_LE(demoted_, 4) << "only what the reserve takes";
}

TEST_P(Counted, AProgramThatDoesNothingIsNotMoved) {
  add(0, 60);
  add(1, 60);
  Program p(120);
  view_.tiers[0].capacity_pages = 60 * kPagesPerBlock;
  run(p, 1000, 0);
  EXPECT_EQ(promoted_ + demoted_, 0);
}

INSTANTIATE_TEST_SUITE_P(Of, Counted, testing::Bool(), [](const auto& info) {
  return std::string(info.param ? "huge" : "small");
});

}  // namespace
}  // namespace heaptier
