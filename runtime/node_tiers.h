// The chain's memory nodes while the engine is awake: which node is of which tier, how much room
// each has, what the policy holds for worth promoting, and the movers of those who may move.
//
// Thread rule: init() before anything else; look() and set_*() by the background thread; the rest
// from any thread. Nothing here allocates after init(), touches managed memory or waits.
#pragma once

#include <atomic>
#include <cstdint>

#include "policies/gap.h"
#include "runtime/base/file_tree.h"
#include "runtime/base/node_ops.h"
#include "runtime/config/options.h"
#include "runtime/tiers/node_mover.h"
#include "runtime/topology/ranking.h"
#include "runtime/topology/topology.h"

namespace heaptier {

// NodeOps whose room() answers what the background thread has last seen, less what was promised
// since: asking the kernel means reading /proc, which is too slow for a fault.
class KnownRoom final : public NodeOps {
 public:
  constexpr KnownRoom() = default;
  void init(NodeOps& ops) { ops_ = &ops; }
  // What it is from now on.
  void see(unsigned node, const NodeRoom& room);
  // Promises room for one huge page. False: there is none.
  bool take(unsigned node);

  Errno move_pages(const std::uintptr_t* pages, const int* nodes, int* status, std::size_t count,
                   std::size_t* unmoved) override {
    return ops_->move_pages(pages, nodes, status, count, unmoved);
  }
  Errno where(const std::uintptr_t* pages, int* status, std::size_t count) override {
    return ops_->where(pages, status, count);
  }
  Errno set_policy(std::uintptr_t at, std::size_t bytes, const NodePolicy& policy,
                   bool move) override {
    return ops_->set_policy(at, bytes, policy, move);
  }
  Errno policy_at(std::uintptr_t at, NodePolicy* out) override { return ops_->policy_at(at, out); }
  Errno policy_of_this_thread(NodePolicy* out) override { return ops_->policy_of_this_thread(out); }
  Errno room(unsigned node, NodeRoom* out) override;
  Errno compact(unsigned node) override { return ops_->compact(node); }
  unsigned node_here() override { return ops_->node_here(); }
  Nanos now() override { return ops_->now(); }
  void pause(Nanos length) override { ops_->pause(length); }

 private:
  NodeOps* ops_ = nullptr;
  std::atomic<std::int64_t> pages_[kMaxNodes] = {};
  std::atomic<std::int64_t> huge_blocks_[kMaxNodes] = {};
};

// The time that the application had while blocks were watched. A hint fault stops it, and while it
// stands still the clocks of the others that are watched must not run on: of those that are touched
// all the time the last would seem cold. What a fault costs is seen from how soon one can follow
// another.
//
// Thread rule: any thread; figures that several faults at once blur are good enough.
class WatchClock {
 public:
  struct Mark {
    std::int64_t at = 0;  // ns
    std::uint32_t faults = 0;
  };
  Mark mark(Nanos now) const { return {now.v, faults_.load(std::memory_order_relaxed)}; }
  // At a hint fault: how long the block went untouched since `mark`.
  Nanos lap(Nanos now, const Mark& mark);

 private:
  std::atomic<std::uint32_t> faults_{0};
  std::atomic<std::int64_t> last_{0};
  std::atomic<std::int64_t> cost_{0};
};

class NodeTiers {
 public:
  constexpr NodeTiers() = default;

  // Ranks the nodes that the chain names. ENOMEM. kOk and not active(): there is one tier of nodes,
  // or the application has a memory policy of its own (set_mempolicy, numactl) that says where its
  // memory is to be: there is nothing to do here.
  Errno init(NodeOps& ops, FileTree& files, const TierChain& chain);
  bool active() const { return ranking_ != nullptr && ranking_->count > 1; }
  bool application_decides() const { return application_decides_; }
  // Whether the application has asked by mbind for a place of its own for what lies there.
  bool bound(std::uintptr_t at) const;
  unsigned count() const { return ranking_ == nullptr ? 0 : ranking_->count; }
  const RankedTier& tier(unsigned t) const { return ranking_->tiers[t]; }
  // count(): of no tier, or no node but an errno.
  unsigned tier_of(int node) const;

  // Sees how much room there is.
  void look();
  std::uint64_t room_pages(unsigned t) const { return room_[t].load(std::memory_order_relaxed); }

  // The node of tier `t` where pages that are on `from` go: one that has room, the nearest first.
  // -1: none has.
  int target(unsigned t, int from, bool huge) const;

  // A mover for a fault handler: one try, and the room that look() has seen. In bootstrap memory,
  // for ever. nullptr: out of memory.
  NodeMover* make_mover();
  NodeMover& own_mover() { return *own_; }
  NodeOps& ops() { return *ops_; }
  WatchClock& clock() { return clock_; }

  // What may come up. By the policy, at each tick.
  void set_promote_below(Gap gap) { promote_below_.store(gap, std::memory_order_relaxed); }
  Gap promote_below() const { return promote_below_.load(std::memory_order_relaxed); }
  // On a fault path, for a huge page that is worth it: the node of the first tier to take it to,
  // the toucher's own if it has room, which is then promised; -1: none has, which is noted as
  // wanted.
  int place_for_promotion();
  // Pages noted as wanted since the last call.
  std::uint64_t take_wanted() { return wanted_.exchange(0, std::memory_order_relaxed); }
  // So many pages may be promoted until the next call, less half of the reserve.
  void limit_promotions(std::uint64_t room_pages);
  // Pages of the first tier that are kept free.
  void set_reserve(std::uint64_t pages) { reserve_.store(pages, std::memory_order_relaxed); }

 private:
  bool take_room(unsigned node);

  NodeOps* ops_ = nullptr;
  Topology* topology_ = nullptr;
  Ranking* ranking_ = nullptr;
  NodeMover* own_ = nullptr;
  bool application_decides_ = false;
  KnownRoom known_;
  WatchClock clock_;
  std::atomic<std::uint64_t> room_[kMaxTiers] = {};
  NodeRoom rooms_[kMaxNodes] = {};  // the background thread's
  std::atomic<std::int64_t> promotable_{0};
  std::atomic<std::uint64_t> reserve_{0};
  std::atomic<std::uint64_t> wanted_{0};
  std::atomic<Gap> promote_below_{kUnknownGap};
};

}  // namespace heaptier
