// hotset in a closed loop: the simulated memory of bench/ carries out what it plans, in simulated
// time.
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "bench/simulated_memory.h"
#include "bench/simulated_trace.h"
#include "policies/hotset.h"

namespace heaptier {
namespace {

using simulation::Config;
using simulation::Counts;
using simulation::Draw;
using simulation::Memory;
using simulation::Weights;

constexpr std::uint32_t kBlocks = 32;
constexpr std::uint32_t kPages = kBlocks * static_cast<std::uint32_t>(kPagesPerBlock);

class HotsetLoop : public ::testing::TestWithParam<bool> {
 protected:
  HotsetLoop() {
    config_.blocks = kBlocks;
    config_.huge = GetParam();
  }

  static void fill(Memory& memory) {
    for (std::uint32_t p = 0; p < memory.pages(); ++p) memory.access(p, true);
  }

  // Counts of `accesses` more by these weights.
  Counts run(Memory& memory, const Weights& weights, std::uint32_t accesses) {
    const Draw draw(weights);
    memory.counts = {};
    for (std::uint32_t i = 0; i < accesses; ++i) {
      const std::uint64_t r = random_();
      memory.access(draw(random_), r % 100 < 5);
    }
    return memory.counts;
  }

  static double misses(const Counts& c) {
    return static_cast<double>(c.fetches) / static_cast<double>(c.accesses);
  }
  static void expect_under_budget(Memory& memory, const Counts& c) {
    EXPECT_LE(memory.used() * kPageSize, memory.budget().high_bytes + 64 * kPageSize);
    EXPECT_LE(c.used_most * kPageSize, memory.budget().fast_bytes);
    EXPECT_LT(c.over_high, c.accesses / 100);
  }

