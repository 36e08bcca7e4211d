// The loop over a chain of memory nodes where a sampler tells what is hot: blocks move by that
// alone, without having been parked.
#include "runtime/node_loop.h"

#include <gtest/gtest.h>

#include "runtime/config/option_values.h"
#include "tests/fakes/fake_nodes.h"
#include "tests/unit/runtime/engine_fixture.h"
#include "tests/unit/topology/machines.h"

namespace heaptier::test {
namespace {

class FakeSampler final : public Sampler {
 public:
  bool goes_on = true;
  std::uintptr_t base = 0;
  std::uint32_t used[2] = {0, 0};  // of 20 looks, by block
  std::uint32_t asked = 0;         // pageblocks, the last time
  int rounds = 0;

  bool tells() const override { return goes_on; }
  void round(const SampledBlocks& blocks, Nanos, HeatSink& sink) override {
    ++rounds;
    asked = 0;
    for (std::uint32_t b = 0; b < blocks.wanted.size() * 64; ++b) asked += blocks.has(b) ? 1 : 0;
    EXPECT_EQ(asked, blocks.count);
    for (std::uint32_t b = 0; b < 2; ++b) {
      const std::uintptr_t at = base + b * kPageblockSize;
      sink.told(at, at + kPageblockSize, 20, used[b], millis(5));
    }
    // Of what was freed since, or never was ours.
    sink.told(16, 16 + kPageblockSize, 20, 20, millis(5));
    sink.told(blocks.base - kPageblockSize, blocks.base + kPageblockSize, 20, 20, millis(5));
    sink.told(base + 2 * kPageblockSize, base + 3 * kPageblockSize, 20, 20, millis(5));
    sink.told(base, base, 20, 20, millis(5));
  }
  void stop() override { goes_on = false; }
};

// Sees uses, and not looks.
class CountingSampler final : public Sampler {
 public:
  bool goes_on = true;
  std::uintptr_t base = 0;
  unsigned seen[2] = {0, 0};  // in a round, by block
  int anywhere = 0;           // and of what is not the heap's

  bool tells() const override { return goes_on; }
  void round(const SampledBlocks& blocks, Nanos now, HeatSink& sink) override {
    for (std::uintptr_t b = 0; b < 2; ++b) {
      for (unsigned i = 0; i < seen[b]; ++i) sink.used(base + b * kPageblockSize + 64 * i, 100);
    }
    for (int i = 0; i < anywhere; ++i) {
      for (const std::uintptr_t at : {std::uintptr_t{64}, blocks.base - 1, ~std::uintptr_t{0},
                                      base + 2 * kPageblockSize, base + (kPageblockSize << 9)}) {
        sink.used(at, UINT64_MAX);
      }
    }
    sink.counted(now);
  }
  void stop() override { goes_on = false; }
};

class Host final : public LoopHost {
 public:
  bool between_steps() override { return true; }
  bool ready_for_faults() override {
    ++asked;
    return true;
  }
  int asked = 0;
};

// Two pageblocks of small pages on node 0, of which the budget leaves one there.
class ToldLoop : public testing::Test {
 protected:
  ToldLoop() {
    for (unsigned n = 0; n < 4; ++n) nodes_.add_node(n, 100000, 100);
    EXPECT_TRUE(parse_option(OptionId::kTiers, "dram=node:0;cxl=node:2", &options_).ok);
    EXPECT_TRUE(parse_option(OptionId::kFast, "4M", &options_).ok);
    FakeFileTree files = four_nodes_with_hmat();
    EXPECT_TRUE(tiers_.init(nodes_, files, options_.tiers).ok());
    h_.core.nodes = &tiers_;
    for (std::uint32_t i = 0; i < 1024; ++i) {
      EXPECT_TRUE(h_.write(i, 1000 + i));
      nodes_.pages[h_.home(i)] = {};
    }
    EXPECT_TRUE(loop_.init().ok());
    sampler_.base = h_.home(0);
    loop_.use_sampler(sampler_);
  }
  void run(int ticks) {
    for (int i = 0; i < ticks; ++i) {
      h_.machine.clock = h_.machine.clock + millis(100);
      nodes_.clock = h_.machine.clock;
      loop_.tick(h_.machine.clock);
    }
  }
  int on_node(int node, std::uint32_t block) {
    int n = 0;
    for (std::uint32_t i = 0; i < 512; ++i) {
      n += nodes_.pages[h_.home(block * 512 + i)].node == node ? 1 : 0;
    }
    return n;
  }
  void expect_only_the_first_at_home() {
    EXPECT_EQ(on_node(0, 0), 512) << "what is hot stays";
    EXPECT_EQ(on_node(2, 1), 512) << "what is cold goes";
    EXPECT_EQ(h_.stats.nodes_demoted.get(), 512U);
  }
  void expect_them_exchanged() {
    EXPECT_EQ(on_node(0, 1), 512) << "what has become hot comes up";
    EXPECT_EQ(on_node(2, 0), 512) << "and what has become cold makes room";
    EXPECT_EQ(h_.stats.nodes_promoted.get(), 512U);
    EXPECT_EQ(h_.stats.pages_parked.get(), 0U) << "without anything being parked";
    h_.check_all();
  }

