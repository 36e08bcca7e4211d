// Machines as their kernels would describe them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/topology/ranking.h"
#include "runtime/topology/topology.h"
#include "tests/fakes/fake_file_tree.h"

namespace heaptier {

inline const std::string kNodes = "/sys/devices/system/node/";
inline const std::string kTiers = "/sys/devices/virtual/memory_tiering/memory_tier";
inline const std::string kDax = "/sys/bus/dax/devices/";

struct NodeFacts {
  unsigned number;
  std::string cpus;  // "0-3"; empty: none
  unsigned mib;
  std::string distances;
};

// One zone a node, as in /proc/zoneinfo, with what surrounds the lines that count.
inline std::string zone(unsigned node, const char* name, unsigned free, unsigned high,
                        unsigned reserve) {
  const auto number = [](unsigned n) { return std::to_string(n); };
  return "Node " + number(node) + ", zone " + name +
         "\n  per-node stats\n      nr_free_cma  0\n  pages free     " + number(free) +
         "\n        boost    0\n        min      1\n        low      2\n        high     " +
         number(high) + "\n        promo    9\n        protection: (0, " + number(reserve) + ", " +
         number(reserve) +
         ")\n      nr_free_pages 77\n  pagesets\n    cpu: 0\n              count: 3\n"
         "              high:  5000\n";
}

// /proc and the node files of a kernel without memory tiers and HMAT.
inline FakeFileTree machine(const std::vector<NodeFacts>& nodes, const std::string& online,
                            const std::string& has_memory, const std::string& has_cpu,
                            const std::string& allowed = "0-63") {
  FakeFileTree tree;
  tree.files[kNodes + "online"] = online + "\n";
  tree.files[kNodes + "possible"] = online + "\n";
  tree.files[kNodes + "has_memory"] = has_memory + "\n";
  tree.files[kNodes + "has_cpu"] = has_cpu + "\n";
  std::string zones;
  for (const NodeFacts& node : nodes) {
    const std::string number = std::to_string(node.number);
    const std::string folder = kNodes + "node" + number;
    tree.files[folder + "/cpulist"] = node.cpus + "\n";
    tree.files[folder + "/distance"] = node.distances + "\n";
    tree.files[folder + "/meminfo"] = "Node " + number +
                                      " MemTotal:  " + std::to_string(node.mib * 1024) +
                                      " kB\nNode " + number + " MemFree:  1 kB\n";
    // A quarter of the memory is free, 16 pages of it below the high watermark.
    zones += zone(node.number, " Normal", node.mib * 64 + 16, 16, 0);
  }
  tree.files["/proc/zoneinfo"] = zones;
  tree.files["/proc/self/status"] =
      "Name:\tx\nCpus_allowed:\tffff\nCpus_allowed_list:\t0-3,8\nMems_allowed:\tff\n"
      "Mems_allowed_list:\t" +
      allowed + "\n";
  return tree;
}

inline void hmat(FakeFileTree* tree, unsigned node, unsigned latency, unsigned bandwidth,
                 const std::string& access = "access1", unsigned initiator = 0) {
  const std::string at = kNodes + "node" + std::to_string(node) + "/" + access + "/initiators/";
  for (const char* way : {"read", "write"}) {
    tree->files[at + way + "_latency"] = std::to_string(latency) + "\n";
    if (bandwidth != 0) {
      tree->files[at + way + "_bandwidth"] = std::to_string(bandwidth) + "\n";
    }
  }
  tree->links[at + "node" + std::to_string(initiator)] = "../../../node0";
}

inline void dax(FakeFileTree* tree, const std::string& name, const std::string& bus, unsigned node,
                const std::string& driver = "kmem") {
  tree->files[kDax + name + "/target_node"] = std::to_string(node) + "\n";
  tree->links[kDax + name] = "../../../devices/" + bus + "/" + name;
  tree->links[kDax + name + "/driver"] = "../../../../bus/dax/drivers/" + driver;
}

// Two sockets, a CXL expander on socket 0, and an NVDIMM made a node: what tests/vm boots.
inline FakeFileTree four_nodes() {
  return machine({{0, "0-1", 1024, "10 21 24 38"},
                  {1, "2-3", 512, "21 10 24 38"},
                  {2, "", 512, "24 24 10 38"},
                  {3, "", 384, "38 38 38 10"}},
                 "0-3", "0-3", "0-1");
}
inline FakeFileTree four_nodes_with_hmat() {
  FakeFileTree tree = four_nodes();
  hmat(&tree, 0, 100, 204800);
  hmat(&tree, 1, 100, 204800, "access1", 1);
  hmat(&tree, 2, 300, 40960);
  hmat(&tree, 3, 500, 20480);
  dax(&tree, "dax0.0", "LNXSYSTM:00/ACPI0012:00/ndbus0/region0/dax0.0", 3);
  return tree;
}
inline void kernel_tiers(FakeFileTree* tree) {
  tree->files[kTiers + "4/nodelist"] = "0-1\n";
  tree->files[kTiers + "67/nodelist"] = "2\n";
  tree->files[kTiers + "225/nodelist"] = "3\n";
}

inline std::unique_ptr<Topology> topology_of(FakeFileTree tree) {
  auto topology = std::make_unique<Topology>();
  read_topology(tree, topology.get());
  return topology;
}

inline std::string text_of(NodeSet nodes) {
  std::string text;
  for (const unsigned node : nodes) text += (text.empty() ? "" : ",") + std::to_string(node);
  return text;
}

// "dram 0,1 > cxl 2 > pmem 3"
inline std::string picture(const Ranking& ranking) {
  std::string text;
  for (std::uint32_t i = 0; i < ranking.count; ++i) {
    text += (i == 0 ? "" : " > ") + std::string(to_string(ranking.tiers[i].kind)) + " " +
            text_of(ranking.tiers[i].nodes);
  }
  return text;
}

}  // namespace heaptier
