// What is read out of a kernel's files, whole ones and broken ones.
#include "runtime/topology/topology.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "runtime/base/units.h"
#include "tests/unit/topology/machines.h"

namespace heaptier {
namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

FakeFileTree one_node() {
  return machine({{0, "0-7", 1024, "10"}}, "0", "0", "0");
}

TEST(NodeSet, IsASet) {
  NodeSet set = NodeSet::of(63);
  set.add(0);
  EXPECT_EQ(text_of(set), "0,63");
  EXPECT_EQ(set.count(), 2u);
  EXPECT_EQ((set - NodeSet::of(0)), NodeSet::of(63));
  EXPECT_FALSE(set.contains(64));
  EXPECT_EQ(NodeSet::all().count(), 64u);
  EXPECT_EQ(text_of(NodeSet{}), "");
}

TEST(NodeSet, ListsAsTheKernelWritesThem) {
  NodeSet set = NodeSet::of(5);
  unsigned beyond = 7;
  ASSERT_TRUE(parse_nodes("0-2,8,63-65\n", &set, &beyond));
  EXPECT_EQ(text_of(set), "0,1,2,8,63");
  EXPECT_EQ(beyond, 2u);
  ASSERT_TRUE(parse_nodes("\n", &set, &beyond));
  EXPECT_TRUE(set.empty());
  set = NodeSet::of(5);
  for (const char* bad : {"-", "1-", "-1", "3-1", "0,", ",0", "0,,1", "x", "0 ", "0-1-2", "0\n\n",
                          "99999999999999999999", "1048577"}) {
    EXPECT_FALSE(parse_nodes(bad, &set, &beyond)) << bad;
    EXPECT_EQ(set, NodeSet::of(5)) << bad;
  }
}

TEST(Topology, OneNode) {
  const auto t = topology_of(one_node());
  EXPECT_TRUE(t->numa);
  EXPECT_EQ(text_of(t->usable()), "0");
  EXPECT_EQ(text_of(t->cpus), "0");
  EXPECT_EQ(t->nodes[0].capacity_bytes, 1024 * kMiB);
  EXPECT_EQ(t->nodes[0].free_bytes, 256 * kMiB);
  EXPECT_EQ(t->nodes[0].cpus, 8u);
  EXPECT_EQ(t->node_of_cpu[7], 0);
  EXPECT_EQ(t->node_of_cpu[8], kNoNode);
  EXPECT_TRUE(t->cpu_allowed(3));
  EXPECT_FALSE(t->cpu_allowed(4));
  EXPECT_TRUE(t->cpu_allowed(8));
  EXPECT_EQ(t->nodes[0].kernel_tier, kNoKernelTier);
  EXPECT_FALSE(t->nodes[0].access.has_latency());
}

TEST(Topology, AllThereIsToRead) {
  FakeFileTree tree = four_nodes_with_hmat();
  kernel_tiers(&tree);
  const auto t = topology_of(tree);
  EXPECT_EQ(text_of(t->memory), "0,1,2,3");
  EXPECT_EQ(text_of(t->cpus), "0,1");
  EXPECT_EQ(t->distance[1][0], 21);
  EXPECT_EQ(t->distance[3][2], 38);
  EXPECT_EQ(t->nodes[2].access.read_latency_ns, 300u);
  EXPECT_EQ(t->nodes[2].access.write_bandwidth_mbs, 40960u);
  EXPECT_EQ(text_of(t->nodes[1].access.initiators), "1");
  EXPECT_EQ(t->nodes[1].kernel_tier, 4u);
  EXPECT_EQ(t->nodes[3].kernel_tier, 225u);
  EXPECT_TRUE(t->nodes[3].nvdimm);
  EXPECT_FALSE(t->nodes[2].nvdimm);
  EXPECT_EQ(t->node_of_cpu[2], 1);
  EXPECT_EQ(t->nodes[2].cpus, 0u);
}

TEST(Topology, ReadingInAnyPiecesIsTheSame) {
  FakeFileTree tree = four_nodes_with_hmat();
  tree.piece = 1;
  const auto t = topology_of(tree);
  EXPECT_EQ(t->nodes[3].free_bytes, 96 * kMiB);
  EXPECT_EQ(t->nodes[3].access.read_latency_ns, 500u);
  EXPECT_EQ(t->distance[0][3], 38);
}

TEST(Topology, AccessZeroServesOlderKernels) {
  FakeFileTree tree = one_node();
  hmat(&tree, 0, 90, 1000, "access0");
  EXPECT_EQ(topology_of(tree)->nodes[0].access.read_latency_ns, 90u);
  hmat(&tree, 0, 110, 1000, "access1");
  EXPECT_EQ(topology_of(tree)->nodes[0].access.read_latency_ns, 110u);
}

TEST(Topology, DaxMemoryThatIsNoNvdimm) {
  FakeFileTree tree = four_nodes();
  dax(&tree, "dax1.0", "platform/hmem.1/dax1.0", 2);
  dax(&tree, "dax0.0", "ACPI0012:00/ndbus0/region0/dax0.0", 3, "device_dax");  // not memory now
  dax(&tree, "dax2.0", "ACPI0012:00/ndbus0/region1/dax2.0", 64);
  const auto t = topology_of(tree);
  EXPECT_FALSE(t->nodes[2].nvdimm);
  EXPECT_FALSE(t->nodes[3].nvdimm);
}

// The rows of distances have one number for each online node, not for each number.
TEST(Topology, NodeOffline) {
  FakeFileTree tree = machine({{0, "0", 64, "10 17"}, {2, "", 64, "17 10"}}, "0,2", "0,2", "0");
  tree.files[kNodes + "possible"] = "0-2\n";
  const auto t = topology_of(tree);
  EXPECT_EQ(text_of(t->online), "0,2");
  EXPECT_EQ(text_of(t->possible), "0,1,2");
  EXPECT_EQ(t->distance[0][2], 17);
  EXPECT_EQ(t->distance[0][1], 0);
}

TEST(Topology, MemorylessNodeWithCpus) {
  const auto t =
      topology_of(machine({{0, "0-1", 64, "10 20"}, {1, "2-3", 0, "20 10"}}, "0-1", "0", "0-1"));
  EXPECT_EQ(text_of(t->usable()), "0");
  EXPECT_EQ(text_of(t->cpus), "0,1");
  EXPECT_EQ(t->node_of_cpu[3], 1);
  EXPECT_EQ(t->nodes[1].free_bytes, 0u);
}

TEST(Topology, CpusetRestricts) {
  FakeFileTree tree = four_nodes();
  tree.files["/proc/self/status"] = "Mems_allowed_list:\t0,2\nCpus_allowed_list:\t1\n";
  const auto t = topology_of(tree);
  EXPECT_EQ(text_of(t->memory), "0,1,2,3");
  EXPECT_EQ(text_of(t->usable()), "0,2");
  EXPECT_FALSE(t->cpu_allowed(0));
  EXPECT_TRUE(t->cpu_allowed(1));
}

TEST(Topology, CpusetThatAllowsNothingIsAMisreading) {
  FakeFileTree tree = four_nodes();
  tree.files["/proc/self/status"] = "Mems_allowed_list:\t9\n";
  EXPECT_EQ(text_of(topology_of(tree)->usable()), "0,1,2,3");
}

TEST(Topology, KernelsWithoutTheLists) {
  FakeFileTree tree = machine({{0, "0", 64, "10 20"}, {1, "", 64, "20 10"}}, "0-1", "", "");
  tree.files.erase(kNodes + "has_memory");
  tree.files.erase(kNodes + "has_cpu");
  tree.files.erase(kNodes + "possible");
  const auto t = topology_of(tree);
  EXPECT_EQ(text_of(t->usable()), "0,1");
  EXPECT_EQ(text_of(t->cpus), "0");
  EXPECT_EQ(text_of(t->possible), "0,1");
}

TEST(Topology, NothingThereIsOneNode) {
  const auto t = topology_of(FakeFileTree{});
  EXPECT_FALSE(t->numa);
  EXPECT_EQ(text_of(t->usable()), "0");
  EXPECT_EQ(text_of(t->cpus), "0");
  EXPECT_EQ(t->nodes[0].capacity_bytes, 0u);
  EXPECT_TRUE(t->cpu_allowed(4095));
  EXPECT_FALSE(t->cpu_allowed(4096));
}

TEST(Topology, WithoutNodeFilesTheMachineIsTheNode) {
  FakeFileTree tree;
  tree.files["/proc/meminfo"] = "MemTotal:       2048 kB\nMemFree: 5 kB";
  tree.files["/proc/zoneinfo"] = zone(0, "DMA32", 100, 20, 0);
  const auto t = topology_of(tree);
  EXPECT_EQ(t->nodes[0].capacity_bytes, 2 * kMiB);
  EXPECT_EQ(t->nodes[0].free_bytes, 80 * kPageSize);
}

TEST(Topology, MoreNodesThanASetHolds) {
  std::vector<NodeFacts> nodes;
  std::string distances;
  for (int i = 0; i < 70; ++i) distances += i == 0 ? "10" : " 20";
  for (unsigned i = 0; i < 70; ++i) nodes.push_back({i, std::to_string(i), 16, distances});
  const auto t = topology_of(machine(nodes, "0-69", "0-69", "0-69"));
  EXPECT_EQ(t->usable().count(), 64u);
  EXPECT_EQ(t->nodes_beyond, 6u);
  EXPECT_EQ(t->nodes[63].capacity_bytes, 16 * kMiB);
  EXPECT_EQ(t->distance[63][0], 10);
}

TEST(FreeMemory, IsAboveTheWatermarkAndTheReserve) {
  FakeFileTree tree = one_node();
  // 3776 - 264 - 954; less free than the watermark: nothing; no zone but this one.
  tree.files["/proc/zoneinfo"] = zone(0, "    DMA", 3776, 264, 954) +
                                 zone(0, "  DMA32", 10, 300, 0) + zone(0, " Normal", 500, 100, 0);
  EXPECT_EQ(topology_of(tree)->nodes[0].free_bytes, (3776u - 264 - 954 + 400) * kPageSize);
  tree.files["/proc/zoneinfo"] = zone(0, " Normal", 101, 100, 0);
  EXPECT_EQ(topology_of(tree)->nodes[0].free_bytes, kPageSize);
  tree.files.erase("/proc/zoneinfo");
  EXPECT_EQ(topology_of(tree)->nodes[0].free_bytes, 0u);
}

// Whatever stands in the files: no crash, at least one node, nothing that contradicts itself.
TEST(Garbage, IsNotSaid) {
  std::mt19937 random(3);
  const std::string kBits[] = {"0-3",
                               "-",
                               "4096-99999",
                               "18446744073709551616",
                               "\xff",
                               "\n",
                               "Node 0, zone Normal\n",
                               "pages free 99999999999999999",
                               "x",
                               " ",
                               "0",
                               "Node 77, zone\n"};
  for (int round = 0; round < 3000; ++round) {
    FakeFileTree tree = four_nodes_with_hmat();
    kernel_tiers(&tree);
    for (auto& [path, text] : tree.files) {
      if (random() % 4 != 0) continue;
      if (random() % 2 == 0) text.clear();
      for (auto n = random() % 4; n > 0; --n) text += kBits[random() % std::size(kBits)];
    }
    for (auto& [path, target] : tree.links) {
      if (random() % 4 == 0) target = std::string(random() % 600, '/');
    }
    const auto t = topology_of(tree);
    ASSERT_FALSE(t->usable().empty());
    ASSERT_EQ(t->memory, t->memory & t->online);
    ASSERT_EQ(t->cpus, t->cpus & t->online);
    Ranking ranking;
    rank_nodes(*t, &ranking);
    NodeSet ranked;
    for (std::uint32_t i = 0; i < ranking.count; ++i) ranked = ranked | ranking.tiers[i].nodes;
    ASSERT_EQ(ranked, t->usable());
  }
}

TEST(Garbage, EveryFailureAtEveryCall) {
  FakeFileTree tree = four_nodes_with_hmat();
  tree.piece = 16;
  for (int n = 0; n < 200; ++n) {
    tree.fail_from = n;
    const auto t = topology_of(tree);
    ASSERT_FALSE(t->usable().empty()) << n;
  }
}

TEST(Garbage, ListsTooLongAreNotCutInTheMiddle) {
  FakeFileTree tree = one_node();
  std::string list = "0";
  for (int i = 1; i < 2000; ++i) list += "," + std::to_string(2 * i);
  tree.files[kNodes + "node0/cpulist"] = list + "\n";  // longer than what is read of it
  tree.files["/proc/self/status"] = "Cpus_allowed_list:\t" + list + "\nMems_allowed_list:\t0\n";
  const auto t = topology_of(tree);
  EXPECT_EQ(t->nodes[0].cpus, 0u);
  EXPECT_TRUE(t->cpu_allowed(1));
  EXPECT_EQ(text_of(t->allowed), "0");
}

}  // namespace
}  // namespace heaptier
