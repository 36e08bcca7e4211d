// The kernel's side of node moving on a host of any kind, one node included: questions, moves to
// where a page is, and nonsense. tests/vm has the rest.
#include <linux/mempolicy.h>
#include <sys/syscall.h>

#include <thread>

#include "tests/kernel/nodes/fixture.h"

namespace heaptier {
namespace {

using testing::Backing;
using testing::NodeMemory;

class KernelNodesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!kernel_node_ops().find_abilities().move_pages) GTEST_SKIP() << "no move_pages here";
    own_.fill();
    const std::uintptr_t at = own_.page(0);
    mover_.where(&at, 1, &home_);
    ASSERT_GE(home_, 0);
  }
  unsigned home() const { return static_cast<unsigned>(home_); }

  KernelNodes& ops_ = kernel_node_ops();
  NodeMover mover_{ops_};
  NodeMemory own_{1, Backing::kSmallPages};
  int home_ = -1;
};

TEST_F(KernelNodesTest, WhereTellsPresentFromAbsent) {
  ASSERT_EQ(madvise(own_.ptr(3), kPageSize, MADV_DONTNEED), 0);
  const std::uintptr_t at[] = {own_.page(0), own_.page(3), own_.page(4) + 123, 0,
                               ~std::uintptr_t{0}};
  int status[5];
  mover_.where(at, 5, status);
  EXPECT_GE(status[0], 0);
  EXPECT_EQ(status[1], -ENOENT);
  EXPECT_GE(status[2], 0) << "any address within";
  EXPECT_EQ(status[3], -EFAULT);
  EXPECT_EQ(status[4], -EFAULT);
}

TEST_F(KernelNodesTest, TheZeroPageIsNoMemory) {
  const NodeMemory fresh(1, Backing::kSmallPages);
  EXPECT_EQ(*static_cast<volatile char*>(fresh.ptr(0)), 0);
  const std::uintptr_t at = fresh.page(0);
  int status = 0;
  mover_.where(&at, 1, &status);
  EXPECT_TRUE(status == -EFAULT || status == -ENOENT) << status;
}

TEST_F(KernelNodesTest, MovingToWhereItIsDoesNothing) {
  const PageMove list[] = {{own_.page(0), home()}, {own_.page(9), home()}};
  int status[2];
  const NodeMoveTally tally = mover_.move(list, 2, status);
  EXPECT_EQ(tally.of(NodeMoveOutcome::kAlreadyThere).entries, 2u);
  EXPECT_EQ(status[0], home_);
  EXPECT_EQ(own_.first_wrong(), own_.pages());
}

TEST_F(KernelNodesTest, TheCallItselfSaysTheSame) {
  ASSERT_EQ(madvise(own_.ptr(1), kPageSize, MADV_DONTNEED), 0);
  const std::uintptr_t at[] = {own_.page(0), own_.page(1), 4096};
  const int to[] = {home_, home_, home_};
  int status[] = {kStatusUnwritten, kStatusUnwritten, kStatusUnwritten};
  std::size_t unmoved = 77;
  ASSERT_TRUE(ops_.move_pages(at, to, status, 3, &unmoved).ok());
  EXPECT_EQ(unmoved, 0u);
  EXPECT_EQ(status[0], home_);
  EXPECT_EQ(status[1], -ENOENT);
  EXPECT_EQ(status[2], -EFAULT);
}

TEST_F(KernelNodesTest, NodesThatDoNotExist) {
  for (const unsigned node : {63u, 64u, 1023u, 5000u}) {
    const PageMove list[] = {{own_.page(0), node}, {own_.page(1), home()}};
    int status[2];
    (void)mover_.move(list, 2, status);
    EXPECT_EQ(status[0], -ENODEV) << node;
    EXPECT_EQ(status[1], home_);
    NodeRoom room;
    EXPECT_EQ(ops_.room(node, &room), Errno{ENODEV});
    EXPECT_EQ(room, NodeRoom{});
  }
  EXPECT_EQ(ops_.compact(1023), Errno{ENODEV});
  const std::uintptr_t at = own_.page(0);
  const int to = 900;
  int status = kStatusUnwritten;
  std::size_t unmoved = 0;
  EXPECT_EQ(ops_.move_pages(&at, &to, &status, 1, &unmoved), Errno{ENODEV});
  EXPECT_EQ(status, kStatusUnwritten);
}

