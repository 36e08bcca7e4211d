#include "preload/cli/tier_report.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "runtime/config/option_values.h"
#include "runtime/config/text_writer.h"

namespace heaptier::cli {
namespace {

std::string list_text(NodeSet nodes) {
  char text[256];
  TextWriter writer(text, sizeof text);
  config::write_nodes(nodes, writer);
  (void)writer.finish();
  return text;
}

std::string amounts(std::uint64_t capacity, std::uint64_t free) {
  return size_text(capacity) + ", " + size_text(free) + " free";
}

// "512 MiB, 128 MiB free", or "256 MiB of 512 MiB, 128 MiB free" where the tier was given less than
// its nodes have.
std::string tier_amounts(const Topology& topology, const RankedTier& tier) {
  std::uint64_t memory = 0;
  for (const unsigned node : tier.nodes) memory += topology.nodes[node].capacity_bytes;
  const bool part = tier.capacity_bytes < memory;
  return (part ? size_text(tier.capacity_bytes) + " of " : "") + amounts(memory, tier.free_bytes);
}

std::string node_line(const Topology& topology, const Ranking& ranking, unsigned node) {
  const MemoryNode& about = topology.nodes[node];
  std::string line = "node " + std::to_string(node) + ": ";
  line += amounts(about.capacity_bytes, about.free_bytes);
  if (about.cpus != 0) {
    line += ", " + std::to_string(about.cpus) + (about.cpus == 1 ? " CPU" : " CPUs");
  } else {
    line += about.nvdimm ? ", no CPUs, an NVDIMM" : ", no CPUs";
  }
  if (about.kernel_tier != kNoKernelTier) {
    line += "; memory_tier" + std::to_string(about.kernel_tier);
  }
  if (about.access.has_latency()) {
    line += "; " + std::to_string(about.access.read_latency_ns) + " ns";
    if (about.access.has_bandwidth()) {
      line += ", " + std::to_string(about.access.read_bandwidth_mbs) + " MB/s";
    }
  }
  if (const NodeSet next = ranking.next[node]; !next.empty()) {
    line += "; next " + nodes_text(next);
    const unsigned distance = topology.distance[node][*next.begin()];
    if (distance != 0) line += " at distance " + std::to_string(distance);
  }
  return line;
}

nlohmann::ordered_json list_json(NodeSet nodes) {
  auto list = nlohmann::ordered_json::array();
  for (const unsigned node : nodes) list.push_back(node);
  return list;
}

nlohmann::ordered_json node_json(const Topology& topology, const Ranking& ranking, unsigned node) {
  const MemoryNode& about = topology.nodes[node];
  nlohmann::ordered_json json = {{"node", node},
                                 {"memory", topology.memory.contains(node)},
                                 {"allowed", topology.allowed.contains(node)},
                                 {"cpus", about.cpus},
                                 {"capacity_bytes", about.capacity_bytes},
                                 {"free_bytes", about.free_bytes},
                                 {"nvdimm", about.nvdimm}};
  if (const std::uint32_t tier = ranking.tier_of(node); tier < ranking.count) json["tier"] = tier;
  if (about.kernel_tier != kNoKernelTier) json["kernel_tier"] = about.kernel_tier;
  if (about.access.has_latency()) {
    json["read_latency_ns"] = about.access.read_latency_ns;
    json["write_latency_ns"] = about.access.write_latency_ns;
  }
  if (about.access.has_bandwidth()) {
    json["read_bandwidth_mbs"] = about.access.read_bandwidth_mbs;
    json["write_bandwidth_mbs"] = about.access.write_bandwidth_mbs;
  }
  auto distances = nlohmann::ordered_json::object();
  for (const unsigned other : topology.online) {
    if (topology.distance[node][other] != 0) {
      distances[std::to_string(other)] = topology.distance[node][other];
    }
  }
  if (!distances.empty()) json["distances"] = distances;
  json["next"] = list_json(ranking.next[node]);
  return json;
}

}  // namespace

std::string size_text(std::uint64_t bytes) {
  if (bytes >= std::uint64_t{10} << 30) return std::to_string(bytes >> 30) + " GiB";
  return std::to_string(bytes >> 20) + " MiB";
}

std::string nodes_text(NodeSet nodes) {
  if (nodes.empty()) return "no node";
  return (nodes.count() == 1 ? "node " : "nodes ") + list_text(nodes);
}

std::string tiers_text(const Topology& topology, const Ranking& ranking) {
  if (ranking.count == 0) return {};
  std::string text = "Tiers of memory nodes, fastest first (free: above the watermarks)\n";
  for (std::uint32_t i = 0; i < ranking.count; ++i) {
    const RankedTier& tier = ranking.tiers[i];
    char head[32];
    std::snprintf(head, sizeof head, "  %-4s ", to_string(tier.kind));
    text += head + nodes_text(tier.nodes) + ": " + tier_amounts(topology, tier) + "; " +
            to_string(tier.reason) + "\n";
    for (const unsigned node : tier.nodes) {
      text += "       " + node_line(topology, ranking, node) + "\n";
    }
  }
  NodeSet ranked;
  for (std::uint32_t i = 0; i < ranking.count; ++i) ranked = ranked | ranking.tiers[i].nodes;
  const auto left_out = [&](NodeSet nodes, const char* why) {
    if (!nodes.empty()) text += "  left out: " + nodes_text(nodes) + ", " + why + "\n";
  };
  left_out(topology.memory - topology.allowed, "outside of this process' cpuset");
  left_out(topology.usable() - ranked, "in no tier of HEAPTIER_TIERS");
  left_out(topology.online - topology.memory, "without memory");
  if (topology.nodes_beyond != 0) {
    text += "  left out: " + std::to_string(topology.nodes_beyond) + " more, numbered " +
            std::to_string(kMaxNodes) + " or higher\n";
  }
  if (ranking.merged != 0) {
    text += "  " + std::to_string(ranking.merged) + " more tiers are counted to the last one\n";
  }
  return text;
}

std::string weights_text(const ChosenWeights& chosen) {
  if (chosen.weights.nodes().count() < 2) return {};
  char list[512];
  TextWriter writer(list, sizeof list);
  config::write_weights(chosen.weights, writer);
  (void)writer.finish();
  return std::string("  --policy interleave: weights ") + list + " (" + to_string(chosen.reason) +
         ")\n";
}

void add_weights(const ChosenWeights& chosen, nlohmann::ordered_json* json) {
  auto weights = nlohmann::ordered_json::object();
  for (const unsigned node : chosen.weights.nodes()) {
    weights[std::to_string(node)] = chosen.weights.of[node];
  }
  (*json)["interleave"] = {{"weights", weights}, {"reason", to_string(chosen.reason)}};
}

void add_tiers(const Topology& topology, const Ranking& ranking, nlohmann::ordered_json* json) {
  auto tiers = nlohmann::ordered_json::array();
  for (std::uint32_t i = 0; i < ranking.count; ++i) {
    const RankedTier& tier = ranking.tiers[i];
    tiers.push_back({{"kind", to_string(tier.kind)},
                     {"nodes", list_json(tier.nodes)},
                     {"capacity_bytes", tier.capacity_bytes},
                     {"free_bytes", tier.free_bytes},
                     {"reason", to_string(tier.reason)}});
  }
  (*json)["tiers"] = tiers;
  auto nodes = nlohmann::ordered_json::array();
  // Not those that are only possible: some hypervisors announce a thousand.
  for (const unsigned node : topology.online) {
    nodes.push_back(node_json(topology, ranking, node));
  }
  (*json)["nodes"] = nodes;
  (*json)["nodes_beyond"] = topology.nodes_beyond;
}

}  // namespace heaptier::cli
