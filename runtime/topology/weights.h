// Over which nodes memory is interleaved, and with which weights: as given, or by what the firmware
// says of the nodes' bandwidths.
//
// Thread rule: free functions on the caller's objects; settle_policy() once, at start, after
// settle_tiers().
#pragma once

#include <string_view>

#include "runtime/base/file_tree.h"
#include "runtime/base/node_weights.h"
#include "runtime/config/diagnostics.h"
#include "runtime/config/options.h"
#include "runtime/topology/chain.h"
#include "runtime/topology/topology.h"

namespace heaptier {

enum class WeightReason : std::uint8_t {
  kGiven,      // the option POLICY says so
  kBandwidth,  // the firmware's table (HMAT)
  kEqual,      // it does not tell for all of the nodes
};
const char* to_string(WeightReason reason);

struct ChosenWeights {
  NodeWeights weights;  // without nodes: there are none to interleave over
  WeightReason reason = WeightReason::kEqual;
};

// Over the nodes of the chain if it names any, else over all that the process may use. A node's
// bandwidth is the lower one of reading and writing.
// Requires: check_chain() and check_policy() have found nothing.
ChosenWeights choose_weights(const PolicySpec& policy, const TierChain& chain,
                             const Topology& topology);

// Whether every node that has a weight exists, is online, has memory, is within the cpuset and is
// of the chain, if that names nodes. The first that does not is the reason.
ChainVerdict check_policy(const PolicySpec& policy, const TierChain& chain,
                          const Topology& topology);

// For the preloaded library. Weights that are refused cost a line and leave the default policy.
// `given`: the value as the user wrote it. Reads nothing when no weights are given.
void settle_policy(FileTree& files, std::string_view given, Options* options,
                   Diagnostics* diagnostics);

}  // namespace heaptier
