// Vacating nodes, on a made-up machine: which pages go, where to, what is said to be left, and
// where new memory comes from meanwhile.
#include "runtime/drain.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <memory>

#include "runtime/heap_policy.h"
#include "tests/fakes/fake_nodes.h"
#include "tests/fakes/mappings.h"
#include "tests/unit/runtime/engine_fixture.h"
#include "tests/unit/topology/machines.h"

namespace heaptier::test {
namespace {

class Targets : public testing::Test {
 protected:
  Targets() {
    Topology& topology = *topology_;
    FakeFileTree files = four_nodes_with_hmat();
    read_topology(files, &topology);
    Options options;
    EXPECT_TRUE(
        parse_option(OptionId::kTiers, "dram=node:0-1;cxl=node:2;pmem=node:3", &options).ok);
    rank_as_configured(options.tiers, topology, &ranking_);
    for (unsigned n = 0; n < 4; ++n) nodes_.add_node(n, 10000, 10);
  }
  DrainTargets& look(NodeSet open) {
    targets_.use(ranking_, open);
    targets_.look(nodes_);
    return targets_;
  }
  static NodeSet but(unsigned node) {
    NodeSet nodes;
    for (unsigned n = 0; n < 4; ++n) {
      if (n != node) nodes.add(n);
    }
    return nodes;
  }
  std::unique_ptr<Topology> topology_ = std::make_unique<Topology>();
  Ranking ranking_;
  FakeNodes nodes_;
  DrainTargets targets_;
};

TEST_F(Targets, TheOwnTierComesFirstThenThoseBelowThenThoseAbove) {
  EXPECT_EQ(look(but(0)).take(0, Fit::kSmall), 1);
  nodes_.rooms[1] = {};
  EXPECT_EQ(look(but(0)).take(0, Fit::kSmall), 2);
  nodes_.rooms[2] = {};
  EXPECT_EQ(look(but(0)).take(0, Fit::kSmall), 3);
  EXPECT_EQ(look(but(3)).take(3, Fit::kSmall), 0) << "2 and 1 are full: up, by the nearest tier";
  nodes_.rooms[3] = {};
  nodes_.rooms[0] = {};
  EXPECT_EQ(look(but(0)).take(0, Fit::kSmall), -1);
}

TEST_F(Targets, OfATierTheNodeWithMostRoomAndWhatIsTakenIsGone) {
  nodes_.rooms[0] = {2, 2, 0};
  nodes_.rooms[1] = {3, 3, 0};
  DrainTargets& t = look(but(2));
  EXPECT_EQ(t.take(2, Fit::kSmall), 3) << "below";
  nodes_.rooms[3] = {};
  (void)look(but(2));
  EXPECT_EQ(t.take(2, Fit::kSmall), 1);
  for (int i = 0; i < 4; ++i) EXPECT_GE(t.take(2, Fit::kSmall), 0) << i;
  EXPECT_EQ(t.take(2, Fit::kSmall), -1);
  EXPECT_FALSE(t.has_room());
}

TEST_F(Targets, AHugePageWantsAFreeBlockOrRoomToMakeOne) {
  nodes_.rooms[1] = {10000, 10000, 0};
  nodes_.rooms[2] = {1000, 1000, 1};
  nodes_.rooms[3] = {600, 600, 0};
  DrainTargets& t = look(but(0));
  EXPECT_EQ(t.take(0, Fit::kWhole), 2);
  EXPECT_EQ(t.take(0, Fit::kWhole), -1) << "the only block is taken";
  EXPECT_EQ(t.take(0, Fit::kCompact), 1);
  EXPECT_TRUE(t.has_room());
}

TEST(HeapPolicy, IsSetOnTheHeapsMappingsAndUndoneButNotOnTheApplications) {
  FakeFileTree files;
  FakeNodes nodes;
  constexpr std::uintptr_t kHeap = 0x7f0000000000;
  constexpr std::size_t kPart = kPageblockSize;
  const NodePolicy bound{PolicyMode::kBind, 0, 1};
  nodes.policies.push_back({{kHeap + 2 * kPart, kPart}, bound});
  files.files["/proc/self/maps"] =
      mapping(kHeap - kPart, 2 * kPart, kAnonymous) + mapping(kHeap + kPart, kPart, kAnonymous) +
      mapping(kHeap + 2 * kPart, kPart, kAnonymous) +
      mapping(kHeap + 3 * kPart, kPart, "rw-p 00000000 00:00 0    [anon:heap]") +
      mapping(kHeap + 4 * kPart, kPart, "---p 00000000 00:00 0 ") +
      mapping(kHeap + 5 * kPart, kPart, "rw-p 00001000 08:01 77   /some/file") +
      mapping(kHeap + 6 * kPart, kPart, "rw-s 00000000 00:01 9    /dev/zero (deleted)") +
      "nonsense\n7f-\n" + mapping(kHeap + 7 * kPart, kPart, kAnonymous);
  const AddressRange heap{kHeap, 7 * kPart};
  NodeSet open = NodeSet::of(1) | NodeSet::of(2);
  const auto policy_of = [&nodes](std::uintptr_t at) {
    NodePolicy p;
    EXPECT_TRUE(nodes.policy_at(at, &p).ok());
    return p;
  };
  HeapPolicy policy(files, nodes);
  policy.restrict_to(open);
  ASSERT_TRUE(policy.apply(heap).ok());
  for (const std::size_t part : {0u, 1u, 3u, 4u}) {
    EXPECT_TRUE(is_heap_policy(policy_of(kHeap + part * kPart))) << part;
    EXPECT_EQ(policy_of(kHeap + part * kPart).nodes, open.bits()) << part;
  }
  EXPECT_EQ(policy_of(kHeap + 2 * kPart), bound);
  for (const std::size_t part : {5u, 6u, 7u}) {
    EXPECT_EQ(policy_of(kHeap + part * kPart), NodePolicy{}) << part;
  }
  EXPECT_EQ(policy_of(kHeap - 1), NodePolicy{}) << "before the heap";
  const std::size_t set = nodes.policies.size();
  ASSERT_TRUE(policy.apply(heap).ok());
  EXPECT_EQ(nodes.policies.size(), set) << "nothing to do the second time";
  policy.restrict_to({});
  ASSERT_TRUE(policy.apply(heap).ok());
  for (const std::size_t part : {0u, 1u, 3u, 4u}) {
    EXPECT_EQ(policy_of(kHeap + part * kPart), NodePolicy{}) << part;
  }
  EXPECT_EQ(policy_of(kHeap + 2 * kPart), bound);
}

class Host final : public LoopHost {
 public:
  bool between_steps() override {
    ++steps;
    return true;
  }
  bool ready_for_faults() override { return true; }
  int steps = 0;
};

class Draining : public testing::Test {
 protected:
  Draining() {
    for (unsigned n = 0; n < 4; ++n) nodes_.add_node(n, 100000, 100);
    Options options;
    EXPECT_TRUE(
        parse_option(OptionId::kTiers, "dram=node:0-1;cxl=node:2;pmem=node:3", &options).ok);
    chain_ = options.tiers;
    files_.files["/proc/self/maps"] = mapping(heap_.space.base(), heap_.space.bytes(), kAnonymous);
    for (std::uint32_t i = 0; i < kPages; ++i) {
      EXPECT_TRUE(heap_.write(i, i + 1));
      put(i, 2);
    }
  }
  void put(std::uint32_t page, int node) { nodes_.pages[heap_.home(page)].node = node; }
  void make_huge(std::uint32_t block, int node) {
    for (std::uint32_t i = 0; i < kBlockPages; ++i) {
      nodes_.pages.erase(heap_.home(block * kBlockPages + i));
    }
    FakeNodes::Page& page = nodes_.pages[heap_.home(block * kBlockPages)];
    page.node = node;
    page.huge = true;
    heap_.machine.huge[heap_.home(block * kBlockPages)] = true;
  }
  std::uint32_t on(int node) const {
    std::uint32_t n = 0;
    for (const auto& [at, page] : nodes_.pages) {
      if (page.node == node) n += page.huge ? kBlockPages : 1;
    }
    return n;
  }
  DrainReport run(unsigned node) {
    DrainReport report = drain_.report(node);
    for (int i = 0; i < 1000 && report.draining && !report.settled; ++i) {
      heap_.machine.clock = heap_.machine.clock + millis(1);
      drain_.step(heap_.machine.clock);
      report = drain_.report(node);
    }
    EXPECT_TRUE(report.settled);
    return report;
  }
  std::uint64_t left(const DrainReport& report, Stays why) const {
    return report.left[static_cast<std::size_t>(why)];
  }

