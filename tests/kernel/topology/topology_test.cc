// The memory nodes of the real machine, against what libnuma makes of it.
#include "runtime/topology/topology.h"

#include <gtest/gtest.h>
#include <numa.h>
#include <sched.h>

#include <algorithm>
#include <memory>

#include "runtime/base/units.h"
#include "runtime/os/kernel_files.h"
#include "runtime/os/kernel_nodes.h"

namespace heaptier {
namespace {

class Nodes : public ::testing::Test {
 protected:
  void SetUp() override {
    if (numa_available() < 0) GTEST_SKIP() << "this kernel has no memory nodes";
    read_topology(kernel_files(), topology.get());
  }
  static unsigned last() { return std::min(static_cast<unsigned>(numa_max_node()), kMaxNodes - 1); }
  const std::unique_ptr<Topology> topology = std::make_unique<Topology>();
};

TEST_F(Nodes, AreThoseThatLibnumaSees) {
  for (unsigned node = 0; node < kMaxNodes; ++node) {
    const bool theirs = node <= last() && numa_bitmask_isbitset(numa_all_nodes_ptr, node) != 0;
    // libnuma's "all nodes": with memory, and allowed.
    EXPECT_EQ(topology->usable().contains(node), theirs) << node;
  }
}

TEST_F(Nodes, HaveTheMemoryThatLibnumaSees) {
  for (const unsigned node : topology->usable()) {
    std::uint64_t theirs = 0;
    // A virtual machine's memory may grow and shrink between two looks.
    for (int tries = 0; tries < 10; ++tries) {
      read_topology(kernel_files(), topology.get());
      theirs = static_cast<std::uint64_t>(numa_node_size64(static_cast<int>(node), nullptr));
      if (topology->nodes[node].capacity_bytes == theirs) break;
    }
    EXPECT_EQ(topology->nodes[node].capacity_bytes, theirs) << node;
    EXPECT_LE(topology->nodes[node].free_bytes, topology->nodes[node].capacity_bytes) << node;
  }
}

// The topology's figure and the door's come from two files of the kernel's.
TEST_F(Nodes, HaveFreeWhatTheDoorToTheKernelSays) {
  for (const unsigned node : topology->usable()) {
    NodeRoom room;
    ASSERT_TRUE(kernel_node_ops().room(node, &room).ok()) << node;
    const auto said = static_cast<double>(room.pages);
    // Others run meanwhile.
    EXPECT_NEAR(static_cast<double>(topology->nodes[node].free_bytes / kPageSize), said,
                0.2 * said + 20'000)
        << node;
  }
}

TEST_F(Nodes, AreAsFarFromEachOtherAsLibnumaSays) {
  for (const unsigned a : topology->online) {
    for (const unsigned b : topology->online) {
      EXPECT_EQ(topology->distance[a][b], numa_distance(static_cast<int>(a), static_cast<int>(b)))
          << a << " to " << b;
    }
  }
}

TEST_F(Nodes, HaveTheCpusThatLibnumaSees) {
  cpu_set_t mine;
  ASSERT_EQ(sched_getaffinity(0, sizeof mine, &mine), 0);
  for (unsigned cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &mine) == 0) continue;
    EXPECT_EQ(topology->node_of_cpu[cpu], numa_node_of_cpu(static_cast<int>(cpu))) << cpu;
    EXPECT_TRUE(topology->cpu_allowed(cpu)) << cpu;
  }
}

}  // namespace
}  // namespace heaptier
