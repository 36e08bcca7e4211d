// The memory nodes of the machine as the kernel describes them, and what this process may use of
// them. Facts only: what is fast and what is slow is ranking.h's to say.
//
// Thread rule: a Topology belongs to its owner. It has some 12 KiB: in bootstrap memory or static,
// not on a stack of unknown size.
#pragma once

#include <cstdint>

#include "runtime/base/file_tree.h"
#include "runtime/base/node_set.h"

namespace heaptier {

// What the firmware's table of memory attributes (HMAT) says of a node, seen from the initiators
// (CPUs) nearest to it. 0: not said.
struct AccessFigures {
  std::uint32_t read_latency_ns = 0;
  std::uint32_t write_latency_ns = 0;
  std::uint32_t read_bandwidth_mbs = 0;  // MB/s
  std::uint32_t write_bandwidth_mbs = 0;
  NodeSet initiators;  // the nodes those CPUs are on

  bool has_latency() const { return read_latency_ns != 0 && write_latency_ns != 0; }
  bool has_bandwidth() const { return read_bandwidth_mbs != 0 && write_bandwidth_mbs != 0; }
};

inline constexpr std::uint32_t kNoKernelTier = UINT32_MAX;

struct MemoryNode {
  std::uint64_t capacity_bytes = 0;
  // NodeRoom::pages when this was read: what the node had to give before the kernel starts to
  // reclaim there. What it has at this moment is NodeOps::room()'s to say.
  std::uint64_t free_bytes = 0;
  std::uint32_t cpus = 0;  // online
  // The N of memory_tierN; lower is faster. kNoKernelTier: the kernel does not say.
  std::uint32_t kernel_tier = kNoKernelTier;
  AccessFigures access;
  bool nvdimm = false;  // memory of an NVDIMM that the kmem driver made a node of
};

inline constexpr unsigned kMaxCpus = 4096;
inline constexpr std::uint8_t kNoNode = 0xff;

struct Topology {
  NodeSet possible;  // with those that are offline
  NodeSet online;
  NodeSet memory;   // online and with memory
  NodeSet cpus;     // online and with CPUs
  NodeSet allowed;  // by the process' cpuset
  // Nodes numbered kMaxNodes or more, which are left alone.
  std::uint32_t nodes_beyond = 0;
  // The kernel has node files; without them everything is one node 0.
  bool numa = false;

  MemoryNode nodes[kMaxNodes];
  // As firmware counts it: 10 is the node itself. 0: not known.
  std::uint8_t distance[kMaxNodes][kMaxNodes] = {};
  std::uint8_t node_of_cpu[kMaxCpus];  // kNoNode: offline, or no such CPU
  std::uint64_t allowed_cpus[kMaxCpus / 64] = {};

  // Where this process' memory may be.
  NodeSet usable() const { return memory & allowed; }
  bool cpu_allowed(unsigned cpu) const {
    return cpu < kMaxCpus && (allowed_cpus[cpu / 64] >> (cpu % 64) & 1) != 0;
  }
};

// Fills *out with what the tree says. What is missing, unreadable or nonsense there counts as not
// said, so this cannot fail: the least there is is one node with the machine's memory.
void read_topology(FileTree& files, Topology* out);

// The same, too large for a stack (some 12 KiB), in memory of its own for as long as this lives.
class TopologyNow {
 public:
  explicit TopologyNow(FileTree& files);
  ~TopologyNow();
  TopologyNow(const TopologyNow&) = delete;
  TopologyNow& operator=(const TopologyNow&) = delete;
  // False: there was no memory for it, and nothing may be asked of it.
  explicit operator bool() const { return topology_ != nullptr; }
  const Topology& operator*() const { return *topology_; }
  const Topology* operator->() const { return topology_; }

 private:
  Topology* topology_;
};

}  // namespace heaptier
