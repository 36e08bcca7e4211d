// The part of the kernel's door that knows memory nodes, as an interface of its own: machines with
// one node never come here, and fakes of either half stay small. The real one is
// runtime/os/kernel_nodes.cc.
//
// Thread rule: every method may be called from any thread at the same time. None allocates from any
// heap, none keeps a lock. Addresses and lengths are page aligned unless said otherwise. Nodes are
// numbered as the kernel numbers them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/base/errno.h"
#include "runtime/base/node_set.h"
#include "runtime/base/units.h"

namespace heaptier {

// What a node has to give, in pages, at one moment. Every zone counts by what it would still hand
// out to movable user memory above its *high* watermark: below that, kswapd works on the target,
// which reclaims or demotes what the application has there.
struct NodeRoom {
  std::uint64_t free_pages = 0;
  std::uint64_t pages = 0;        // of these, for the taking
  std::uint64_t huge_blocks = 0;  // free 2 MiB blocks that can be taken whole within `pages`
  friend bool operator==(const NodeRoom&, const NodeRoom&) = default;
};

// mbind(2)'s modes by their numbers in the kernel's interface.
enum class PolicyMode : std::uint8_t {
  kDefault = 0,
  kPreferred = 1,
  kBind = 2,
  kInterleave = 3,
  kLocal = 4,
  kPreferredMany = 5,  // Linux 5.15
  kWeightedInterleave =
      6,  // Linux 6.9; the weights are the machine's, under /sys/kernel/mm/mempolicy
};

// One memory policy, of a mapping or of a thread.
struct NodePolicy {
  PolicyMode mode = PolicyMode::kDefault;
  std::uint16_t flags = 0;  // MPOL_F_STATIC_NODES and the like, as the kernel numbers them
  std::uint64_t nodes = 0;  // bit n: node n; nodes from 64 on are not told
  friend bool operator==(const NodePolicy&, const NodePolicy&) = default;
};

// What the kernel leaves in a status slot that it did not get to: nothing. So each slot is set to
// this first, which is neither a node nor an errno.
inline constexpr int kStatusUnwritten = -0x7fff;

class NodeOps {
 public:
  // move_pages(2) on this process with MPOL_MF_MOVE. status[i]: the node where page i now is, or
  // -errno; or as it was, for the first page that could not be moved, those queued with it and all
  // after it: the kernel gives up there, and *unmoved (also on success) says for how many. Some of
  // the unwritten may have moved. An address within a huge page stands for the whole of it.
  // On failure (ENODEV: no such node; EACCES: not in the cpuset; ENOMEM: no room there; ENOSYS,
  // EPERM: not on this host) some pages may have moved, too. Addresses need no alignment.
  virtual Errno move_pages(const std::uintptr_t* pages, const int* nodes, int* status,
                           std::size_t count, std::size_t* unmoved) = 0;
  // The same call's question: status[i] is the node of page i; -ENOENT: absent, or under
  // migration by the kernel itself; -EFAULT: nothing is mapped there, or the zero page is (Linux
  // 6.1: absent ones, too).
  virtual Errno where(const std::uintptr_t* pages, int* status, std::size_t count) = 0;
  // mbind(2): where the range's pages come from, from now on. `move`: present ones follow, as far
  // as they can; nothing tells which. Every differing neighbour costs a VMA, of which a process
  // has some 65,000: for placing pageblocks one by one there is move_pages.
  // EINVAL: a node that is none, or a mode that this kernel lacks (KernelNodes::find_abilities).
  // EFAULT: a hole.
  virtual Errno set_policy(std::uintptr_t at, std::size_t bytes, const NodePolicy& policy,
                           bool move) = 0;
  // get_mempolicy(2) of the mapping at `at`: what the application asked for by mbind. kDefault
  // where it did not, whatever its threads' policies say. EFAULT: nothing is mapped there.
  virtual Errno policy_at(std::uintptr_t at, NodePolicy* out) = 0;
  // What the calling thread asked for by set_mempolicy, numactl included; kDefault: nothing.
  virtual Errno policy_of_this_thread(NodePolicy* out) = 0;
  // Where the cpuset lets the calling thread have memory at this moment; all nodes where the kernel
  // does not tell.
  virtual NodeSet allowed_nodes() = 0;
  // ENODEV: no such node, or it has no memory. ENOTSUP: /proc does not tell.
  virtual Errno room(unsigned node, NodeRoom* out) = 0;
  // Lets the kernel compact the node's free memory into blocks, synchronously: 10 to 100 ms.
  // EACCES: root only. That it went through does not say that a block was made: ask room().
  virtual Errno compact(unsigned node) = 0;
  // The node whose CPU runs the calling thread at this moment.
  virtual unsigned node_here() = 0;
  virtual Nanos now() = 0;
  // Sleeps.
  virtual void pause(Nanos length) = 0;

 protected:
  ~NodeOps() = default;
};

}  // namespace heaptier
