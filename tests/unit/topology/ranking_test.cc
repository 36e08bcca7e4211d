// Who is fast and who is slow, and the reason that is given.
#include "runtime/topology/ranking.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/unit/topology/machines.h"

namespace heaptier {
namespace {

Ranking ranking_of(const FakeFileTree& tree) {
  Ranking ranking;
  rank_nodes(*topology_of(tree), &ranking);
  return ranking;
}

TEST(Ranking, OneNode) {
  const Ranking r = ranking_of(machine({{0, "0-7", 1024, "10"}}, "0", "0", "0"));
  EXPECT_EQ(picture(r), "dram 0");
  EXPECT_EQ(r.tiers[0].reason, RankReason::kOnlyTier);
  EXPECT_TRUE(r.next[0].empty());
  EXPECT_EQ(r.tier_of(0), 0u);
  EXPECT_EQ(r.tier_of(1), 1u);
}

TEST(Ranking, TwoSocketsAreOneTier) {
  FakeFileTree tree = machine({{0, "0", 64, "10 21"}, {1, "1", 64, "21 10"}}, "0-1", "0-1", "0-1");
  EXPECT_EQ(picture(ranking_of(tree)), "dram 0,1");
  // Also where one of them is slower by HMAT: it is still its own threads' fastest.
  hmat(&tree, 0, 100, 1000);
  hmat(&tree, 1, 200, 1000);
  const Ranking r = ranking_of(tree);
  EXPECT_EQ(picture(r), "dram 0,1");
  EXPECT_EQ(r.tiers[0].capacity_bytes, 128u << 20);
  EXPECT_EQ(r.tiers[0].free_bytes, 32u << 20);
}

TEST(Ranking, TheKernelsTiersComeFirst) {
  FakeFileTree tree = four_nodes_with_hmat();
  kernel_tiers(&tree);
  const Ranking r = ranking_of(tree);
  EXPECT_EQ(picture(r), "dram 0,1 > cxl 2 > pmem 3");
  for (int i = 0; i < 3; ++i) EXPECT_EQ(r.tiers[i].reason, RankReason::kKernelTier);
  // Against HMAT.
  tree.files[kTiers + "67/nodelist"] = "3\n";
  tree.files[kTiers + "225/nodelist"] = "2\n";
  EXPECT_EQ(picture(ranking_of(tree)), "dram 0,1 > pmem 3 > cxl 2");
}

// Linux 6.1 has tiers and does not ask HMAT for them: only PMEM is slow to it.
TEST(Ranking, HmatTellsApartWhatTheKernelPutsTogether) {
  FakeFileTree tree = four_nodes_with_hmat();
  tree.files[kTiers + "4/nodelist"] = "0-2\n";
  tree.files[kTiers + "22/nodelist"] = "3\n";
  const Ranking r = ranking_of(tree);
  EXPECT_EQ(picture(r), "dram 0,1 > cxl 2 > pmem 3");
  EXPECT_EQ(r.tiers[1].reason, RankReason::kHmat);
  EXPECT_EQ(r.tiers[2].reason, RankReason::kKernelTier);
}

TEST(Ranking, ByHmatAlone) {
  const Ranking r = ranking_of(four_nodes_with_hmat());
  EXPECT_EQ(picture(r), "dram 0,1 > cxl 2 > pmem 3");
  for (int i = 0; i < 3; ++i) EXPECT_EQ(r.tiers[i].reason, RankReason::kHmat);
}

TEST(Ranking, HmatWithoutBandwidth) {
  FakeFileTree tree = four_nodes();
  hmat(&tree, 0, 100, 0);
  hmat(&tree, 1, 100, 0);
  hmat(&tree, 2, 400, 0);
  hmat(&tree, 3, 200, 0);
  EXPECT_EQ(picture(ranking_of(tree)), "dram 0,1 > cxl 3 > cxl 2");
}

TEST(Ranking, HmatThatLeavesANodeOutDecidesNothing) {
  FakeFileTree tree = four_nodes_with_hmat();
  tree.files.erase(kNodes + "node2/access1/initiators/read_latency");
  const Ranking r = ranking_of(tree);
  EXPECT_EQ(picture(r), "dram 0,1 > cxl 2 > pmem 3");
  EXPECT_EQ(r.tiers[1].reason, RankReason::kNoCpus);
  EXPECT_EQ(r.tiers[2].reason, RankReason::kNvdimm);
}

// Memory without CPUs that is as fast as that beside them (HBM) is not slow memory.
TEST(Ranking, FastMemoryWithoutCpus) {
  FakeFileTree tree = machine({{0, "0", 64, "10 13"}, {1, "", 16, "13 10"}}, "0-1", "0-1", "0");
  hmat(&tree, 0, 100, 100000);
  hmat(&tree, 1, 110, 100000);
  EXPECT_EQ(picture(ranking_of(tree)), "dram 0,1");
  hmat(&tree, 1, 110, 400000);
  const Ranking r = ranking_of(tree);
  EXPECT_EQ(picture(r), "dram 1 > dram 0");
  EXPECT_EQ(text_of(r.next[1]), "0");
}

TEST(Ranking, WithoutAnyFiguresByCpusAndDistance) {
  const Ranking r = ranking_of(four_nodes());
  EXPECT_EQ(picture(r), "dram 0,1 > cxl 2 > cxl 3");
  EXPECT_EQ(r.tiers[1].reason, RankReason::kNoCpus);
  EXPECT_EQ(r.tiers[2].reason, RankReason::kDistance);
}

TEST(Ranking, NextIsTheNearest) {
  const Ranking r = ranking_of(machine({{0, "0", 64, "10 21 14 24 50"},
                                        {1, "1", 64, "21 10 24 14 50"},
                                        {2, "", 64, "14 24 10 26 50"},
                                        {3, "", 64, "24 14 26 10 50"},
                                        {4, "", 64, "50 50 50 50 10"}},
                                       "0-4", "0-4", "0-1"));
  EXPECT_EQ(picture(r), "dram 0,1 > cxl 2,3 > cxl 4");
  EXPECT_EQ(text_of(r.next[0]), "2");
  EXPECT_EQ(text_of(r.next[1]), "3");
  EXPECT_EQ(text_of(r.next[2]), "4");
  EXPECT_EQ(text_of(r.next[3]), "4");
  EXPECT_TRUE(r.next[4].empty());
}

TEST(Ranking, EquallyFarNextIsWhatIsAttached) {
  FakeFileTree tree = machine({{0, "0", 64, "10 21 24 24"},
                               {1, "1", 64, "21 10 24 24"},
                               {2, "", 64, "24 24 10 24"},
                               {3, "", 64, "24 24 24 10"}},
                              "0-3", "0-3", "0-1");
  EXPECT_EQ(text_of(ranking_of(tree).next[0]), "2,3");
  hmat(&tree, 0, 100, 1000);
  hmat(&tree, 1, 100, 1000, "access1", 1);
  hmat(&tree, 2, 300, 1000);
  hmat(&tree, 3, 300, 1000, "access1", 1);
  const Ranking r = ranking_of(tree);
  EXPECT_EQ(text_of(r.next[0]), "2");
  EXPECT_EQ(text_of(r.next[1]), "3");
}

TEST(Ranking, OnlyNodesWithinTheCpuset) {
  FakeFileTree tree = four_nodes_with_hmat();
  kernel_tiers(&tree);
  tree.files["/proc/self/status"] = "Mems_allowed_list:\t1-2\n";
  EXPECT_EQ(picture(ranking_of(tree)), "dram 1 > cxl 2");
  tree.files["/proc/self/status"] = "Mems_allowed_list:\t2\n";
  EXPECT_EQ(picture(ranking_of(tree)), "dram 2");
}

TEST(Ranking, MemorylessCpusCountForTheDistance) {
  const Ranking r = ranking_of(machine({{0, "0", 64, "10 21 30 60"},
                                        {1, "1", 0, "21 10 60 20"},
                                        {2, "", 64, "30 60 10 60"},
                                        {3, "", 64, "60 20 60 10"}},
                                       "0-3", "0,2-3", "0-1"));
  EXPECT_EQ(picture(r), "dram 0 > cxl 3 > cxl 2");
}

TEST(Ranking, HalfOfTheKernelsTiersAreNone) {
  FakeFileTree tree = four_nodes();
  tree.files[kTiers + "4/nodelist"] = "2\n";
  EXPECT_EQ(picture(ranking_of(tree)), "dram 0,1 > cxl 2 > cxl 3");
}

TEST(Ranking, MoreTiersThanAChainHolds) {
  std::vector<NodeFacts> nodes;
  for (unsigned i = 0; i < 12; ++i) nodes.push_back({i, i == 0 ? "0" : "", 16, ""});
  FakeFileTree tree = machine(nodes, "0-11", "0-11", "0");
  for (unsigned i = 0; i < 12; ++i) {
    tree.files[kTiers + std::to_string(10 + i) + "/nodelist"] = std::to_string(i) + "\n";
  }
  const Ranking r = ranking_of(tree);
  EXPECT_EQ(r.count, kMaxTiers);
  EXPECT_EQ(r.merged, 4u);
  EXPECT_EQ(text_of(r.tiers[kMaxTiers - 1].nodes), "7,8,9,10,11");
}

TEST(Configured, AsTheChainSays) {
  const auto t = topology_of(four_nodes_with_hmat());
  const auto configured = [&](const char* text) {
    Options options;
    EXPECT_TRUE(parse_option(OptionId::kTiers, text, &options).ok) << text;
    Ranking ranking;
    rank_as_configured(options.tiers, *t, &ranking);
    for (std::uint32_t i = 0; i < ranking.count; ++i) {
      EXPECT_EQ(ranking.tiers[i].reason, RankReason::kConfigured);
    }
    return ranking;
  };
  EXPECT_EQ(picture(configured("dram=node:0;cxl=node:1-2;zpool:1G")), "dram 0 > cxl 1,2");
  EXPECT_EQ(picture(configured("dram;pmem=node:3")), "dram 0,1 > pmem 3");
  EXPECT_EQ(picture(configured("dram;cxl=node:1")), "dram 0 > cxl 1");
  EXPECT_EQ(picture(configured("dram,zpool")), "dram 0,1");
  const Ranking r = configured("dram=node:1;pmem=node:3;cxl=node:2");
  EXPECT_EQ(picture(r), "dram 1 > pmem 3 > cxl 2");
  EXPECT_EQ(text_of(r.next[1]), "3");
  EXPECT_EQ(text_of(r.next[3]), "2");
  EXPECT_EQ(r.tiers[1].capacity_bytes, 384u << 20);
}

TEST(Configured, ASizeIsTheCapacityUpToTheNodesMemory) {
  const auto t = topology_of(four_nodes());
  Options options;
  ASSERT_TRUE(parse_option(OptionId::kTiers,
                           "dram=node:0-1:1G;cxl=node:2:64M;pmem=node:3:8G;zpool:1G", &options)
                  .ok);
  Ranking r;
  rank_as_configured(options.tiers, *t, &r);
  ASSERT_EQ(picture(r), "dram 0,1 > cxl 2 > pmem 3");
  EXPECT_EQ(r.tiers[0].capacity_bytes, 1024u << 20);
  EXPECT_EQ(r.tiers[0].free_bytes, 384u << 20);
  EXPECT_EQ(r.tiers[1].capacity_bytes, 64u << 20);
  EXPECT_EQ(r.tiers[1].free_bytes, 64u << 20) << "of 128 that the node has";
  EXPECT_EQ(r.tiers[2].capacity_bytes, 384u << 20);
  EXPECT_EQ(r.tiers[2].free_bytes, 96u << 20);
  EXPECT_EQ(text_of(r.next[2]), "3");
}

TEST(Reasons, HaveWords) {
  for (int i = 0; i <= static_cast<int>(RankReason::kConfigured); ++i) {
    EXPECT_STRNE(to_string(static_cast<RankReason>(i)), "?");
  }
}

}  // namespace
}  // namespace heaptier
