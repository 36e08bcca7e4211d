// The chain's nodes while the engine is awake, on a made-up machine.
#include "runtime/node_tiers.h"

#include <gtest/gtest.h>

#include "runtime/config/option_values.h"
#include "runtime/heap_policy.h"
#include "runtime/node_moves.h"
#include "tests/fakes/fake_nodes.h"
#include "tests/unit/topology/machines.h"

namespace heaptier::test {
namespace {

TEST(WatchClock, LeavesOutWhatFaultsCost) {
  WatchClock clock;
  Nanos now = seconds(5);
  (void)clock.lap(now, clock.mark(now));  // the first says nothing of the cost
  for (int i = 0; i < 10; ++i) {
    now = now + micros(100);
    (void)clock.lap(now, clock.mark(now));
  }
  // Three are parked together and touched at once: the third has waited for two faults.
  const WatchClock::Mark mark = clock.mark(now);
  for (int i = 0; i < 3; ++i) {
    now = now + micros(101);
    EXPECT_LT(clock.lap(now, mark).v, micros(26).v) << i;
  }
  now = now + millis(2);
  EXPECT_GT(clock.lap(now, mark).v, micros(1800).v) << "and one that was not touched for long";
}

TEST(WatchClock, HandlersThatComeByInAnotherOrderDoNoHarm) {
  WatchClock clock;
  Nanos now = seconds(5);
  for (int i = 0; i < 20000; ++i) {
    now = now + (i % 3 == 0 ? Nanos{-5000} : micros(50));
    EXPECT_GE(clock.lap(now, clock.mark(now)).v, 0);
  }
  const WatchClock::Mark mark = clock.mark(now);
  now = now + millis(3);
  EXPECT_LT(clock.lap(now, mark).v, millis(3).v + 1);
  EXPECT_GT(clock.lap(now, mark).v, millis(2).v);
}

class Tiers : public testing::Test {
 protected:
  Tiers() {
    for (unsigned n = 0; n < 4; ++n) nodes_.add_node(n, 10000, 10);
    Options options;
    EXPECT_TRUE(
        parse_option(OptionId::kTiers, "dram=node:0-1;cxl=node:2;pmem=node:3", &options).ok);
    chain_ = options.tiers;
  }
  FakeFileTree files_ = four_nodes_with_hmat();
  FakeNodes nodes_;
  TierChain chain_;
  NodeTiers tiers_;
};

TEST_F(Tiers, GoToANodeWithRoomTheNearestFirst) {
  ASSERT_TRUE(tiers_.init(nodes_, files_, chain_).ok());
  ASSERT_TRUE(tiers_.active());
  EXPECT_EQ(tiers_.count(), 3u);
  tiers_.look();
  EXPECT_EQ(tiers_.room_pages(0), 20000u);
  EXPECT_EQ(tiers_.target(0, 1, true), 1) << "where the toucher is";
  EXPECT_EQ(tiers_.target(1, 0, true), 2);
  nodes_.rooms[1] = {100, 100, 0};
  tiers_.look();
  EXPECT_EQ(tiers_.target(0, 1, true), 0);
  EXPECT_EQ(tiers_.target(0, 1, false), 1) << "a small page fits";
  nodes_.rooms[2] = {};
  tiers_.look();
  EXPECT_EQ(tiers_.target(1, 0, false), -1);
  EXPECT_EQ(tiers_.tier_of(3), 2u);
  EXPECT_EQ(tiers_.tier_of(-ENOENT), 3u);
}

TEST_F(Tiers, ANodeThatIsBeingVacatedHasNoRoom) {
  ASSERT_TRUE(tiers_.init(nodes_, files_, chain_).ok());
  NodeSet closed = NodeSet::of(1);
  closed.add(2);
  tiers_.close(closed);
  EXPECT_EQ(tiers_.room_pages(0), 10000u);
  EXPECT_EQ(tiers_.room_pages(1), 0u);
  EXPECT_EQ(tiers_.target(0, 1, true), 0);
  EXPECT_EQ(tiers_.target(1, 0, false), -1);
  tiers_.close({});
  EXPECT_EQ(tiers_.target(0, 1, true), 1);
}

TEST_F(Tiers, ANodeThatMayNotBeUsedAnyMoreHasNeitherRoomNorCapacity) {
  ASSERT_TRUE(tiers_.init(nodes_, files_, chain_).ok());
  tiers_.look();
  const std::uint64_t both = tiers_.capacity_pages(0);
  EXPECT_EQ(both, (1024u + 512u) * 256);
  EXPECT_EQ(tiers_.lost(), 0u);
  nodes_.outside_cpuset = {0, 2};
  for (int i = 0; i < 3; ++i) tiers_.look();
  EXPECT_EQ(tiers_.lost(), 2u) << "said once";
  EXPECT_EQ(tiers_.forbidden(), NodeSet::of(0) | NodeSet::of(2));
  EXPECT_EQ(tiers_.room_pages(0), 10000u);
  EXPECT_EQ(tiers_.capacity_pages(0), 512u * 256);
  EXPECT_EQ(tiers_.target(0, 0, true), 1);
  EXPECT_EQ(tiers_.capacity_pages(1), 0u);
  EXPECT_EQ(tiers_.target(1, 0, false), -1);
  nodes_.outside_cpuset = {};
  const NodeRoom room = nodes_.rooms[1];
  nodes_.rooms.erase(1);  // its memory goes offline
  tiers_.look();
  EXPECT_EQ(tiers_.lost(), 3u);
  EXPECT_EQ(tiers_.offline(), NodeSet::of(1));
  EXPECT_EQ(tiers_.target(0, 1, true), 0);
  EXPECT_EQ(tiers_.target(1, 0, false), 2) << "allowed again";
  nodes_.rooms[1] = room;
  tiers_.look();
  EXPECT_EQ(tiers_.capacity_pages(0), both);
  EXPECT_EQ(tiers_.target(0, 1, true), 1);
  EXPECT_TRUE((tiers_.offline() | tiers_.forbidden()).empty());
}

TEST_F(Tiers, WhatKeepsNewMemoryOffANodeIsNoWishOfTheApplication) {
  ASSERT_TRUE(tiers_.init(nodes_, files_, chain_).ok());
  constexpr std::uintptr_t kAt = 0x7f0000000000;
  EXPECT_FALSE(tiers_.bound(kAt));
  nodes_.policies.push_back(
      {{kAt, kPageSize}, {PolicyMode::kPreferredMany, kHeapPolicyFlags, 0b1011}});
  EXPECT_FALSE(tiers_.bound(kAt));
  nodes_.policies.push_back({{kAt, kPageSize}, {PolicyMode::kPreferredMany, 0, 0b1011}});
  EXPECT_TRUE(tiers_.bound(kAt));
}

TEST_F(Tiers, AHostThatDoesNotSayWherePagesAreIsLeftAlone) {
  nodes_.fail_at(2, EPERM);  // the first call asks for the thread's own policy
  ASSERT_TRUE(tiers_.init(nodes_, files_, chain_).ok());
  EXPECT_FALSE(tiers_.active());
  EXPECT_NE(tiers_.why_not(), nullptr);
}

TEST_F(Tiers, OneTierIsNothingToDo) {
  Options options;
  ASSERT_TRUE(parse_option(OptionId::kTiers, "dram=node:0-3;zpool:1G", &options).ok);
  ASSERT_TRUE(tiers_.init(nodes_, files_, options.tiers).ok());
  EXPECT_FALSE(tiers_.active());
  EXPECT_EQ(tiers_.why_not(), nullptr);
}

}  // namespace
}  // namespace heaptier::test
