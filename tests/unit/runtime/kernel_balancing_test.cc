#include "runtime/kernel_balancing.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/fakes/fake_file_tree.h"
#include "tests/fakes/fake_nodes.h"
#include "tests/fakes/mappings.h"

namespace heaptier::test {
namespace {

constexpr std::uintptr_t kHeap = 0x7f0000000000;
constexpr std::size_t kPart = kPageblockSize;
constexpr const char* kMode = "/proc/sys/kernel/numa_balancing";

class Kept : public testing::Test {
 protected:
  Kept() {
    // Mappings of a pageblock each.
    std::string& maps = files_.files["/proc/self/maps"];
    for (unsigned i = 0; i < 4; ++i) maps += mapping(kHeap + i * kPart, kPart);
  }
  void turn(const char* mode) { files_.files[kMode] = mode; }
  void keep_off() { balancing_.keep_off(TierChain{}, {kHeap, 8 * kPart}); }
  void lift() {
    nodes_.clock = nodes_.clock + seconds(10);
    balancing_.lift(nodes_.clock, host_);
  }
  NodePolicy policy_of(unsigned part) {
    NodePolicy p;
    EXPECT_TRUE(nodes_.policy_at(kHeap + part * kPart, &p).ok());
    return p;
  }

  struct Host final : LoopHost {
    bool between_steps() override { return true; }
    bool ready_for_faults() override { return true; }
  };

  const NodePolicy local_{PolicyMode::kLocal, 0, 0};
  FakeFileTree files_;
  FakeNodes nodes_;
  Host host_;
  HeapPolicy policy_{files_, nodes_};
  KernelBalancing balancing_{files_, policy_};
};

TEST_F(Kept, NothingIsDoneWhereTheKernelDoesNotBalance) {
  keep_off();
  turn("0\n");
  keep_off();
  turn("nonsense\n");
  keep_off();
  lift();
  EXPECT_FALSE(balancing_.kept_off());
  EXPECT_TRUE(nodes_.policies.empty());
}

TEST_F(Kept, OffTheHeapUntilLifted) {
  const NodePolicy bound{PolicyMode::kBind, 0, 1};
  // Such as heaptier sets, too, where it places new memory.
  const NodePolicy spread{PolicyMode::kInterleave, kHeapPolicyFlags, 3};
  nodes_.policies.push_back({{kHeap + 1 * kPart, kPart}, spread});
  nodes_.policies.push_back({{kHeap + 2 * kPart, kPart}, bound});
  turn("1\n");
  keep_off();
  EXPECT_TRUE(balancing_.kept_off());
  for (const unsigned part : {0u, 3u}) EXPECT_EQ(policy_of(part), local_) << part;
  EXPECT_EQ(policy_of(4), NodePolicy{}) << "not the heap's";
  lift();
  EXPECT_FALSE(balancing_.kept_off());
  for (const unsigned part : {0u, 3u}) EXPECT_EQ(policy_of(part), NodePolicy{}) << part;
  EXPECT_EQ(policy_of(1), spread) << "the application's";
  EXPECT_EQ(policy_of(2), bound) << "the application's";
  const std::size_t set = nodes_.policies.size();
  lift();
  EXPECT_EQ(nodes_.policies.size(), set);
}

TEST_F(Kept, WhatCannotBeLiftedIsTriedAgain) {
  turn("2\n");
  keep_off();
  const std::string maps = files_.files["/proc/self/maps"];
  files_.files.erase("/proc/self/maps");
  lift();
  EXPECT_TRUE(balancing_.kept_off());
  balancing_.await_lifted(millis(1));  // and returns
  files_.files["/proc/self/maps"] = maps;
  balancing_.lift(nodes_.clock, host_);
  EXPECT_TRUE(balancing_.kept_off()) << "not at once";
  lift();
  EXPECT_FALSE(balancing_.kept_off());
  EXPECT_EQ(policy_of(0), NodePolicy{});
  balancing_.await_lifted(seconds(1000));
}

TEST_F(Kept, WhoeverVacatesNodesHasTheLastWord) {
  turn("1\n");
  keep_off();
  policy_.restrict_to(NodeSet::of(0));
  ASSERT_TRUE(policy_.apply({kHeap, 8 * kPart}).ok());
  EXPECT_EQ(policy_of(0).nodes, 0b01U);
  policy_.restrict_to({});
  ASSERT_TRUE(policy_.apply({kHeap, 8 * kPart}).ok());
  EXPECT_EQ(policy_of(0), local_);
  policy_.restrict_to(NodeSet::of(0));
  lift();
  EXPECT_EQ(policy_of(0).nodes, 0b01U);
  EXPECT_FALSE(balancing_.kept_off());
  policy_.restrict_to({});
  ASSERT_TRUE(policy_.apply({kHeap, 8 * kPart}).ok());
  EXPECT_EQ(policy_of(0), NodePolicy{});
}

}  // namespace
}  // namespace heaptier::test
