#include "runtime/topology/weights.h"

#include <algorithm>

#include "policies/interleave.h"
#include "runtime/topology/ranking.h"

namespace heaptier {
namespace {

NodeSet nodes_of(const TierChain& chain, const Topology& topology) {
  if (!chain.names_nodes()) return topology.usable();
  Ranking ranking;
  rank_as_configured(chain, topology, &ranking);
  NodeSet nodes;
  for (std::uint32_t t = 0; t < ranking.count; ++t) nodes = nodes | ranking.tiers[t].nodes;
  return nodes & topology.usable();
}

}  // namespace

const char* to_string(WeightReason reason) {
  switch (reason) {
    case WeightReason::kGiven:
      return "as given";
    case WeightReason::kBandwidth:
      return "by bandwidth";
    case WeightReason::kEqual:
      return "equal: the firmware does not tell bandwidths (HMAT)";
  }
  return "?";
}

ChosenWeights choose_weights(const PolicySpec& policy, const TierChain& chain,
                             const Topology& topology) {
  if (!policy.weights.nodes().empty()) return {policy.weights, WeightReason::kGiven};
  const NodeSet nodes = nodes_of(chain, topology);
  std::uint64_t bandwidth[kMaxNodes] = {};
  bool known = true;
  for (const unsigned node : nodes) {
    const AccessFigures& access = topology.nodes[node].access;
    known = known && access.has_bandwidth();
    bandwidth[node] = std::min(access.read_bandwidth_mbs, access.write_bandwidth_mbs);
  }
  return {weights_by_bandwidth(nodes, bandwidth),
          known ? WeightReason::kBandwidth : WeightReason::kEqual};
}

ChainVerdict check_policy(const PolicySpec& policy, const TierChain& chain,
                          const Topology& topology) {
  const NodeSet weighted = policy.weights.nodes();
  if (weighted.empty()) return {};
  if (ChainVerdict verdict = check_nodes(weighted, topology); !verdict.ok()) return verdict;
  const NodeSet chained = nodes_of(chain, topology);
  for (const unsigned node : weighted - chained) return refuse_node_of_no_tier(node, chained);
  return {};
}

void settle_policy(FileTree& files, std::string_view given, Options* options,
                   Diagnostics* diagnostics) {
  if (options->policy.weights.nodes().empty()) return;
  const char* reason = "no memory to look at the nodes";
  ChainVerdict verdict;
  if (const TopologyNow topology(files); topology) {
    verdict = check_policy(options->policy, options->tiers, *topology);
    if (verdict.ok()) return;
    reason = verdict.reason;
  }
  options->policy = PolicySpec{};
  options->source[static_cast<std::size_t>(OptionId::kPolicy)] = OptionSource::kRefused;
  tell_refusal(OptionId::kPolicy, given, reason, diagnostics);
}

}  // namespace heaptier
