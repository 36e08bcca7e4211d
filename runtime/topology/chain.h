// The option TIERS held against the machine: may these nodes be tiers, and are they served yet?
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

// The one place that says so: pages are not placed on nodes yet, so a chain that would need it is
// refused rather than half done. nullptr: this chain needs none, as its dram has all of every node
// the process may use and all else are stores. Goes away when the engine places pages on nodes; its
// callers are refuse_chain() and `heaptier doctor`.
const char* node_tiers_not_served_yet(const TierChain& chain, const Topology& topology);

// Both of the above: what `heaptier run` and the library ask.
ChainVerdict refuse_chain(const TierChain& chain, const Topology& topology);

// For the preloaded library, after parse_environment(). A chain that names nodes is held against
// the machine; one that is refused costs a line and leaves the default. `given`: the value as the
// user wrote it. Reads nothing when no node is named.
void settle_tiers(FileTree& files, std::string_view given, Options* options,
                  Diagnostics* diagnostics);

}  // namespace heaptier