  SmallHeap h_;
  FakeNodes nodes_;
  Options options_;
  NodeTiers tiers_;
  Host host_;
  FakeSampler sampler_;
  NodeLoop loop_{h_.core, h_.migration, options_, host_};
};

TEST_F(ToldLoop, BlocksGoWhereTheirHeatBelongs) {
  sampler_.used[0] = 20;
  run(20);
  EXPECT_EQ(sampler_.asked, 2U);
  expect_only_the_first_at_home();
  sampler_.used[0] = 0;
  sampler_.used[1] = 20;
  run(60);
  expect_them_exchanged();
}

TEST_F(ToldLoop, WhereNothingCanBeParkedNobodyHasToServeFaults) {
  Protection protection(h_.space, h_.machine);
  ASSERT_TRUE(protection.init(65530).ok());
  h_.core.protection = &protection;
  h_.core.only_user_only = true;
  h_.core.park_base = h_.space.base();
  h_.core.store = nullptr;
  sampler_.used[0] = 20;
  run(20);
  EXPECT_EQ(on_node(2, 1), 512);
  EXPECT_EQ(host_.asked, 0);
  EXPECT_EQ(protection.mappings(), 0U);
}

TEST_F(ToldLoop, AnApplicationsPlaceIsKept) {
  nodes_.policies.push_back(
      {{h_.home(0), 2 * kPageblockSize}, NodePolicy{PolicyMode::kBind, 0, 1}});
  sampler_.used[0] = 20;
  run(20);
  EXPECT_EQ(on_node(0, 1), 512);
  EXPECT_EQ(nodes_.move_calls, 0U);
}

TEST_F(ToldLoop, WhenItTellsNoMoreThePagesAreAskedAgain) {
  sampler_.used[0] = 20;
  run(20);
  const int rounds = sampler_.rounds;
  sampler_.stop();
  run(20);
  EXPECT_EQ(sampler_.rounds, rounds);
  EXPECT_GT(h_.stats.pages_parked.get(), 0U);
  h_.check_all();
}

class CountedLoop : public ToldLoop {
 protected:
  CountedLoop() {
    counting_.base = h_.home(0);
    loop_.use_sampler(counting_);
  }
  CountingSampler counting_;
};

TEST_F(CountedLoop, BlocksGoWhereTheirHeatBelongs) {
  counting_.seen[0] = 20;
  run(20);
  expect_only_the_first_at_home();
  counting_.seen[0] = 0;
  counting_.seen[1] = 20;
  counting_.anywhere = 3;
  run(60);
  expect_them_exchanged();
}

TEST_F(CountedLoop, WhereNothingIsSeenNothingIsKnown) {
  counting_.anywhere = 5;
  run(200);
  EXPECT_EQ(nodes_.move_calls, 0U);
  counting_.seen[0] = 1;
  run(3);
  EXPECT_EQ(nodes_.move_calls, 0U) << "three are too few";
  run(30);
  EXPECT_EQ(on_node(2, 1), 512);
}

TEST_F(CountedLoop, WhenItTellsNoMoreThePagesAreAskedAgain) {
  counting_.seen[0] = 20;
  run(20);
  counting_.stop();
  run(20);
  EXPECT_GT(h_.stats.pages_parked.get(), 0U);
  h_.check_all();
}

}  // namespace
}  // namespace heaptier::test
