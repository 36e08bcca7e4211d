// Which nodes are fast, which are slow, and why: the tiers of nodes, fastest first.
//
// Thread rule: pure functions on the caller's objects. A Ranking has some 2 KiB.
#pragma once

#include <cstdint>

#include "runtime/base/node_set.h"
#include "runtime/config/options.h"
#include "runtime/topology/topology.h"

namespace heaptier {

// What sets a tier apart from the one before it; for the first, from the one after it.
enum class RankReason : std::uint8_t {
  kOnlyTier,    // nothing known sets the nodes apart
  kKernelTier,  // the kernel's memory tiers
  kHmat,        // latency and bandwidth by the firmware's table
  kNvdimm,      // persistent memory comes after other memory
  kNoCpus,      // memory without CPUs comes after memory beside CPUs
  kDistance,    // memory without CPUs, by its distance from the nearest CPUs
  kConfigured,  // the option TIERS says so
};
const char* to_string(RankReason reason);

struct RankedTier {
  TierKind kind = TierKind::kDram;  // never kZpool
  RankReason reason = RankReason::kOnlyTier;
  NodeSet nodes;
  // What its nodes have, or less where the option TIERS gives it a size.
  std::uint64_t capacity_bytes = 0;
  std::uint64_t free_bytes = 0;  // as MemoryNode::free_bytes, at most the size given
};

struct Ranking {
  RankedTier tiers[kMaxTiers];
  std::uint32_t count = 0;
  // Tiers beyond kMaxTiers: their nodes are in the last one.
  std::uint32_t merged = 0;
  // For each node, the nearest nodes of the tier after its own: where its pages are demoted to.
  // Empty in the last tier.
  NodeSet next[kMaxNodes];

  // The tier that `node` belongs to, or `count`.
  std::uint32_t tier_of(unsigned node) const;
};

// Of the nodes that the process may use. In this order: the kernel's tiers; within one of them
// HMAT, where it speaks of all its nodes; else NVDIMMs after other memory, nodes without CPUs after
// nodes with CPUs, and by their distance from the nearest CPUs. Nodes with CPUs are told apart by
// nothing but the kernel's tiers: every socket's memory is its own threads' fastest.
void rank_nodes(const Topology& topology, Ranking* out);

// As the chain says, the store tiers left out. A dram tier without nodes has those that
// rank_nodes() puts in dram and that the chain does not name elsewhere.
// Requires: check_chain() has found nothing.
void rank_as_configured(const TierChain& chain, const Topology& topology, Ranking* out);

}  // namespace heaptier
