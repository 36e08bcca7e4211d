// Interleaving on a made-up machine: where pages end, what is said of those that do not get there,
// which nodes take part, and where new memory comes from.
#include "runtime/interleave.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <memory>

#include "tests/fakes/fake_nodes.h"
#include "tests/fakes/mappings.h"
#include "tests/unit/runtime/engine_fixture.h"
#include "tests/unit/topology/machines.h"

namespace heaptier::test {
namespace {

class Host final : public LoopHost {
 public:
  bool between_steps() override {
    ++steps;
    return true;
  }
  bool ready_for_faults() override { return true; }
  int steps = 0;
};

const std::string kKernelWeights = "/sys/kernel/mm/mempolicy/weighted_interleave/node";

// Nodes 0 to 3 of bandwidths 10 : 10 : 2 : 1; all pages lie on node 1, small ones.
class Interleaving : public testing::Test {
 protected:
  explicit Interleaving(const char* policy = "hotset") {
    for (unsigned n = 0; n < 4; ++n) nodes_.add_node(n, 100000, 100);
    EXPECT_TRUE(parse_option(OptionId::kTiers, "dram=node:0;cxl=node:2", &options_).ok);
    EXPECT_TRUE(parse_option(OptionId::kPolicy, policy, &options_).ok);
    files_.files["/proc/self/maps"] = mapping(heap_.space.base(), heap_.space.bytes());
    for (std::uint32_t i = 0; i < kPages; ++i) {
      EXPECT_TRUE(heap_.write(i, i + 1));
      nodes_.pages[heap_.home(i)].node = 1;
    }
  }
  void make_huge(std::uint32_t block, int node) {
    for (std::uint32_t i = 0; i < kBlockPages; ++i) {
      nodes_.pages.erase(heap_.home(block * kBlockPages + i));
    }
    FakeNodes::Page& page = nodes_.pages[heap_.home(block * kBlockPages)];
    page.node = node;
    page.huge = true;
    heap_.machine.huge[heap_.home(block * kBlockPages)] = true;
  }
  // Passes until nothing moves any more.
  InterleaveReport run() {
    for (int i = 0; i < 1000 && !interleave_.report().settled; ++i) {
      heap_.machine.clock = heap_.machine.clock + seconds(1);
      interleave_.step(heap_.machine.clock);
    }
    EXPECT_TRUE(interleave_.report().settled);
    return interleave_.report();
  }
  void one_more_pass() {
    for (int i = 0; i < 4; ++i) {
      heap_.machine.clock = heap_.machine.clock + seconds(5);
      interleave_.step(heap_.machine.clock);
    }
  }
  // Small pages that are not where these weights have them.
  std::uint32_t strays(const NodeWeights& weights, std::uint32_t first = 0,
                       std::uint32_t count = kPages) const {
    const InterleavePattern pattern(weights);
    std::uint32_t n = 0;
    for (std::uint32_t i = first; i < first + count; ++i) {
      const auto it = nodes_.pages.find(heap_.home(i));
      if (it == nodes_.pages.end()) continue;
      const auto node = static_cast<int>(pattern.node_of(heap_.home(i), it->second.huge));
      n += it->second.node == node ? 0 : 1;
    }
    return n;
  }
  static NodeWeights by_hmat() {
    NodeWeights weights;
    weights.of[0] = 26;
    weights.of[2] = 5;
    return weights;
  }
  NodePolicy policy_of_heap() {
    NodePolicy policy;
    EXPECT_TRUE(nodes_.policy_at(heap_.home(0), &policy).ok());
    return policy;
  }
  std::uint64_t left(Stays why) const {
    return interleave_.report().left[static_cast<std::size_t>(why)];
  }

