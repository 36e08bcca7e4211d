// The option TIERS held against the machine: may these nodes be tiers?
//
// Thread rule: free functions on the caller's objects; settle_tiers() once, at start.
#pragma once

#include <cstddef>
#include <string_view>

#include "runtime/base/file_tree.h"
#include "runtime/config/diagnostics.h"
#include "runtime/config/options.h"
#include "runtime/topology/topology.h"

namespace heaptier {

// Why a chain cannot be; one line's worth, in words that follow "is not accepted (".
struct [[nodiscard]] ChainVerdict {
  char reason[192] = {};
  bool ok() const { return reason[0] == '\0'; }
};

// Whether every node that the chain names exists, is online, has memory and is within the cpuset.
// The first that does not is the reason.
ChainVerdict check_chain(const TierChain& chain, const Topology& topology);
// The same of a set of nodes.
ChainVerdict check_nodes(NodeSet nodes, const Topology& topology);
// The verdict on a node that no tier has; those that a tier has are named.
ChainVerdict refuse_node_of_no_tier(unsigned node, NodeSet chained);

// For the preloaded library, after parse_environment(). A chain that is to be the machine's own is
// made: its tiers of nodes as rank_nodes() has them, then the zpool; with one tier of nodes it is
// the default. A chain that names nodes is held against the machine; one that is refused costs a
// line and leaves the default. `given`: the value as the user wrote it. Reads nothing when no node
// is named.
void settle_tiers(FileTree& files, std::string_view given, Options* options,
                  Diagnostics* diagnostics);

}  // namespace heaptier
