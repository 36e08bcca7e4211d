// The real NodeOps: move_pages, mbind, get_mempolicy, and what /proc tells of free memory.
#pragma once

#include <atomic>
#include <cstdint>

#include "runtime/base/node_ops.h"
#include "runtime/base/node_set.h"
#include "runtime/base/zone_info.h"

namespace heaptier {

// What the running kernel can do with nodes, found out by trying.
struct NodeAbilities {
  bool move_pages = false;           // not filtered by seccomp, kernel built with NUMA
  bool preferred_many = false;       // Linux 5.15
  bool weighted_interleave = false;  // Linux 6.9
};

class KernelNodes final : public NodeOps {
 public:
  constexpr KernelNodes() = default;

  // Tries each on a page of its own; some microseconds.
  NodeAbilities find_abilities();

  Errno move_pages(const std::uintptr_t* pages, const int* nodes, int* status, std::size_t count,
                   std::size_t* unmoved) override;
  Errno where(const std::uintptr_t* pages, int* status, std::size_t count) override;
  Errno set_policy(std::uintptr_t at, std::size_t bytes, const NodePolicy& policy,
                   bool move) override;
  Errno policy_at(std::uintptr_t at, NodePolicy* out) override;
  Errno policy_of_this_thread(NodePolicy* out) override;
  NodeSet allowed_nodes() override;
  Errno room(unsigned node, NodeRoom* out) override;
  Errno compact(unsigned node) override;
  unsigned node_here() override;
  Nanos now() override;
  void pause(Nanos length) override;

 private:
  // /proc/zoneinfo grows with CPUs times nodes and takes milliseconds on large machines;
  // /proc/buddyinfo is a line a zone. So what changes rarely (the watermarks) is kept.
  bool reserves_are_old();
  Errno read_reserves();
  std::uint64_t reserve_of(const NodeZone& zone) const;

  // Each value is right by itself, so readers and writers need not agree on more.
  std::atomic<std::int64_t> reserves_read_{0};  // Nanos of now(), 0: never
  std::atomic<std::uint64_t> reserves_[kMaxNodes][kZoneNames]{};
};

KernelNodes& kernel_node_ops();

}  // namespace heaptier