  Config config_;
  HotsetPolicy policy_;
  std::mt19937_64 random_{42};
};

TEST_P(HotsetLoop, AZipfianLoadSettlesUnderTheBudgetAndBeatsLru) {
  Memory memory(config_, policy_);
  fill(memory);
  const Weights weights = simulation::zipf_pages(kPages, 1);
  run(memory, weights, 3'000'000);
  const Counts c = run(memory, weights, 1'000'000);
  expect_under_budget(memory, c);
  simulation::Lru lru(kPages, kPages / 2);
  const Draw draw(weights);
  std::uint64_t lru_misses = 0;
  for (int i = 0; i < 1'000'000; ++i)
    lru_misses += lru.access(draw(random_)) && i >= 500'000 ? 1 : 0;
  EXPECT_LT(misses(c), static_cast<double>(lru_misses) / 500'000);
  EXPECT_GT(misses(c), simulation::lfu_optimal(weights, kPages / 2));
  // Settled: whole blocks are no longer parked and brought back.
  EXPECT_LT(c.hints, c.accesses / 1000);
  EXPECT_LE(c.parks, 3U);
}

TEST_P(HotsetLoop, AHotSetThatFitsCostsNothingOnceItIsKnown) {
  Memory memory(config_, policy_);
  fill(memory);
  const Weights weights = simulation::make_trace("still", kPages, 1).first;
  run(memory, weights, 3'000'000);
  const Counts c = run(memory, weights, 1'000'000);
  EXPECT_EQ(c.fetches, 0U);
  EXPECT_LT(c.hints, kPagesPerBlock * 2);
  EXPECT_EQ(c.compressions, 0U);
}

TEST_P(HotsetLoop, FollowsAHotSetThatMoves) {
  Memory memory(config_, policy_);
  fill(memory);
  run(memory, simulation::hot_blocks(kPages, 8, 2, 0.98), 2'000'000);
  const Weights moved = simulation::hot_blocks(kPages, 8, 5, 0.98);
  const Counts first = run(memory, moved, 200'000);
  run(memory, moved, 800'000);
  const Counts c = run(memory, moved, 1'000'000);
  expect_under_budget(memory, c);
  EXPECT_LT(misses(c), 0.02) << "right after the move: " << misses(first);
}

TEST_P(HotsetLoop, AHeapThatIsAllHotGetsUnderTheBudgetAndDoesNotSpin) {
  Memory memory(config_, policy_);
  fill(memory);
  const Weights weights(kPages, 1.0);
  run(memory, weights, 500'000);
  const Counts c = run(memory, weights, 500'000);
  expect_under_budget(memory, c);
  EXPECT_LT(misses(c), 0.53);  // half is there, less what the watermarks keep free
  // A compression for every tenth miss is the price of probation; nothing is parked in vain.
  EXPECT_LT(c.compressions, c.fetches / 4);
  EXPECT_LT(c.hints, c.accesses / 100);
}

TEST_P(HotsetLoop, ATinyBudgetThatIsAlwaysTouched) {
  // 8 blocks, 1 MiB of budget: every page is touched between two ticks.
  config_.blocks = 8;
  config_.budget_percent = 7;
  Memory memory(config_, policy_);
  fill(memory);
  const Weights weights(memory.pages(), 1.0);
  run(memory, weights, 100'000);
  expect_under_budget(memory, run(memory, weights, 100'000));
}

TEST_P(HotsetLoop, AColdHeapGoesAndThenThereIsQuiet) {
  Memory memory(config_, policy_);
  fill(memory);
  memory.idle_until(memory.now() + seconds(30));
  EXPECT_LE(memory.used() * kPageSize, memory.budget().low_bytes);
  memory.counts = {};
  memory.idle_until(memory.now() + seconds(600));
  EXPECT_LE(memory.counts.parks, 2U) << "at most the share that is watched";
  EXPECT_EQ(memory.counts.compressions, 0U);
  EXPECT_EQ(memory.counts.unparks, 0U);
}

TEST_P(HotsetLoop, ABudgetThatIsCutIsReached) {
  config_.budget_percent = 90;
  Memory memory(config_, policy_);
  fill(memory);
  run(memory, simulation::zipf_pages(kPages, 1), 300'000);
  Budget& b = memory.budget();
  b.fast_bytes = kPages * kPageSize / 4;
  b.high_bytes = b.fast_bytes * 98 / 100;
  b.low_bytes = b.fast_bytes * 95 / 100;
  memory.idle_until(memory.now() + seconds(10));
  EXPECT_LE(memory.used() * kPageSize, b.fast_bytes);
}

INSTANTIATE_TEST_SUITE_P(, HotsetLoop, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "Huge" : "Small"; });

// Blocks that cannot be demoted (pinned) are tried ever more rarely, and the others all the same.
TEST(HotsetFruitless, AreTriedEverMoreRarely) {
  std::vector<BlockView> blocks(8);
  for (std::uint32_t i = 0; i < blocks.size(); ++i) {
    blocks[i].index = {i};
    blocks[i].phase = BlockPhase::kWhole;
    blocks[i].resident = kPagesPerBlock;
  }
  View view;
  view.blocks = blocks;
  view.resident_bytes = blocks.size() * kPageblockSize;
  Budget budget;
  budget.fast_bytes = budget.high_bytes = budget.low_bytes = view.resident_bytes / 2;
  HotsetPolicy policy;
  int tries_early = 0, tries_late = 0;
  constexpr int kTicksPerMinute = 60 * 50;
  for (int tick = 0; tick < 30 * kTicksPerMinute; ++tick) {
    Step storage[16];
    Plan plan(storage);
    policy.decide(view, millis(20 * (tick + 1)), budget, plan);
    for (const Step& s : plan.steps()) {
      ++blocks[s.block.v].fruitless;
      ++(tick < kTicksPerMinute ? tries_early : tries_late);
    }
  }
  EXPECT_GT(tries_early, 8);   // not given up at once,
  EXPECT_LE(tries_early, 80);  // not 3000 times either;
  EXPECT_GT(tries_late, 8);    // and not given up for ever
  EXPECT_LE(tries_late, 8 * 30);
}

}  // namespace
}  // namespace heaptier
