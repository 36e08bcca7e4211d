// Where the kernel takes new memory of the heap from while some nodes are being vacated: a memory
// policy on the heap's own mappings. What the application has bound there by mbind stays as it is.
//
// MPOL_PREFERRED_MANY and not MPOL_BIND: with every other node full, memory from a node that is
// being vacated is right, and the kernel's killer is not. What threads have asked for by
// set_mempolicy does not count there meanwhile.
//
// Thread rule: one thread. Reads /proc/self/maps, with one line of it in memory at a time.
#pragma once

#include "runtime/base/file_tree.h"
#include "runtime/base/node_ops.h"
#include "runtime/base/node_set.h"
#include "runtime/base/ports.h"
#include "runtime/loop_host.h"

namespace heaptier {

// MPOL_F_STATIC_NODES: programs that ask for PREFERRED_MANY do without, so the two together say
// that a policy is ours.
inline constexpr std::uint16_t kHeapPolicyFlags = 1 << 15;

constexpr bool is_heap_policy(const NodePolicy& policy) {
  return policy.mode == PolicyMode::kPreferredMany && policy.flags == kHeapPolicyFlags;
}

// New memory of the range comes from `nodes` as long as they have some; none: from where it came
// before anybody asked. To be called again now and then: what was mapped since has no policy. The
// first failure, after all that could be done was.
// `host`: is asked now and then, for as many mappings as take a millisecond.
Errno set_heap_policy(FileTree& files, NodeOps& ops, AddressRange range, NodeSet nodes,
                      LoopHost* host = nullptr);

}  // namespace heaptier
