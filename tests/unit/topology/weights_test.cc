// The weights of interleaving on made-up machines: from the firmware's table, as given, refused.
#include "runtime/topology/weights.h"

#include <gtest/gtest.h>

#include "runtime/config/option_values.h"
#include "tests/unit/topology/machines.h"

namespace heaptier {
namespace {

Options options_of(const std::string& tiers, const std::string& policy) {
  Options options;
  EXPECT_TRUE(parse_option(OptionId::kTiers, tiers, &options).ok) << tiers;
  EXPECT_TRUE(parse_option(OptionId::kPolicy, policy, &options).ok) << policy;
  return options;
}

// "0=3,2=1; by bandwidth"
std::string chosen(const std::string& tiers, const std::string& policy, FakeFileTree tree) {
  const Options options = options_of(tiers, policy);
  const auto topology = topology_of(std::move(tree));
  const ChosenWeights c = choose_weights(options.policy, options.tiers, *topology);
  char text[256];
  TextWriter writer(text, sizeof text);
  config::write_weights(c.weights, writer);
  (void)writer.finish();
  return std::string(text) + "; " + to_string(c.reason);
}

TEST(ChooseWeights, FollowsTheBandwidthsOfAllThatMayBeUsed) {
  EXPECT_EQ(chosen("dram,zpool", "interleave", four_nodes_with_hmat()),
            "0=13,1=13,2=2,3=1; by bandwidth");
  FakeFileTree fenced = four_nodes_with_hmat();
  fenced.files["/proc/self/status"] = "Mems_allowed_list:\t0,2\n";
  EXPECT_EQ(chosen("dram,zpool", "interleave", fenced), "0=26,2=5; by bandwidth");
}

TEST(ChooseWeights, OfAChainThatNamesNodesTheseAreMeant) {
  EXPECT_EQ(chosen("dram=node:0;cxl=node:2;zpool", "interleave", four_nodes_with_hmat()),
            "0=26,2=5; by bandwidth");
  EXPECT_EQ(chosen("dram;cxl=node:2", "interleave", four_nodes_with_hmat()),
            "0=7,1=7,2=1; by bandwidth");
}

TEST(ChooseWeights, AreEqualWithoutTheTableAndAsGivenWhereTheyAreGiven) {
  EXPECT_EQ(chosen("dram,zpool", "interleave", four_nodes()),
            "0=1,1=1,2=1,3=1; equal: the firmware does not tell bandwidths (HMAT)");
  FakeFileTree slower_to_write = four_nodes_with_hmat();
  slower_to_write.files[kNodes + "node2/access1/initiators/write_bandwidth"] = "20480\n";
  EXPECT_EQ(chosen("dram=node:0;cxl=node:2", "interleave", slower_to_write),
            "0=29,2=2; by bandwidth");
  EXPECT_EQ(chosen("dram,zpool", "interleave:0=7,3=2", four_nodes_with_hmat()),
            "0=7,3=2; as given");
}

TEST(CheckPolicy, NamesTheNodeThatCannotBe) {
  const auto t = topology_of(
      machine({{0, "0", 64, "10 20 30"}, {1, "", 0, "20 10 30"}, {2, "", 64, "30 30 10"}}, "0-2",
              "0,2", "0"));
  const auto reason = [&](const char* tiers, const char* policy) {
    const Options options = options_of(tiers, policy);
    return std::string(check_policy(options.policy, options.tiers, *t).reason);
  };
  EXPECT_EQ(reason("dram,zpool", "interleave"), "");
  EXPECT_EQ(reason("dram,zpool", "interleave:0=1,2=1"), "");
  EXPECT_EQ(reason("dram,zpool", "interleave:0=1,1=1"),
            "node 1 has no memory; nodes with memory: 0,2");
  EXPECT_EQ(reason("dram,zpool", "interleave:0=1,7=1"),
            "there is no node 7; nodes with memory: 0,2");
  EXPECT_EQ(reason("dram=node:0;zpool", "interleave:0=1,2=1"),
            "node 2 is of no tier; the chain has nodes 0");
}

TEST(SettlePolicy, RefusalIsOneLineAndTheDefault) {
  FakeFileTree tree = four_nodes();
  Options options = options_of("dram,zpool", "interleave:0=1,7=1");
  Diagnostics diagnostics;
  settle_policy(tree, "interleave:0=1,7=1", &options, &diagnostics);
  EXPECT_EQ(diagnostics.text(),
            "heaptier: HEAPTIER_POLICY=interleave:0=1,7=1 is not accepted (there is no node 7; "
            "nodes with memory: 0-3); accepted: " +
                std::string(option_info(OptionId::kPolicy).accepted) + "; using hotset instead\n");
  EXPECT_EQ(options.policy, PolicySpec{});
  EXPECT_EQ(options.source[static_cast<int>(OptionId::kPolicy)], OptionSource::kRefused);

  Diagnostics silence;
  options = options_of("dram,zpool", "interleave:0=2,3=1");
  settle_policy(tree, "interleave:0=2,3=1", &options, &silence);
  EXPECT_TRUE(silence.empty()) << silence.text();
  EXPECT_EQ(options.policy.weights.of[3], 1);
}

}  // namespace
}  // namespace heaptier
