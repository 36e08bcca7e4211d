// Where the kernel takes new memory of the heap from, while that is for heaptier to say: a memory
// policy on the heap's own mappings. What the application has bound there by mbind stays as it is.
//
// Three may want something of it. Interleaving wants new memory in its place from the first touch
// on, as far as the kernel can; whoever vacates nodes wants it to stay off them, and has the last
// word; a chain wants there to be one at all (kernel_balancing.h). None: the heap has no policy.
// Never MPOL_BIND: with every other node full, memory from a node that is not wanted is right, and
// the kernel's killer is not. What threads have asked for by set_mempolicy does not count there
// meanwhile.
//
// Thread rule: one thread. Reads /proc/self/maps, with one line of it in memory at a time.
#pragma once

#include "runtime/base/file_tree.h"
#include "runtime/base/node_ops.h"
#include "runtime/base/node_set.h"
#include "runtime/base/ports.h"
#include "runtime/loop_host.h"

namespace heaptier {

// MPOL_F_STATIC_NODES: programs that ask for these modes by mbind do without, so the two together
// say that a policy is ours.
inline constexpr std::uint16_t kHeapPolicyFlags = 1 << 15;

constexpr bool is_heap_policy(const NodePolicy& policy) {
  return policy.flags == kHeapPolicyFlags &&
         (policy.mode == PolicyMode::kPreferredMany || policy.mode == PolicyMode::kInterleave ||
          policy.mode == PolicyMode::kWeightedInterleave);
}

// Of a mapping with this policy the kernel's own way decides (MPOL_DEFAULT, MPOL_LOCAL).
constexpr bool says_no_place(const NodePolicy& policy) {
  return policy.mode == PolicyMode::kDefault || policy.mode == PolicyMode::kLocal;
}
// Whether the application has asked by mbind for a place of its own for what lies at `at`.
bool bound_by_application(NodeOps& ops, std::uintptr_t at);
// Whether the calling thread has a policy by set_mempolicy (numactl) that says where memory is to
// be.
bool thread_has_policy(NodeOps& ops);

class HeapPolicy {
 public:
  HeapPolicy(FileTree& files, NodeOps& ops) : files_(files), ops_(ops) {}

  // New memory is to be interleaved over `nodes` by `mode` (kInterleave or kWeightedInterleave);
  // none: not any more.
  void interleave(NodeSet nodes, PolicyMode mode) {
    interleaved_ = nodes;
    mode_ = mode;
  }
  // New memory is to come from `nodes` only, as long as they have some; none: from all.
  void restrict_to(NodeSet nodes) { open_ = nodes; }

  // While nobody wants anything else of it the heap has MPOL_LOCAL: as without a policy, but it is
  // one.
  void keep_local(bool on) { local_ = on; }

  // Sets it on the mappings of `heap` that have another. To be called again now and then: what was
  // mapped since has no policy. The first failure, after all that could be done was.
  // `host`: is asked now and then, for as many mappings as take a millisecond.
  Errno apply(AddressRange heap, LoopHost* host = nullptr);

 private:
  NodePolicy wanted() const;

  FileTree& files_;
  NodeOps& ops_;
  NodeSet interleaved_;
  PolicyMode mode_ = PolicyMode::kInterleave;
  NodeSet open_;
  bool local_ = false;
  bool placed_ = false;  // somebody has had a place in it: policies that look so are ours
};

}  // namespace heaptier
