#include "runtime/topology/chain.h"

#include "runtime/config/option_values.h"
#include "runtime/config/text_writer.h"
#include "runtime/topology/ranking.h"

namespace heaptier {
namespace {

// "there is no node 7; nodes with memory: 0-3"
ChainVerdict refuse_node(const char* before, unsigned node, const char* after, NodeSet instead) {
  ChainVerdict verdict;
  TextWriter text(verdict.reason, sizeof verdict.reason);
  text.put(before);
  text.put_number(node);
  text.put(after);
  config::write_nodes(instead, text);
  (void)text.finish();
  return verdict;
}

ChainVerdict check_node(unsigned node, const Topology& topology) {
  if (!topology.possible.contains(node)) {
    return refuse_node("there is no node ", node, "; nodes with memory: ", topology.usable());
  }
  if (!topology.online.contains(node)) {
    return refuse_node("node ", node, " is offline; nodes with memory: ", topology.usable());
  }
  if (!topology.memory.contains(node)) {
    return refuse_node("node ", node, " has no memory; nodes with memory: ", topology.usable());
  }
  if (!topology.allowed.contains(node)) {
    return refuse_node("node ", node,
                       " is outside of this process' cpuset, which allows: ", topology.usable());
  }
  return {};
}

// All tiers of nodes, then the zpool. The default where there is one. Nodes of tiers beyond what a
// chain can have are in the last one before the zpool.
TierChain chain_of(const Topology& topology) {
  Ranking ranking;
  rank_nodes(topology, &ranking);
  TierChain chain{.tiers = {}, .count = 0};
  for (std::uint32_t i = 0; i < ranking.count; ++i) {
    const RankedTier& ranked = ranking.tiers[i];
    if (chain.count + 1 < kMaxTiers) {
      chain.tiers[chain.count++] = {ranked.kind, 0, ranked.nodes};
    } else {
      TierSpec& last = chain.tiers[chain.count - 1];
      last.nodes = last.nodes | ranked.nodes;
    }
  }
  if (chain.count < 2 || chain.tiers[0].kind != TierKind::kDram) return TierChain{};
  chain.tiers[chain.count++] = {TierKind::kZpool, 0, {}};
  return chain;
}

}  // namespace

ChainVerdict check_nodes(NodeSet nodes, const Topology& topology) {
  for (const unsigned node : nodes) {
    if (ChainVerdict verdict = check_node(node, topology); !verdict.ok()) return verdict;
  }
  return {};
}

ChainVerdict refuse_node_of_no_tier(unsigned node, NodeSet chained) {
  return refuse_node("node ", node, " is of no tier; the chain has nodes ", chained);
}

ChainVerdict check_chain(const TierChain& chain, const Topology& topology) {
  for (std::uint32_t i = 0; i < chain.count; ++i) {
    if (ChainVerdict verdict = check_nodes(chain.tiers[i].nodes, topology); !verdict.ok()) {
      return verdict;
    }
  }
  return {};
}

void settle_tiers(FileTree& files, std::string_view given, Options* options,
                  Diagnostics* diagnostics) {
  if (!options->tiers.names_nodes() && !options->tiers.automatic) return;
  const char* reason = "no memory to look at the nodes";
  ChainVerdict verdict;
  if (const TopologyNow topology(files); topology) {
    if (options->tiers.automatic) options->tiers = chain_of(*topology);
    verdict = check_chain(options->tiers, *topology);
    reason = verdict.reason;
    if (verdict.ok()) {
      // What the first tier may hold is what FAST says, if that says it by itself.
      const std::uint64_t first = options->tiers.tiers[0].capacity_bytes;
      if (first != 0 && options->fast.kind == FastBudget::Kind::kAuto) {
        options->fast = {FastBudget::Kind::kBytes, first, 0};
      }
      return;
    }
  }
  options->tiers = TierChain{};
  options->source[static_cast<std::size_t>(OptionId::kTiers)] = OptionSource::kRefused;
  tell_refusal(OptionId::kTiers, given, reason, diagnostics);
}

}  // namespace heaptier
