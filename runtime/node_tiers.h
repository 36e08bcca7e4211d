// The chain's memory nodes while the engine is awake: which node is of which tier, how much room
// each has, and who moves pages.
//
// Thread rule: init() before anything else; clock(), ops() and what was ranked from any thread; the
// rooms and the mover by the background thread alone. Nothing here allocates after init(), touches
// managed memory or waits.
#pragma once

#include <atomic>
#include <cstdint>

#include "runtime/base/file_tree.h"
#include "runtime/base/node_ops.h"
#include "runtime/config/options.h"
#include "runtime/tiers/node_mover.h"
#include "runtime/topology/ranking.h"
#include "runtime/topology/topology.h"

namespace heaptier {

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
  // What a fault costs the application; 0: not known yet.
  Nanos cost() const { return {cost_.load(std::memory_order_relaxed)}; }

 private:
  std::atomic<std::uint32_t> faults_{0};
  std::atomic<std::int64_t> last_{0};
  std::atomic<std::int64_t> cost_{0};
};

// Of the nodes that fit the one with the most room, -1: none does. `rooms`: by node.
template <class Fits>
int roomiest(NodeSet nodes, const NodeRoom* rooms, Fits fits) {
  int best = -1;
  for (const unsigned node : nodes) {
    if (!fits(node)) continue;
    if (best < 0 || rooms[node].pages > rooms[static_cast<unsigned>(best)].pages) {
      best = static_cast<int>(node);
    }
  }
  return best;
}

class NodeTiers {
 public:
  constexpr NodeTiers() = default;

  // Ranks the nodes that the chain names. ENOMEM. kOk and not active(): there is one node,
  // or one tier of them and a store (tiering_loop.h), or the application has a memory policy of its
  // own (set_mempolicy, numactl) that says where its memory is to be: there is nothing to do here.
  Errno init(NodeOps& ops, FileTree& files, const TierChain& chain);
  bool active() const { return ranking_ != nullptr; }
  // Why it is not active although the chain names several tiers of nodes. Null: it is, or there is
  // no reason but the chain.
  const char* why_not() const { return why_not_; }
  // Whether the application has asked by mbind for a place of its own for what lies there.
  bool bound(std::uintptr_t at) const;
  unsigned count() const { return ranking_ == nullptr ? 0 : ranking_->count; }
  const RankedTier& tier(unsigned t) const { return ranking_->tiers[t]; }
  // count(): of no tier, or no node but an errno.
  unsigned tier_of(int node) const;

  // Nodes that are being vacated: from now on they have no room. The background thread's.
  void close(NodeSet nodes) {
    closed_ = nodes;
    look();
  }

  // Sees how much room there is, and which nodes may be used at all: cpusets change, and memory
  // goes offline and comes back.
  void look();
  std::uint64_t room_pages(unsigned t) const { return room_[t]; }
  // Of the tier's nodes that may be used; at most what the chain gives the tier.
  std::uint64_t capacity_pages(unsigned t) const { return capacity_[t]; }
  // Of the chain: outside of the cpuset at this moment, or without memory.
  NodeSet forbidden() const { return forbidden_; }
  NodeSet offline() const { return offline_; }
  // How often a node could not be used any more. Any thread.
  std::uint64_t lost() const { return lost_.load(std::memory_order_relaxed); }

  // The node of tier `t` where pages that are on `from` go, or are to be near: one that has room,
  // `from` itself or the nearest first. -1: none has.
  int target(unsigned t, int from, bool huge) const;

  // Whether `pages` fit on this very node: where no other one would do.
  bool has_room(unsigned node, std::uint64_t pages, bool huge) const {
    const NodeRoom& room = rooms_[node];
    return !closed_.contains(node) && room.pages >= pages && (!huge || room.huge_blocks > 0);
  }
  // Nodes of the first tier beside CPUs that this process may run on.
  NodeSet sockets() const { return sockets_; }
  // Of a CPU; -1 or one that is not known: of the calling thread's. Any thread.
  unsigned node_of_cpu(int cpu) const;

  // The background thread's.
  NodeMover& own_mover() { return *own_; }
  NodeOps& ops() { return *ops_; }
  WatchClock& clock() { return clock_; }

 private:
  Errno make_mover();
  void find_sockets(const Topology& topology);
  void note_unusable(NodeSet forbidden, NodeSet offline);
  template <class Fits>
  int nearest(unsigned t, int from, Fits fits) const;

  NodeOps* ops_ = nullptr;
  Ranking* ranking_ = nullptr;
  NodeMover* own_ = nullptr;
  const char* why_not_ = nullptr;
  WatchClock clock_;
  std::uint64_t room_[kMaxTiers] = {};
  std::uint64_t capacity_[kMaxTiers] = {};
  std::uint64_t node_pages_[kMaxNodes] = {};  // what each had at start
  NodeRoom rooms_[kMaxNodes] = {};
  NodeSet sockets_;
  std::uint8_t* node_of_cpu_ = nullptr;  // kMaxCpus
  NodeSet closed_;                       // the background thread's
  NodeSet forbidden_;
  NodeSet offline_;
  std::atomic<std::uint64_t> lost_{0};
};

}  // namespace heaptier
