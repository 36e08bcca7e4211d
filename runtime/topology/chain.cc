#include "runtime/topology/chain.h"

#include "runtime/bootstrap_heap.h"
#include "runtime/config/option_values.h"
#include "runtime/config/text_writer.h"

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

}  // namespace

ChainVerdict check_chain(const TierChain& chain, const Topology& topology) {
  for (std::uint32_t i = 0; i < chain.count; ++i) {
    for (const unsigned node : chain.tiers[i].nodes) {
      if (ChainVerdict verdict = check_node(node, topology); !verdict.ok()) return verdict;
    }
  }
  return {};
}

const char* node_tiers_not_served_yet(const TierChain& chain, const Topology& topology) {
  constexpr const char* kNotYet = "node tiers are not served yet in this version";
  for (std::uint32_t i = 0; i < chain.count; ++i) {
    const TierSpec& tier = chain.tiers[i];
    if (tier.kind == TierKind::kCxl || tier.kind == TierKind::kPmem) return kNotYet;
    if (tier.nodes.empty()) continue;
    if (tier.capacity_bytes != 0 || !(topology.usable() - tier.nodes).empty()) return kNotYet;
  }
  return nullptr;
}

ChainVerdict refuse_chain(const TierChain& chain, const Topology& topology) {
  ChainVerdict verdict = check_chain(chain, topology);
  if (!verdict.ok()) return verdict;
  if (const char* why = node_tiers_not_served_yet(chain, topology); why != nullptr) {
    TextWriter text(verdict.reason, sizeof verdict.reason);
    text.put(why);
    (void)text.finish();
  }
  return verdict;
}

void settle_tiers(FileTree& files, std::string_view given, Options* options,
                  Diagnostics* diagnostics) {
  if (!options->tiers.names_nodes()) return;
  const char* reason = "no memory to look at the nodes";
  ChainVerdict verdict;
  if (auto* topology = bootstrap::allocate_array<Topology>(1); topology != nullptr) {
    read_topology(files, topology);
    verdict = refuse_chain(options->tiers, *topology);
    bootstrap::release(topology, sizeof(Topology));
    reason = verdict.reason;
    if (verdict.ok()) return;
  }
  options->tiers = TierChain{};
  options->source[static_cast<std::size_t>(OptionId::kTiers)] = OptionSource::kRefused;
  tell_refusal(OptionId::kTiers, given, reason, diagnostics);
}

}  // namespace heaptier