  static constexpr std::uint32_t kBlockPages = kPagesPerBlock;
  static constexpr std::uint32_t kPages = SmallHeap::kBlocks * kBlockPages;
  SmallHeap heap_;
  FakeNodes nodes_;
  FakeFileTree files_ = four_nodes_with_hmat();
  TierChain chain_;
  Host host_;
  Migration migration_{heap_.core, heap_.own};
  HeapPolicy policy_{files_, nodes_};
  Drain drain_{heap_.core, migration_, host_, nodes_, files_, policy_, chain_};
};

TEST_F(Draining, MovesAllAndKeepsNewMemoryOff) {
  ASSERT_TRUE(drain_.begin(2).ok());
  DrainReport report = run(2);
  EXPECT_EQ(report.moved, kPages);
  EXPECT_EQ(report.left_in_all(), 0u);
  EXPECT_EQ(on(2), 0u);
  EXPECT_EQ(on(3), kPages) << "the next tier down";
  EXPECT_GT(host_.steps, 1) << "faults are looked after meanwhile";
  NodePolicy policy;
  ASSERT_TRUE(nodes_.policy_at(heap_.home(0), &policy).ok());
  EXPECT_TRUE(is_heap_policy(policy));
  EXPECT_EQ(policy.nodes, 0b1011u);
  // What appears there later goes, too, but not at once.
  put(7, 2);
  EXPECT_GT(drain_.until_step(heap_.machine.clock, seconds(5)).v, millis(500).v);
  heap_.machine.clock = heap_.machine.clock + seconds(5);
  drain_.step(heap_.machine.clock);
  EXPECT_EQ(on(2), 0u);
  EXPECT_EQ(drain_.report(2).moved, kPages + 1);

  ASSERT_TRUE(drain_.end(2).ok());
  ASSERT_TRUE(nodes_.policy_at(heap_.home(0), &policy).ok());
  EXPECT_EQ(policy, NodePolicy{});
  EXPECT_FALSE(drain_.report(2).draining);
  EXPECT_EQ(drain_.until_step(heap_.machine.clock, seconds(1)), seconds(1)) << "costs nothing";
  put(7, 2);
  heap_.machine.clock = heap_.machine.clock + seconds(5);
  drain_.step(heap_.machine.clock);
  EXPECT_EQ(on(2), 1u);
  heap_.check_all();
}

TEST_F(Draining, SaysWhyPagesStay) {
  nodes_.pages[heap_.home(3)].busy = ~0u;
  nodes_.pages[heap_.home(4)].shared = true;
  nodes_.pages[heap_.home(5)].shared = true;
  const std::uintptr_t bound = heap_.home(6);
  const std::uintptr_t behind = heap_.home(9);
  nodes_.policies.push_back({{bound, 3 * kPageSize}, {PolicyMode::kPreferred, 0, 4}});
  files_.files["/proc/self/maps"] =  // what is bound is a mapping of its own
      mapping(heap_.space.base(), bound - heap_.space.base(), kAnonymous) +
      mapping(bound, 3 * kPageSize, kAnonymous) +
      mapping(behind, heap_.space.base() + heap_.space.bytes() - behind, kAnonymous);
  ASSERT_TRUE(drain_.begin(2).ok());
  DrainReport report = run(2);
  EXPECT_EQ(left(report, Stays::kPinned), 1u);
  EXPECT_EQ(left(report, Stays::kShared), 2u);
  EXPECT_EQ(left(report, Stays::kBound), 3u);
  EXPECT_EQ(report.left_in_all(), 6u);
  EXPECT_EQ(on(2), 6u);
  // Let go, it goes, and asking again looks again.
  nodes_.pages[heap_.home(3)].busy = 0;
  ASSERT_TRUE(drain_.begin(2).ok());
  report = run(2);
  EXPECT_EQ(left(report, Stays::kPinned), 0u);
  EXPECT_EQ(report.moved, kPages - 5) << "since it began";
}

TEST_F(Draining, WhatFitsNowhereStaysAndIsNotTried) {
  nodes_.rooms[0] = nodes_.rooms[1] = {};
  nodes_.rooms[3] = {100, 100, 0};
  make_huge(1, 2);
  ASSERT_TRUE(drain_.begin(2).ok());
  const DrainReport report = run(2);
  EXPECT_EQ(report.moved, 100u);
  EXPECT_EQ(left(report, Stays::kNoRoom), kPages - 100);
  EXPECT_EQ(nodes_.splits(), 0u) << "no huge page was lost to a try";
}

TEST_F(Draining, HugePagesGoWhole) {
  make_huge(0, 2);
  make_huge(1, 2);
  nodes_.rooms[3] = {100000, 100000, 1};
  ASSERT_TRUE(drain_.begin(2).ok());
  EXPECT_EQ(run(2).left_in_all(), 0u);
  EXPECT_EQ(on(3), kBlockPages);
  EXPECT_EQ(on(0) + on(1), kBlockPages) << "the other way, whole, rather than in pieces";
  EXPECT_EQ(nodes_.splits(), 0u);
  EXPECT_EQ(nodes_.pages_passed, 2u);
}

TEST_F(Draining, ParkedPagesGoFromThePark) {
  ASSERT_TRUE(migration_.manage(heap_.block(0)).ok());
  ASSERT_GT(migration_.park(heap_.block(0), Parking::kAll).moved, 0u);
  for (std::uint32_t i = 0; i < kBlockPages; ++i) {
    nodes_.pages.erase(heap_.home(i));
    nodes_.pages[heap_.core.park(heap_.page(i))].node = 2;
  }
  ASSERT_TRUE(drain_.begin(2).ok());
  EXPECT_EQ(run(2).moved, kPages);
  EXPECT_EQ(on(2), 0u);
  heap_.check_all();
}

TEST_F(Draining, RefusesWhatCannotBe) {
  EXPECT_EQ(drain_.begin(9).code, ENODEV);
  EXPECT_EQ(drain_.begin(63).code, ENODEV);
  EXPECT_EQ(drain_.end(2).code, ENODEV);
  for (const unsigned node : {0u, 1u, 3u}) EXPECT_TRUE(drain_.begin(node).ok()) << node;
  EXPECT_EQ(drain_.begin(2).code, EBUSY) << "the last one";
  EXPECT_EQ(drain_.closed().bits(), 0b1011u);
  drain_.end_all();
  EXPECT_TRUE(drain_.closed().empty());
  nodes_.own_policy = {PolicyMode::kBind, 0, 0b0100};
  EXPECT_EQ(drain_.begin(2).code, EBUSY) << "bound to it as a whole";
  nodes_.own_policy = {PolicyMode::kBind, 0, 0b0110};
  ASSERT_TRUE(drain_.begin(2).ok());
  EXPECT_EQ(run(2).left_in_all(), 0u);
  EXPECT_EQ(on(1), kPages);
}

TEST_F(Draining, AHostThatDoesNotSayWherePagesAre) {
  nodes_.fail_at(1, EPERM);
  EXPECT_EQ(drain_.begin(2).code, ENOTSUP);
  EXPECT_TRUE(drain_.begin(2).ok());
}

TEST_F(Draining, ABlockThatCannotBeLookedAtIsNotSaidToBeEmpty) {
  ASSERT_TRUE(drain_.begin(2).ok());
  heap_.machine.fail_at(1, EINVAL);
  drain_.step(heap_.machine.clock);
  ASSERT_TRUE(heap_.machine.failed_once());
  heap_.machine.clock = heap_.machine.clock + seconds(1);
  EXPECT_GT(drain_.report(2).left_in_all() + on(2), 0u);
  EXPECT_EQ(run(2).left_in_all(), 0u) << "the next pass does";
}

// Whatever fails, and whenever: no page is lost sight of, and the next pass puts it right.
TEST_F(Draining, EveryCallMayFail) {
  for (std::uint64_t nth = 1; nth < 200; ++nth) {
    for (auto& [at, page] : nodes_.pages) page.node = 2;
    nodes_.fail_at(nth, nth % 2 == 0 ? ENOMEM : EPERM);
    if (drain_.begin(2).ok()) (void)run(2);
    const bool failed = nodes_.failed_once();
    nodes_.stop_failing();
    ASSERT_TRUE(drain_.begin(2).ok());
    ASSERT_EQ(run(2).left_in_all(), 0u) << nth;
    ASSERT_EQ(on(2), 0u) << nth;
    ASSERT_TRUE(drain_.end(2).ok()) << nth;
    if (!failed) return;
  }
}

TEST_F(Draining, PagesThatRaceAreLookedForAgain) {
  nodes_.pages[heap_.home(3)].hidden = 2;  // the kernel has it under way
  ASSERT_TRUE(drain_.begin(2).ok());
  EXPECT_EQ(run(2).left_in_all(), 0u);
  EXPECT_EQ(on(2), 0u);
}

}  // namespace
}  // namespace heaptier::test
