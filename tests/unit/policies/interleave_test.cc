// Which node a page belongs on, and the weights that follow from bandwidths.
#include "policies/interleave.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

namespace heaptier {
namespace {

NodeWeights weights(const std::map<unsigned, unsigned>& of) {
  NodeWeights w;
  for (const auto& [node, weight] : of) w.of[node] = static_cast<std::uint8_t>(weight);
  return w;
}

// The nodes of the pages from `first` on, as digits.
std::string nodes_of(const NodeWeights& w, std::uintptr_t first, int count, bool huge = false) {
  const InterleavePattern pattern(w);
  const std::uintptr_t size = huge ? kPageblockSize : kPageSize;
  std::string text;
  for (int i = 0; i < count; ++i) {
    text += std::to_string(pattern.node_of(first + static_cast<std::uintptr_t>(i) * size, huge));
  }
  return text;
}

TEST(InterleavePattern, GivesEachNodeItsWeightInARow) {
  EXPECT_EQ(nodes_of(weights({{0, 1}, {1, 1}}), 0, 6), "010101");
  EXPECT_EQ(nodes_of(weights({{0, 3}, {2, 1}}), 0, 8), "00020002");
  EXPECT_EQ(nodes_of(weights({{1, 2}, {4, 1}, {7, 3}}), 0, 12), "114777114777");
  EXPECT_EQ(nodes_of(weights({{5, 9}}), 0, 4), "5555");
}

TEST(InterleavePattern, GoesByTheAddressAlone) {
  const NodeWeights w = weights({{0, 2}, {1, 1}});
  // 0x7f0000000000 / 4096 is 34091302912, which is 1 modulo 3.
  EXPECT_EQ(nodes_of(w, 0x7f0000000000, 5), "01001");
  EXPECT_EQ(nodes_of(w, 0x7f0000001fff, 1), nodes_of(w, 0x7f0000001000, 1)) << "within the page";
  // 0x7f0000000000 / 2 MiB is 66584576, which is 2 modulo 3.
  EXPECT_EQ(nodes_of(w, 0x7f0000000000, 5, true), "10010");
  EXPECT_EQ(nodes_of(w, 0x7f00001ff000, 1, true), "1") << "within the huge page";
}

TEST(InterleavePattern, IsExactOverAnyWholeNumberOfRounds) {
  const NodeWeights w = weights({{0, 26}, {1, 5}, {63, 255}});
  const InterleavePattern pattern(w);
  ASSERT_EQ(pattern.total(), 286u);
  std::map<unsigned, unsigned> pages;
  for (std::uintptr_t i = 77; i < 77 + 286 * 3; ++i) ++pages[pattern.node_of(i * kPageSize, false)];
  EXPECT_EQ(pages, (std::map<unsigned, unsigned>{{0, 78}, {1, 15}, {63, 765}}));
}

TEST(InterleavePattern, WithoutNodesIsEmpty) {
  EXPECT_TRUE(InterleavePattern(NodeWeights{}).empty());
  EXPECT_TRUE(InterleavePattern().empty());
  const NodeWeights both = weights({{0, 3}, {1, 1}});
  EXPECT_EQ(both.within(NodeSet::of(1)), weights({{1, 1}}));
  EXPECT_TRUE(InterleavePattern(both.within(NodeSet::of(2))).empty());
}

NodeWeights by_bandwidth(const std::map<unsigned, std::uint64_t>& of) {
  NodeSet nodes;
  std::uint64_t bandwidth[kMaxNodes] = {};
  for (const auto& [node, mbs] : of) {
    nodes.add(node);
    bandwidth[node] = mbs;
  }
  return weights_by_bandwidth(nodes, bandwidth);
}

TEST(InterleaveWeights, AreInTheProportionOfTheBandwidths) {
  EXPECT_EQ(by_bandwidth({{0, 100}, {1, 100}}), weights({{0, 1}, {1, 1}}));
  EXPECT_EQ(by_bandwidth({{0, 300}, {1, 100}}), weights({{0, 3}, {1, 1}}));
  EXPECT_EQ(by_bandwidth({{0, 150000}, {1, 30000}}), weights({{0, 26}, {1, 5}}));
  EXPECT_EQ(by_bandwidth({{0, 150000}, {1, 30000}, {2, 30000}}),
            weights({{0, 11}, {1, 2}, {2, 2}}));
  EXPECT_EQ(by_bandwidth({{0, 10'000'000}, {1, 1}}), weights({{0, 31}, {1, 1}}))
      << "every node gets something";
}

TEST(InterleaveWeights, AreEqualWhereABandwidthIsNotKnown) {
  EXPECT_EQ(by_bandwidth({{0, 0}, {3, 0}}), weights({{0, 1}, {3, 1}}));
  EXPECT_EQ(by_bandwidth({{0, 150000}, {1, 0}}), weights({{0, 1}, {1, 1}}));
  EXPECT_EQ(by_bandwidth({{4, 7}}), weights({{4, 1}}));
  EXPECT_EQ(by_bandwidth({}), NodeWeights{});
  EXPECT_TRUE(weights({{0, 4}, {9, 4}}).equal());
  EXPECT_FALSE(weights({{0, 4}, {9, 3}}).equal());
}

}  // namespace
}  // namespace heaptier