TEST_F(KernelNodesTest, RoomIsWhatTheNodeSaysLessWhatItKeeps) {
  NodeRoom room;
  ASSERT_TRUE(ops_.room(home(), &room).ok());
  EXPECT_LE(room.pages, room.free_pages);
  EXPECT_LE(room.huge_blocks * kPagesPerBlock, room.pages);
  std::ifstream file("/sys/devices/system/node/node" + std::to_string(home_) + "/meminfo");
  std::uint64_t free_kib = 0;
  for (std::string line; std::getline(file, line);) {
    const std::size_t key = line.find("MemFree:");
    if (key != std::string::npos) free_kib = std::stoull(line.substr(key + 8));
  }
  if (free_kib == 0) GTEST_SKIP() << "no meminfo of the node";
  // Others run meanwhile, and what lies in CPUs' lists is in neither for sure.
  const auto said = static_cast<double>(free_kib / 4);
  EXPECT_NEAR(static_cast<double>(room.free_pages), said, 0.2 * said + 20'000);
}

TEST_F(KernelNodesTest, RoomMayBeAskedByManyThreads) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      NodeRoom room;
      for (int i = 0; i < 50; ++i) EXPECT_TRUE(ops_.room(home(), &room).ok());
    });
  }
  for (auto& thread : threads) thread.join();
}

TEST_F(KernelNodesTest, PoliciesOfMappings) {
  const NodeMemory fresh(1, Backing::kSmallPages);
  NodePolicy found{PolicyMode::kBind, 1, 1};
  ASSERT_TRUE(ops_.policy_at(fresh.page(0), &found).ok());
  EXPECT_EQ(found, NodePolicy{});
  const std::uint64_t here = std::uint64_t{1} << home();
  const NodePolicy bind{PolicyMode::kBind, MPOL_F_STATIC_NODES, here};
  ASSERT_TRUE(ops_.set_policy(fresh.page(2), 4 * kPageSize, bind, true).ok());
  ASSERT_TRUE(ops_.policy_at(fresh.page(3), &found).ok());
  EXPECT_EQ(found, bind);
  ASSERT_TRUE(ops_.policy_at(fresh.page(6), &found).ok());
  EXPECT_EQ(found, NodePolicy{}) << "the neighbour has none";
  ASSERT_TRUE(ops_.set_policy(fresh.page(2), 4 * kPageSize, {}, false).ok());
  ASSERT_TRUE(ops_.policy_at(fresh.page(3), &found).ok());
  EXPECT_EQ(found, NodePolicy{});

  EXPECT_EQ(ops_.policy_at(4096, &found), Errno{EFAULT});
  EXPECT_EQ(ops_.set_policy(fresh.page(0), kPageSize, {PolicyMode::kBind, 0, 0}, false),
            Errno{EINVAL});
  const NodePolicy nowhere{PolicyMode::kBind, 0, std::uint64_t{1} << 63};
  EXPECT_EQ(ops_.set_policy(fresh.page(0), kPageSize, nowhere, false), Errno{EINVAL});
}

TEST_F(KernelNodesTest, AbilitiesAreWhatTheKernelTakes) {
  const NodeAbilities can = ops_.find_abilities();
  const std::uint64_t here = std::uint64_t{1} << home();
  for (const auto& [mode, able] : {std::pair{PolicyMode::kPreferredMany, can.preferred_many},
                                   {PolicyMode::kWeightedInterleave, can.weighted_interleave}}) {
    const Errno e = ops_.set_policy(own_.page(0), kPageSize, {mode, 0, here}, false);
    EXPECT_EQ(e, able ? kOk : Errno{EINVAL});
    NodePolicy found;
    ASSERT_TRUE(ops_.policy_at(own_.page(0), &found).ok());
    if (able) {
      EXPECT_EQ(found, (NodePolicy{mode, 0, here}));
    }
  }
}

TEST_F(KernelNodesTest, AThreadsPolicyIsItsOwn) {
  const std::uint64_t here = std::uint64_t{1} << home();
  std::thread([&] {
    ASSERT_EQ(syscall(SYS_set_mempolicy, MPOL_INTERLEAVE, &here, 65), 0);
    NodePolicy found;
    ASSERT_TRUE(ops_.policy_of_this_thread(&found).ok());
    EXPECT_EQ(found, (NodePolicy{PolicyMode::kInterleave, 0, here}));
    ASSERT_TRUE(ops_.policy_at(own_.page(0), &found).ok());
    EXPECT_EQ(found, NodePolicy{}) << "no mapping's policy";
  }).join();
  NodePolicy found;
  ASSERT_TRUE(ops_.policy_of_this_thread(&found).ok());
  EXPECT_EQ(found, NodePolicy{});
}

TEST_F(KernelNodesTest, PausesAtLeastAsLongAsAsked) {
  const Nanos before = ops_.now();
  ops_.pause(millis(2));
  EXPECT_GE(ops_.now() - before, millis(2));
}

}  // namespace
}  // namespace heaptier
