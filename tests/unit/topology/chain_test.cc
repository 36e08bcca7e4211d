// The option TIERS against made-up machines: what is refused, in which words, and what is used.
#include "runtime/topology/chain.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/unit/topology/machines.h"

namespace heaptier {
namespace {

// Four nodes, of which 1 has no memory, 3 is not allowed and 4 is offline.
FakeFileTree mixed_machine() {
  FakeFileTree tree = machine({{0, "0", 64, "10 20 30 40"},
                               {1, "1", 0, "20 10 30 40"},
                               {2, "", 64, "30 30 10 40"},
                               {3, "", 64, "40 40 40 10"}},
                              "0-3", "0,2-3", "0-1", "0-2");
  tree.files[kNodes + "possible"] = "0-4\n";
  return tree;
}

TierChain chain_of(const std::string& text) {
  Options options;
  const ParseResult result = parse_option(OptionId::kTiers, text, &options);
  EXPECT_TRUE(result.ok) << text << ": " << (result.reason ? result.reason : "");
  return options.tiers;
}

TEST(CheckChain, NamesTheNodeAndWhatThereIs) {
  const auto t = topology_of(mixed_machine());
  const auto reason = [&](const char* chain) {
    return std::string(check_chain(chain_of(chain), *t).reason);
  };
  EXPECT_EQ(reason("dram=node:0;cxl=node:2"), "");
  EXPECT_EQ(reason("dram;cxl=node:2;zpool"), "");
  EXPECT_EQ(reason("dram=node:0;cxl=node:7"), "there is no node 7; nodes with memory: 0,2");
  EXPECT_EQ(reason("dram=node:63;cxl=node:2"), "there is no node 63; nodes with memory: 0,2");
  EXPECT_EQ(reason("dram=node:0-1;cxl=node:2"), "node 1 has no memory; nodes with memory: 0,2");
  EXPECT_EQ(reason("dram=node:0;cxl=node:4"), "node 4 is offline; nodes with memory: 0,2");
  EXPECT_EQ(reason("dram=node:0;cxl=node:2-3"),
            "node 3 is outside of this process' cpuset, which allows: 0,2");
}

struct Settled {
  Options options;
  Diagnostics diagnostics;
  FakeFileTree tree = mixed_machine();
  explicit Settled(const std::string& variable) {
    const char* envp[] = {variable.c_str(), nullptr};
    parse_environment(envp, &options, &diagnostics);
    settle_tiers(tree, std::string_view(variable).substr(variable.find('=') + 1), &options,
                 &diagnostics);
  }
  OptionSource source() const { return options.source[static_cast<int>(OptionId::kTiers)]; }
};

TEST(SettleTiers, RefusalIsOneLineAndTheDefault) {
  const Settled s("HEAPTIER_TIERS=dram=node:0;cxl=node:7");
  EXPECT_EQ(s.diagnostics.text(),
            "heaptier: HEAPTIER_TIERS=dram=node:0;cxl=node:7 is not accepted (there is no node 7; "
            "nodes with memory: 0,2); accepted: " +
                std::string(option_info(OptionId::kTiers).accepted) +
                "; using dram,zpool instead\n");
  EXPECT_EQ(s.options.tiers, TierChain{});
  EXPECT_EQ(s.source(), OptionSource::kRefused);
}

TEST(SettleTiers, TheMachinesOwnAreItsNodesAndTheZpool) {
  const Settled s("HEAPTIER_TIERS=auto");
  EXPECT_TRUE(s.diagnostics.empty()) << s.diagnostics.text();
  ASSERT_EQ(s.options.tiers.count, 3u);
  EXPECT_EQ(s.options.tiers.tiers[0].kind, TierKind::kDram);
  EXPECT_EQ(text_of(s.options.tiers.tiers[0].nodes), "0");
  EXPECT_EQ(s.options.tiers.tiers[1].kind, TierKind::kCxl);
  EXPECT_EQ(text_of(s.options.tiers.tiers[1].nodes), "2");
  EXPECT_EQ(s.options.tiers.tiers[2].kind, TierKind::kZpool);
  EXPECT_FALSE(s.options.tiers.automatic);
}

TEST(SettleTiers, NearAndFarOnesAreTiersOfTheirOwn) {
  FakeFileTree tree =
      machine({{0, "0", 64, "10 20 30"}, {1, "", 64, "20 10 40"}, {2, "", 64, "30 40 10"}}, "0-2",
              "0-2", "0", "0-2");
  Options options;
  Diagnostics diagnostics;
  ASSERT_TRUE(parse_option(OptionId::kTiers, "auto", &options).ok);
  settle_tiers(tree, "auto", &options, &diagnostics);
  EXPECT_EQ(options.tiers, chain_of("dram=node:0;cxl=node:1;cxl=node:2;zpool"));
}

TEST(SettleTiers, MoreTiersThanAChainCanHaveShareTheLastOne) {
  std::vector<NodeFacts> nodes;
  constexpr int kFar[] = {10, 15, 23, 35, 53, 80, 120, 180, 254};
  for (unsigned node = 0; node < std::size(kFar); ++node) {
    std::string distances;
    for (unsigned other = 0; other < std::size(kFar); ++other) {
      distances += std::to_string(node == other ? 10 : kFar[std::max(node, other)]) + " ";
    }
    nodes.push_back({node, node == 0 ? "0" : "", 64, distances});
  }
  FakeFileTree tree = machine(nodes, "0-8", "0-8", "0", "0-8");
  Options options;
  Diagnostics diagnostics;
  ASSERT_TRUE(parse_option(OptionId::kTiers, "auto", &options).ok);
  settle_tiers(tree, "auto", &options, &diagnostics);
  ASSERT_EQ(options.tiers.count, kMaxTiers);
  EXPECT_EQ(text_of(options.tiers.tiers[kMaxTiers - 2].nodes), "6,7,8");
  EXPECT_EQ(options.tiers.tiers[kMaxTiers - 1].kind, TierKind::kZpool);
}

TEST(SettleTiers, TheMachinesOwnIsTheDefaultWhereThereIsOneTier) {
  FakeFileTree tree = machine({{0, "0-1", 64, "10"}}, "0", "0", "0-1", "0");
  Options options;
  Diagnostics diagnostics;
  ASSERT_TRUE(parse_option(OptionId::kTiers, "auto", &options).ok);
  settle_tiers(tree, "auto", &options, &diagnostics);
  EXPECT_TRUE(diagnostics.empty());
  EXPECT_EQ(options.tiers, TierChain{});
}

TEST(SettleTiers, WhatIsServedStays) {
  const Settled s("HEAPTIER_TIERS=dram=node:0,2;zpool:1G");
  EXPECT_TRUE(s.diagnostics.empty()) << s.diagnostics.text();
  EXPECT_EQ(text_of(s.options.tiers.tiers[0].nodes), "0,2");
  EXPECT_EQ(s.options.tiers.find(TierKind::kZpool)->capacity_bytes, 1u << 30);
  EXPECT_EQ(s.source(), OptionSource::kEnvironment);
}

TEST(SettleTiers, TheSizeOfTheFirstTierIsItsBudget) {
  const Settled s("HEAPTIER_TIERS=dram=node:0:16M;cxl=node:2;zpool:1G");
  EXPECT_EQ(s.options.fast, (FastBudget{FastBudget::Kind::kBytes, 16u << 20, 0}));
}

TEST(SettleTiers, LooksAtNothingWhenNoNodeIsNamed) {
  for (const char* variable :
       {"HEAPTIER_TIERS=dram,zpool:1G", "HEAPTIER_TIERS=dram=node:x;zpool", "HEAPTIER_FAST=1G"}) {
    const Settled s(variable);
    EXPECT_EQ(s.tree.reads, 0) << variable;
    EXPECT_LE(s.diagnostics.lines(), 1u) << variable;
  }
}

}  // namespace
}  // namespace heaptier
