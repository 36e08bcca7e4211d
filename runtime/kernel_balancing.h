// The kernel's NUMA balancing (kernel.numa_balancing, which machines with several nodes have turned
// on) takes access from pages of all programs now and then, and moves those that are touched twice
// to the node of who touches them. In a chain of tiers it brings up what has just gone down for
// those that are used more. It leaves alone what has a memory policy without MPOL_F_MOF
// (vma_policy_mof() in mm/mempolicy.c, asked by task_numa_work() in kernel/sched/fair.c); so the
// heap is given MPOL_LOCAL, which places new memory exactly as the kernel does without a policy.
//
// But for what threads ask for by set_mempolicy: that does not count in a mapping with a policy.
// For a program that does so the policy is lifted, for good.
//
// Set once, when the engine wakes: mappings made of the heap's reservation later have it, too. What
// was reserved later (under RLIMIT_AS) has not.
#pragma once

#include <atomic>
#include <cstdint>

#include "runtime/base/file_tree.h"
#include "runtime/base/ports.h"
#include "runtime/heap_policy.h"
#include "runtime/loop_host.h"
#include "runtime/sandbox_watch.h"

namespace heaptier {

class KernelBalancing {
 public:
  KernelBalancing(FileTree& files, HeapPolicy& policy) : files_(files), policy_(policy) {}

  // While the engine wakes, with a chain of several tiers of nodes: keeps it off `heap` if it is
  // on.
  void keep_off(const TierChain& chain, AddressRange heap);
  // Whether the heap has the policy. Any thread.
  bool kept_off() const { return kept_off_.load(std::memory_order_acquire) != 0; }
  // The background thread's. What fails is tried again by the next call, a second later.
  void lift(Nanos now, LoopHost& host);
  // Any thread: returns when it was lifted, at most so long later.
  void await_lifted(Nanos longest);

 private:
  FileTree& files_;
  HeapPolicy& policy_;
  SandboxWatch sandbox_;
  AddressRange heap_{};
  Nanos next_{};
  std::atomic<std::uint32_t> kept_off_{0};  // futex
};

}  // namespace heaptier
