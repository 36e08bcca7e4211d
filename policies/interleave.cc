#include "policies/interleave.h"

#include <numeric>

namespace heaptier {
namespace {

// The sum of the weights before they are reduced: about so many pages go round once. More follows
// the bandwidths more closely, and needs longer runs of pages on one node.
constexpr std::uint64_t kScale = 32;

}  // namespace

InterleavePattern::InterleavePattern(const NodeWeights& weights) {
  std::uint32_t i = 0;
  for (const unsigned node : weights.nodes()) {
    total_ += weights.of[node];
    end_[i] = total_;
    node_[i++] = static_cast<std::uint8_t>(node);
  }
}

NodeWeights weights_by_bandwidth(NodeSet nodes, const std::uint64_t (&bandwidth)[kMaxNodes]) {
  NodeWeights weights;
  std::uint64_t sum = 0;
  bool known = true;
  for (const unsigned node : nodes) {
    known = known && bandwidth[node] != 0;
    sum += bandwidth[node];
  }
  std::uint64_t common = 0;
  for (const unsigned node : nodes) {
    const std::uint64_t scaled = known ? kScale * bandwidth[node] / sum : 0;
    weights.of[node] = static_cast<std::uint8_t>(scaled == 0 ? 1 : scaled);
    common = std::gcd(common, weights.of[node]);
  }
  for (const unsigned node : nodes) {
    weights.of[node] = static_cast<std::uint8_t>(weights.of[node] / common);
  }
  return weights;
}

}  // namespace heaptier
