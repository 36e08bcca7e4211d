#include "runtime/topology/ranking.h"

#include <algorithm>

namespace heaptier {
namespace {

// Two figures closer than this are of one class. Below a quarter a move costs more than it brings
// for all but the hottest pages, and the kernel's own steps (a 4.5th of DRAM's distance) are no
// finer.
constexpr bool apart(std::uint64_t better, std::uint64_t worse) {
  return worse > better + better / 4;
}

// What nodes are ordered by, the first difference deciding.
struct Key {
  enum Part { kTier, kHmat, kBacking, kCpus, kDistance, kParts };
  std::uint64_t part[kParts] = {};

  // kParts: they are equal.
  static int first_difference(const Key& a, const Key& b) {
    int i = 0;
    while (i < kParts && a.part[i] == b.part[i]) ++i;
    return i;
  }
  friend bool operator<(const Key& a, const Key& b) {
    const int i = first_difference(a, b);
    return i < kParts && a.part[i] < b.part[i];
  }
};

constexpr RankReason kReasons[Key::kParts] = {RankReason::kKernelTier, RankReason::kHmat,
                                              RankReason::kNvdimm, RankReason::kNoCpus,
                                              RankReason::kDistance};

// The kernel's abstract distance in other words: latency up, bandwidth down.
std::uint64_t cost_of(const AccessFigures& f, bool with_bandwidth) {
  const std::uint64_t latency = std::uint64_t{f.read_latency_ns} + f.write_latency_ns;
  const std::uint64_t bandwidth = std::uint64_t{f.read_bandwidth_mbs} + f.write_bandwidth_mbs;
  constexpr unsigned kScale = 28;  // 2^33 ns << 28 is within 64 bits
  return with_bandwidth ? (latency << kScale) / bandwidth : latency;
}

class Ranker {
 public:
  explicit Ranker(const Topology& topology) : topology_(topology), usable_(topology.usable()) {}

  void rank(Ranking* out) {
    key_by_kernel_tier();
    for (NodeSet rest = usable_; !rest.empty();) {
      const NodeSet group = alike(*rest.begin(), rest);
      rest = rest - group;
      key_within(group);
    }
    gather(out);
  }

 private:
  NodeSet alike(unsigned node, NodeSet among) const {
    NodeSet group;
    for (const unsigned other : among) {
      if (Key::first_difference(keys_[node], keys_[other]) == Key::kParts) group.add(other);
    }
    return group;
  }

  void key_by_kernel_tier() {
    for (const unsigned node : usable_) {
      // Half of an order is none.
      if (topology_.nodes[node].kernel_tier == kNoKernelTier) return;
    }
    for (const unsigned node : usable_) {
      keys_[node].part[Key::kTier] = topology_.nodes[node].kernel_tier;
    }
  }

  void key_within(NodeSet group) {
    bool latency = true;
    bool bandwidth = true;
    for (const unsigned node : group) {
      latency = latency && topology_.nodes[node].access.has_latency();
      bandwidth = bandwidth && topology_.nodes[node].access.has_bandwidth();
    }
    std::uint64_t values[kMaxNodes] = {};
    if (latency) {
      std::uint64_t own = UINT64_MAX;  // of memory beside CPUs
      for (const unsigned node : group) {
        values[node] = cost_of(topology_.nodes[node].access, bandwidth);
        if (topology_.cpus.contains(node)) own = std::min(own, values[node]);
      }
      for (const unsigned node : group& topology_.cpus) values[node] = own;
      classify(group, values, Key::kHmat);
    }
    for (const unsigned node : group) {
      const bool cpus = topology_.cpus.contains(node);
      keys_[node].part[Key::kBacking] = topology_.nodes[node].nvdimm && !cpus ? 1 : 0;
      if (!latency) keys_[node].part[Key::kCpus] = cpus ? 0 : 1;
    }
    if (latency) return;
    NodeSet without = group - topology_.cpus;
    while (!without.empty()) {
      const NodeSet same = alike(*without.begin(), without);
      without = without - same;
      for (const unsigned node : same) values[node] = nearest_cpus(node);
      classify(same, values, Key::kDistance);
    }
  }

  // Replaces values by the number of their class, in ascending order.
  void classify(NodeSet group, const std::uint64_t* values, Key::Part part) {
    std::uint64_t number = 0;
    NodeSet rest = group;
    while (!rest.empty()) {
      std::uint64_t least = UINT64_MAX;
      for (const unsigned node : rest) least = std::min(least, values[node]);
      NodeSet members;
      for (const unsigned node : rest) {
        if (!apart(least, values[node])) members.add(node);
      }
      for (const unsigned node : members) keys_[node].part[part] = number;
      rest = rest - members;
      ++number;
    }
  }

  std::uint64_t nearest_cpus(unsigned node) const {
    std::uint64_t nearest = UINT8_MAX;  // a node that says nothing counts as far away
    for (const unsigned other : topology_.cpus) {
      const std::uint8_t distance = topology_.distance[node][other];
      if (distance != 0) nearest = std::min<std::uint64_t>(nearest, distance);
    }
    return nearest;
  }