  static constexpr std::uint32_t kBlockPages = kPagesPerBlock;
  static constexpr std::uint32_t kPages = SmallHeap::kBlocks * kBlockPages;
  SmallHeap heap_;
  FakeNodes nodes_;
  FakeFileTree files_ = four_nodes_with_hmat();
  Options options_;
  Host host_;
  Migration migration_{heap_.core, heap_.own};
  HeapPolicy policy_{files_, nodes_};
  Drain drain_{heap_.core, migration_, host_, nodes_, files_, policy_, options_.tiers};
  Interleave interleave_{heap_.core, migration_, host_, nodes_, files_, policy_, drain_, options_};
};

class InterleavingAll : public Interleaving {
 protected:
  InterleavingAll() : Interleaving("interleave") {}
};

TEST_F(Interleaving, WhatIsAskedForGoesExactlyToItsPlaceAndNothingElse) {
  ASSERT_EQ(interleave_.spread(heap_.page(0), kBlockPages), 0);
  EXPECT_EQ(strays(by_hmat(), 0, kBlockPages), 0u);
  EXPECT_EQ(strays(by_hmat(), kBlockPages, kBlockPages), kBlockPages);
  EXPECT_TRUE(heap_.table.block(heap_.block(0)).stays()) << "tiering leaves it alone";
  EXPECT_FALSE(heap_.table.block(heap_.block(1)).stays());
  const InterleaveReport report = run();
  EXPECT_EQ(report.weights, by_hmat());
  EXPECT_EQ(report.reason, WeightReason::kBandwidth);
  EXPECT_EQ(report.in_place, kBlockPages);
  EXPECT_EQ(report.moved, kBlockPages);
  EXPECT_EQ(policy_of_heap(), NodePolicy{}) << "a range costs no mapping";
  heap_.check_all();

  // What comes later, and what was moved away.
  nodes_.pages[heap_.home(7)].node = 3;
  one_more_pass();
  EXPECT_EQ(strays(by_hmat(), 0, kBlockPages), 0u);
  // Taken back: it stays where it is.
  heap_.table.block(heap_.block(0)).interleaved = false;
  nodes_.pages[heap_.home(7)].node = 3;
  one_more_pass();
  EXPECT_EQ(nodes_.pages[heap_.home(7)].node, 3);
  EXPECT_FALSE(interleave_.report().on) << "nothing is asked for any more";
  StatsSnapshot snapshot;
  interleave_.read(&snapshot);
  EXPECT_EQ(snapshot.interleave_weights, NodeWeights{});
  EXPECT_EQ(interleave_.until_step(heap_.machine.clock, seconds(9)), seconds(9));
  EXPECT_EQ(interleave_.spread(heap_.page(0), 1), 0) << "and asked for again";
  EXPECT_EQ(strays(by_hmat(), 0, kBlockPages), 0u) << "whole pageblocks";
}

TEST_F(InterleavingAll, TheWholeHeapAndItsNewMemory) {
  ASSERT_TRUE(interleave_.begin().ok());
  EXPECT_TRUE(interleave_.whole());
  InterleaveReport report = run();
  EXPECT_EQ(report.in_place, kPages);
  EXPECT_EQ(report.left_in_all(), 0u);
  EXPECT_EQ(strays(by_hmat()), 0u);
  EXPECT_EQ(policy_of_heap(), (NodePolicy{PolicyMode::kInterleave, kHeapPolicyFlags, 0b101}))
      << "the kernel has no weights, so the rest is for us";
  StatsSnapshot snapshot;
  interleave_.read(&snapshot);
  EXPECT_EQ(snapshot.interleave_weights, by_hmat());
  EXPECT_EQ(snapshot.interleaved_pages, kPages);

  // The administrator gives the kernel these weights: then it places new memory by itself.
  files_.files[kKernelWeights + "0"] = "26\n";
  files_.files[kKernelWeights + "2"] = "4\n";
  one_more_pass();
  EXPECT_EQ(policy_of_heap().mode, PolicyMode::kInterleave) << "others are of no use";
  files_.files[kKernelWeights + "2"] = "5\n";
  one_more_pass();
  EXPECT_EQ(policy_of_heap().mode, PolicyMode::kWeightedInterleave);
  interleave_.stop();
  EXPECT_EQ(policy_of_heap(), NodePolicy{});
  heap_.check_all();
}

TEST_F(InterleavingAll, HugePagesGoWholeByTheirOwnNumber) {
  options_.policy.weights.of[0] = options_.policy.weights.of[2] = 1;
  make_huge(0, 1);
  make_huge(1, 1);
  ASSERT_TRUE(interleave_.begin().ok());
  EXPECT_EQ(run().in_place, kPages);
  const int first = nodes_.pages[heap_.home(0)].node;
  const int second = nodes_.pages[heap_.home(kBlockPages)].node;
  EXPECT_EQ(first + second, 2) << "one each";
  EXPECT_EQ(first == 0, heap_.home(0) / kPageblockSize % 2 == 0);
  EXPECT_EQ(nodes_.pages_passed, 2u);
  EXPECT_EQ(interleave_.report().reason, WeightReason::kGiven);
}

TEST_F(InterleavingAll, AHugePageIsNotTakenApartForIt) {
  make_huge(0, 1);
  make_huge(1, 1);
  nodes_.rooms[0] = nodes_.rooms[2] = {100000, 100000, 0};
  ASSERT_TRUE(interleave_.begin().ok());
  EXPECT_EQ(run().left_in_all(), kPages);
  EXPECT_EQ(left(Stays::kNoRoom), kPages);
  EXPECT_EQ(nodes_.splits(), 0u);
  EXPECT_EQ(nodes_.move_calls, 0u) << "not even tried";
}

TEST_F(InterleavingAll, SaysWhatStaysAndTriesAgain) {
  nodes_.pages[heap_.home(3)].busy = ~0u;
  nodes_.pages[heap_.home(4)].shared = true;
  nodes_.policies.push_back({{heap_.home(6), 2 * kPageSize}, {PolicyMode::kBind, 0, 2}});
  files_.files["/proc/self/maps"] = "";
  nodes_.rooms[2] = {10, 10, 0};
  ASSERT_TRUE(interleave_.begin().ok());
  (void)run();
  EXPECT_EQ(left(Stays::kPinned), 1u);
  EXPECT_EQ(left(Stays::kShared), 1u);
  EXPECT_EQ(left(Stays::kBound), 2u);
  EXPECT_GT(left(Stays::kNoRoom), 0u);
  EXPECT_EQ(interleave_.report().in_place + interleave_.report().left_in_all(), kPages);
  nodes_.pages[heap_.home(3)].busy = 0;
  nodes_.pages[heap_.home(4)].shared = false;
  nodes_.policies.clear();
  nodes_.rooms[2] = {100000, 100000, 0};
  one_more_pass();
  EXPECT_EQ(interleave_.report().left_in_all(), 0u);
  EXPECT_EQ(strays(by_hmat()), 0u);
}

TEST_F(InterleavingAll, PagesOnTheirWayAreLookedForAgain) {
  nodes_.pages[heap_.home(3)].hidden = 2;
  ASSERT_TRUE(interleave_.begin().ok());
  EXPECT_EQ(run().in_place, kPages);
}

TEST_F(InterleavingAll, ParkedPagesGoFromThePark) {
  ASSERT_TRUE(migration_.manage(heap_.block(0)).ok());
  ASSERT_GT(migration_.park(heap_.block(0), Parking::kAll).moved, 0u);
  const InterleavePattern pattern(by_hmat());
  for (std::uint32_t i = 0; i < kBlockPages; ++i) {
    nodes_.pages.erase(heap_.home(i));
    nodes_.pages[heap_.core.park(heap_.page(i))].node = 1;
  }
  ASSERT_TRUE(interleave_.begin().ok());
  EXPECT_EQ(run().in_place, kPages);
  for (std::uint32_t i = 0; i < kBlockPages; ++i) {
    ASSERT_EQ(nodes_.pages[heap_.core.park(heap_.page(i))].node,
              static_cast<int>(pattern.node_of(heap_.home(i), false)))
        << "by the address of home";
  }
  heap_.check_all();
}

TEST_F(InterleavingAll, PinnedMemoryIsLeftWhereItIs) {
  heap_.table.block(heap_.block(0)).pins = 1;
  ASSERT_TRUE(interleave_.begin().ok());
  EXPECT_EQ(run().in_place, kBlockPages);
  EXPECT_EQ(strays(by_hmat(), 0, kBlockPages), kBlockPages);
}

TEST_F(InterleavingAll, NodesThatMayNotBeUsedAreLeftOutAndComeBack) {
  options_.policy.weights = {};
  options_.policy.weights.of[0] = options_.policy.weights.of[1] = 1;
  options_.policy.weights.of[3] = 2;
  const NodeWeights all = options_.policy.weights;
  ASSERT_TRUE(interleave_.begin().ok());
  (void)run();
  EXPECT_EQ(strays(all), 0u);
  const auto now = [&](NodeSet nodes, const char* what) {
    one_more_pass();
    (void)run();
    EXPECT_EQ(interleave_.report().weights, all.within(nodes)) << what;
    EXPECT_EQ(strays(all.within(nodes)), 0u) << what;
    EXPECT_EQ(policy_of_heap().nodes, nodes.bits()) << what;
  };
  const NodeSet three = all.nodes();
  nodes_.outside_cpuset = {3};
  now(three - NodeSet::of(3), "the cpuset has shrunk");
  nodes_.outside_cpuset = {};
  now(three, "and grown");
  const NodeRoom room = nodes_.rooms[1];
  for (auto& [at, page] : nodes_.pages) page.node = page.node == 1 ? 3 : page.node;
  nodes_.rooms.erase(1);
  now(three - NodeSet::of(1), "its memory is offline");
  nodes_.rooms[1] = room;
  now(three, "and online");
  ASSERT_TRUE(drain_.begin(0).ok());
  one_more_pass();
  EXPECT_EQ(interleave_.report().weights, all.within(three - NodeSet::of(0)));
  ASSERT_TRUE(drain_.end(0).ok());
  now(three, "it is not vacated any more");
}

TEST_F(InterleavingAll, RefusesWhatCannotBe) {
  nodes_.own_policy = {PolicyMode::kBind, 0, 1};
  EXPECT_EQ(interleave_.begin().code, ENOTSUP);
  EXPECT_NE(std::string(interleave_.why_not()).find("numactl"), std::string::npos);
  nodes_.own_policy = {};
  nodes_.fail_at(2, EPERM);  // after that question
  EXPECT_EQ(interleave_.begin().code, ENOTSUP);
  EXPECT_NE(std::string(interleave_.why_not()).find("move_pages"), std::string::npos);
  nodes_.stop_failing();
  files_.files["/proc/self/status"] = "Mems_allowed_list:\t0\n";
  EXPECT_EQ(interleave_.begin().code, ENOTSUP);
  EXPECT_NE(std::string(interleave_.why_not()).find("one memory node"), std::string::npos);
  EXPECT_EQ(interleave_.spread(heap_.page(0), 1), -ENOTSUP);
  EXPECT_FALSE(interleave_.report().on);
  interleave_.step(heap_.machine.clock);
  EXPECT_EQ(nodes_.move_calls, 0u);
}

// Whatever fails, and whenever: the next pass puts it right.
TEST_F(InterleavingAll, EveryCallMayFail) {
  ASSERT_TRUE(interleave_.begin().ok());
  for (std::uint64_t nth = 1; nth < 200; ++nth) {
    for (auto& [at, page] : nodes_.pages) page.node = 1;
    for (unsigned n = 0; n < 4; ++n) nodes_.add_node(n, 100000, 100);
    nodes_.fail_at(nth, nth % 2 == 0 ? ENOMEM : EPERM);
    one_more_pass();
    const bool failed = nodes_.failed_once();
    nodes_.stop_failing();
    one_more_pass();
    ASSERT_EQ(strays(by_hmat()), 0u) << nth;
    ASSERT_EQ(interleave_.report().in_place, kPages) << nth;
    if (!failed) return;
  }
}

TEST_F(InterleavingAll, ABlockThatCannotBeLookedAtIsLookedAtAgain) {
  ASSERT_TRUE(interleave_.begin().ok());
  heap_.machine.fail_at(1, EINVAL);
  heap_.machine.clock = heap_.machine.clock + seconds(1);
  interleave_.step(heap_.machine.clock);
  ASSERT_TRUE(heap_.machine.failed_once());
  EXPECT_EQ(run().in_place, kPages);
  EXPECT_EQ(strays(by_hmat()), 0u);
}

}  // namespace
}  // namespace heaptier::test
