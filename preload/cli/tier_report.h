// The part of `heaptier doctor` about memory nodes: tiers, nodes, and why they are ranked so.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "runtime/topology/ranking.h"
#include "runtime/topology/topology.h"
#include "runtime/topology/weights.h"

namespace heaptier::cli {

// "512 MiB", "10 GiB".
std::string size_text(std::uint64_t bytes);
// "node 2", "nodes 0-1,3", "no node".
std::string nodes_text(NodeSet nodes);

// Lines for people, each closed by '\n'; empty: no node is known.
std::string tiers_text(const Topology& topology, const Ranking& ranking);
// What policy interleave would do; empty: there is but one node.
std::string weights_text(const ChosenWeights& chosen);
// Adds "interleave" to the object.
void add_weights(const ChosenWeights& chosen, nlohmann::ordered_json* json);
// Adds "tiers", "nodes" and "nodes_beyond" to the object. What is not known is left out.
void add_tiers(const Topology& topology, const Ranking& ranking, nlohmann::ordered_json* json);

}  // namespace heaptier::cli
