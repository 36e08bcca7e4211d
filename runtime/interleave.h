// Weighted interleaving: pages lie on the nodes that their addresses give them (policies/
// interleave.h), those that were there before as well as those that come later. All of the heap
// where the option POLICY says so, else the pageblocks that the application has asked for
// (heaptier_advise).
//
// What the kernel has put elsewhere is moved, page by page to exactly its node, huge pages whole
// and never taken apart; looked at again and again, since memory comes and goes. New memory of a
// heap that is interleaved as a whole has a policy of the kernel's: with equal weights, or with
// those that the kernel itself has, it is in its place from the first touch on. Nodes that are
// being vacated, that the cpuset does not allow any more or that have gone offline are left out,
// and the pattern is that of the others meanwhile.
//
// Thread rule: the background thread, but for read(); begin() also before that is started. Moving
// needs no lock and no page's ownership: faults, drops and forks go on, and a page that they take
// is looked for again.
#pragma once

#include <atomic>
#include <cstdint>

#include "policies/interleave.h"
#include "runtime/base/file_tree.h"
#include "runtime/base/node_ops.h"
#include "runtime/config/options.h"
#include "runtime/core.h"
#include "runtime/drain.h"
#include "runtime/heap_policy.h"
#include "runtime/loop_host.h"
#include "runtime/migration.h"
#include "runtime/sandbox_watch.h"
#include "runtime/stays.h"
#include "runtime/topology/weights.h"

namespace heaptier {

struct InterleaveReport {
  bool on = false;
  NodeWeights weights;  // of the nodes that may be used at this moment
  WeightReason reason = WeightReason::kEqual;
  bool settled = false;  // all was looked at, and what could go has gone
  std::uint64_t moved = 0;
  // Pages, by the last look at all.
  std::uint64_t in_place = 0;
  LeftPages left;
  std::uint64_t left_in_all() const { return left.all(); }
};

class Interleave {
 public:
  Interleave(Core& core, Migration& migration, LoopHost& host, NodeOps& ops, FileTree& files,
             HeapPolicy& policy, const Drain& drain, const Options& options)
      : core_(core),
        migration_(migration),
        host_(host),
        ops_(ops),
        files_(files),
        policy_(policy),
        drain_(drain),
        options_(options) {}

  // Gets ready, and begins where the option POLICY asks for it. ENOTSUP: not on this host, or not
  // in this process; why_not() says so in words. ENOMEM.
  Errno begin();
  const char* why_not() const { return why_not_; }
  // All of the heap, now.
  bool whole() const { return active_ && asked_for_all(); }

  // The pageblocks that these pages are in are interleaved from now on, until
  // Pageblock::interleaved is taken back or nothing of them is in use. Returns how many of their
  // pages are not in their place afterwards, or -errno as begin().
  int spread(PageIndex first, std::uint32_t pages);
  // Nothing any more; everything stays where it is.
  void stop();

  // A bounded part of the work, if some is due.
  void step(Nanos now);
  // How long until then, at most `longest`.
  Nanos until_step(Nanos now, Nanos longest) const;
  InterleaveReport report() const;
  // Its part of the statistics; any thread.
  void read(StatsSnapshot* out) const;

 private:
  struct Parts;  // made when they are needed first
  struct Tally {
    std::uint64_t in_place = 0;
    std::uint64_t moved = 0;
    std::uint64_t raced = 0;
    std::uint64_t unserved = 0;  // pages of blocks that are not managed
    LeftPages left;
  };

  bool asked_for_all() const { return options_.policy.kind == PolicyKind::kInterleave; }
  Errno get_ready();
  bool usable(unsigned node) const;
  void use_open_nodes();
  void show();
  PolicyMode mode_for_new_memory() const;
  bool kernel_has_these_weights() const;
  void begin_pass();
  void end_pass(Nanos now);
  bool takes_part(BlockIndex b);
  void put_in_place(BlockIndex b, Tally* tally);
  void put_range(BlockIndex b, std::uintptr_t at, Tally* tally);

  Core& core_;
  Migration& migration_;
  LoopHost& host_;
  NodeOps& ops_;
  FileTree& files_;
  HeapPolicy& policy_;
  const Drain& drain_;
  const Options& options_;
  Parts* parts_ = nullptr;
  const char* why_not_ = nullptr;
  SandboxWatch sandbox_;
  ChosenWeights chosen_;
  NodeWeights now_;  // of the nodes that may be used
  InterleavePattern pattern_;
  bool active_ = false;
  bool some_ = false;  // of the pass: a block takes part
  bool in_pass_ = false;
  bool settled_ = false;
  std::uint32_t passes_ = 0;  // since the pattern changed
  std::uint32_t hand_ = 0;
  std::uint64_t moved_ = 0;
  Tally counting_;
  Tally counted_;
  Nanos pass_cost_{};
  Nanos next_{};
  // For read(). Of weights that change at this moment some may be the old ones.
  std::atomic<std::uint8_t> shown_weights_[kMaxNodes] = {};
  std::atomic<std::uint64_t> shown_in_place_{0};
  std::atomic<std::uint64_t> shown_left_{0};
};

}  // namespace heaptier
