// Vacating memory nodes while the application runs: what of the heap lies on a node that is to be
// left goes to the others, new memory stays off it, and what still appears there goes, too, until
// that is ended.
//
// All that the heap holds in the Space is moved, by what the kernel says of where it lies: managed
// or not, parked or at home, huge pages whole. A page stays only if the kernel cannot move it
// (pinned, shared with another process), if it fits nowhere, or if the application has bound it by
// mbind. The store's compressed memory and heaptier's own are no part of this.
//
// Thread rule: the background thread. Moving needs no lock and no page's ownership: faults, drops
// and forks go on, and a page that they take is looked for again in the next pass.
#pragma once

#include <cstdint>

#include "runtime/base/file_tree.h"
#include "runtime/base/node_ops.h"
#include "runtime/config/options.h"
#include "runtime/core.h"
#include "runtime/drain_targets.h"
#include "runtime/heap_policy.h"
#include "runtime/loop_host.h"
#include "runtime/migration.h"
#include "runtime/sandbox_watch.h"
#include "runtime/stays.h"
#include "runtime/tiers/node_mover.h"

namespace heaptier {

struct DrainReport {
  bool draining = false;
  // All was looked at since it began, and what could go has gone: what is left stays, until
  // something changes.
  bool settled = false;
  std::uint64_t moved = 0;  // pages, since it began
  LeftPages left;           // by the last look at all
  std::uint64_t left_in_all() const { return left.all(); }
};

class Drain {
 public:
  Drain(Core& core, Migration& migration, LoopHost& host, NodeOps& ops, FileTree& files,
        HeapPolicy& policy, const TierChain& chain)
      : core_(core),
        migration_(migration),
        host_(host),
        ops_(ops),
        files_(files),
        policy_(policy),
        chain_(chain) {}

  // Begins to vacate the node, or goes on. ENODEV: it is of no tier. EBUSY: no other node would be
  // left to go to. ENOTSUP: this host does not say where pages are. ENOMEM.
  Errno begin(unsigned node);
  // New memory may come from there again. ENODEV: it was not being vacated.
  Errno end(unsigned node);
  void end_all();
  DrainReport report(unsigned node) const;
  // The nodes that are being vacated, and those that the chain has. After begin().
  NodeSet closed() const { return closed_; }
  NodeSet chain_nodes() const;

  // A bounded part of the work, if some is due.
  void step(Nanos now);
  // How long until then, at most `longest`.
  Nanos until_step(Nanos now, Nanos longest) const;

 private:
  struct Parts;  // made when they are needed first
  enum class Choice : std::uint8_t { kGoes, kStays, kTooLarge };

  Errno get_ready();
  Errno use_targets(NodeSet closed);
  Errno set_policy(NodeSet nodes);
  void begin_pass();
  void end_pass(Nanos now);
  void vacate(BlockIndex b);
  bool vacate_range(BlockIndex b, std::uintptr_t at, bool may_split);
  void gather(std::uintptr_t at);
  Choice choose(BlockIndex b, bool parked, unsigned from, PageMove* move);
  bool take_apart(BlockIndex b);
  void settle(unsigned from, const PageMove& move, int status);
  void stays(unsigned node, Stays why, bool huge);

  Core& core_;
  Migration& migration_;
  LoopHost& host_;
  NodeOps& ops_;
  FileTree& files_;
  HeapPolicy& policy_;
  const TierChain& chain_;
  Parts* parts_ = nullptr;
  NodeSet closed_;
  std::uint32_t hand_ = 0;
  bool in_pass_ = false;
  SandboxWatch sandbox_;
  std::uint64_t moved_in_step_ = 0;
  std::uint64_t raced_in_pass_ = 0;
  Nanos pass_cost_{};
  Nanos next_{};
};

}  // namespace heaptier