  void gather(Ranking* out) {
    NodeSet rest = usable_;
    const Key* before = nullptr;
    while (!rest.empty()) {
      unsigned first = *rest.begin();
      for (const unsigned node : rest) {
        if (keys_[node] < keys_[first]) first = node;
      }
      const NodeSet nodes = alike(first, rest);
      rest = rest - nodes;
      if (out->count == kMaxTiers) {
        RankedTier& last = out->tiers[kMaxTiers - 1];
        last.nodes = last.nodes | nodes;
        ++out->merged;
        continue;
      }
      RankedTier& tier = out->tiers[out->count++];
      tier.nodes = nodes;
      if (before != nullptr) {
        tier.reason = kReasons[Key::first_difference(*before, keys_[first])];
        if (out->count == 2) out->tiers[0].reason = tier.reason;
      }
      before = &keys_[first];
    }
  }

  const Topology& topology_;
  const NodeSet usable_;
  Key keys_[kMaxNodes];
};

// Memory that is as fast as that beside CPUs, or faster (HBM), is no slow tier, CPUs or not.
void name_kinds(const Topology& topology, Ranking* ranking) {
  std::uint32_t last_dram = 0;
  for (std::uint32_t i = 0; i < ranking->count; ++i) {
    if (!(ranking->tiers[i].nodes & topology.cpus).empty()) last_dram = i;
  }
  for (std::uint32_t i = last_dram + 1; i < ranking->count; ++i) {
    bool persistent = true;
    for (const unsigned node : ranking->tiers[i].nodes) {
      persistent = persistent && topology.nodes[node].nvdimm;
    }
    ranking->tiers[i].kind = persistent ? TierKind::kPmem : TierKind::kCxl;
  }
}

NodeSet nearest_of(const Topology& topology, unsigned node, NodeSet candidates) {
  unsigned least = UINT8_MAX + 1;
  NodeSet nearest;
  for (const unsigned other : candidates) {
    const unsigned said = topology.distance[node][other];
    const unsigned distance = said != 0 ? said : UINT8_MAX;
    if (distance < least) nearest = {};
    if (distance <= least) nearest.add(other);
    least = std::min(least, distance);
  }
  // Equally far: those whose memory is attached to this node, where HMAT says so.
  NodeSet attached;
  for (const unsigned other : nearest) {
    if (topology.nodes[other].access.initiators.contains(node)) attached.add(other);
  }
  return attached.empty() ? nearest : attached;
}

// Capacities and next nodes, once the tiers have their nodes. A tier that has a capacity by now
// was given it: its nodes' memory is only the limit.
void complete(const Topology& topology, Ranking* ranking) {
  for (std::uint32_t i = 0; i < ranking->count; ++i) {
    RankedTier& tier = ranking->tiers[i];
    const std::uint64_t given = tier.capacity_bytes != 0 ? tier.capacity_bytes : UINT64_MAX;
    tier.capacity_bytes = 0;
    for (const unsigned node : tier.nodes) {
      tier.capacity_bytes += topology.nodes[node].capacity_bytes;
      tier.free_bytes += topology.nodes[node].free_bytes;
      if (i + 1 == ranking->count) continue;
      ranking->next[node] = nearest_of(topology, node, ranking->tiers[i + 1].nodes);
    }
    tier.capacity_bytes = std::min(tier.capacity_bytes, given);
    tier.free_bytes = std::min(tier.free_bytes, given);
  }
}

}  // namespace

const char* to_string(RankReason reason) {
  switch (reason) {
    case RankReason::kOnlyTier:
      return "nothing sets its nodes apart";
    case RankReason::kKernelTier:
      return "by the kernel's memory tiers";
    case RankReason::kHmat:
      return "by latency and bandwidth (HMAT)";
    case RankReason::kNvdimm:
      return "NVDIMMs come after other memory";
    case RankReason::kNoCpus:
      return "nodes without CPUs come after nodes with CPUs";
    case RankReason::kDistance:
      return "by the distance from the nearest CPUs";
    case RankReason::kConfigured:
      return "as configured";
  }
  return "?";
}

std::uint32_t Ranking::tier_of(unsigned node) const {
  std::uint32_t i = 0;
  while (i < count && !tiers[i].nodes.contains(node)) ++i;
  return i;
}

void rank_nodes(const Topology& topology, Ranking* out) {
  *out = {};
  Ranker(topology).rank(out);
  name_kinds(topology, out);
  complete(topology, out);
}

void rank_as_configured(const TierChain& chain, const Topology& topology, Ranking* out) {
  *out = {};
  NodeSet named;
  for (std::uint32_t i = 0; i < chain.count; ++i) named = named | chain.tiers[i].nodes;
  for (std::uint32_t i = 0; i < chain.count; ++i) {
    const TierSpec& spec = chain.tiers[i];
    if (spec.kind == TierKind::kZpool) continue;
    RankedTier& tier = out->tiers[out->count++];
    tier.kind = spec.kind;
    tier.reason = RankReason::kConfigured;
    tier.capacity_bytes = spec.capacity_bytes;
    tier.nodes = spec.nodes & topology.usable();
    if (!spec.nodes.empty()) continue;
    Ranking derived;
    rank_nodes(topology, &derived);
    for (std::uint32_t d = 0; d < derived.count; ++d) {
      if (derived.tiers[d].kind == TierKind::kDram) {
        tier.nodes = tier.nodes | (derived.tiers[d].nodes - named);
      }
    }
  }
  complete(topology, out);
}

}  // namespace heaptier
