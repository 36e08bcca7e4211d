#include "runtime/node_tiers.h"

#include <algorithm>
#include <new>

#include "runtime/bootstrap_heap.h"

namespace heaptier {

void KnownRoom::see(unsigned node, const NodeRoom& room) {
  if (node >= kMaxNodes) return;
  pages_[node].store(static_cast<std::int64_t>(room.pages), std::memory_order_relaxed);
  huge_blocks_[node].store(static_cast<std::int64_t>(room.huge_blocks), std::memory_order_relaxed);
}

bool KnownRoom::take(unsigned node) {
  constexpr auto kPages = static_cast<std::int64_t>(kPagesPerBlock);
  if (pages_[node].fetch_sub(kPages, std::memory_order_relaxed) < kPages) {
    pages_[node].fetch_add(kPages, std::memory_order_relaxed);
    return false;
  }
  if (huge_blocks_[node].fetch_sub(1, std::memory_order_relaxed) < 1) {
    huge_blocks_[node].fetch_add(1, std::memory_order_relaxed);
    pages_[node].fetch_add(kPages, std::memory_order_relaxed);
    return false;
  }
  return true;
}

// What was promised to the asker is taken off already: it may have one more.
Errno KnownRoom::room(unsigned node, NodeRoom* out) {
  if (node >= kMaxNodes) return {ENODEV};
  const std::int64_t pages = pages_[node].load(std::memory_order_relaxed);
  const std::int64_t huge = huge_blocks_[node].load(std::memory_order_relaxed);
  out->pages = static_cast<std::uint64_t>(std::max<std::int64_t>(pages, 0)) + kPagesPerBlock;
  out->free_pages = out->pages;
  out->huge_blocks = static_cast<std::uint64_t>(std::max<std::int64_t>(huge, 0)) + 1;
  return kOk;
}

Nanos WatchClock::lap(Nanos now, const Mark& mark) {
  constexpr std::int64_t kForget =
      256;  // grows again by 1/256 at each fault: hosts get slower, too
  const std::int64_t since_last = now.v - last_.exchange(now.v, std::memory_order_relaxed);
  std::int64_t cost = cost_.load(std::memory_order_relaxed);
  cost = cost == 0 ? since_last : std::min(since_last, cost + cost / kForget + 1);
  cost_.store(cost, std::memory_order_relaxed);
  // Of those since, and of this one.
  const std::uint32_t faults = faults_.fetch_add(1, std::memory_order_relaxed) + 1 - mark.faults;
  return {std::max<std::int64_t>(now.v - mark.at - static_cast<std::int64_t>(faults) * cost, 0)};
}

Errno NodeTiers::init(NodeOps& ops, FileTree& files, const TierChain& chain) {
  if (!chain.names_nodes()) return kOk;
  NodePolicy own;
  if (ops.policy_of_this_thread(&own).ok() && own.mode != PolicyMode::kDefault &&
      own.mode != PolicyMode::kLocal) {
    application_decides_ = true;
    return kOk;
  }
  ops_ = &ops;
  known_.init(ops);
  topology_ = bootstrap::allocate_array<Topology>(1);
  auto* ranking = bootstrap::allocate_array<Ranking>(1);
  void* mover = bootstrap::allocate(sizeof(NodeMover), alignof(NodeMover));
  if (topology_ == nullptr || ranking == nullptr || mover == nullptr) return {ENOMEM};
  new (topology_) Topology;
  new (ranking) Ranking;
  read_topology(files, topology_);
  rank_as_configured(chain, *topology_, ranking);
  // The background thread sleeps between tries, and may have the kernel compact its target.
  NodeMoverLimits limits;
  limits.compact_directly = true;
  own_ = new (mover) NodeMover(ops, limits);
  ranking_ = ranking;
  return kOk;
}

NodeMover* NodeTiers::make_mover() {
  void* memory = bootstrap::allocate(sizeof(NodeMover), alignof(NodeMover));
  if (memory == nullptr) return nullptr;
  NodeMoverLimits limits;
  limits.tries = 1;
  return new (memory) NodeMover(known_, limits);
}

bool NodeTiers::bound(std::uintptr_t at) const {
  NodePolicy policy;
  return ops_->policy_at(at, &policy).ok() && policy.mode != PolicyMode::kDefault;
}

unsigned NodeTiers::tier_of(int node) const {
  if (node < 0 || static_cast<unsigned>(node) >= kMaxNodes) return count();
  return ranking_->tier_of(static_cast<unsigned>(node));
}

void NodeTiers::look() {
  for (unsigned t = 0; t < count(); ++t) {
    std::uint64_t sum = 0;
    for (const unsigned node : tier(t).nodes) {
      NodeRoom room;
      if (ops_->room(node, &room).failed()) room = {};
      rooms_[node] = room;
      known_.see(node, room);
      sum += room.pages;
    }
    room_[t].store(sum, std::memory_order_relaxed);
  }
}

void NodeTiers::limit_promotions(std::uint64_t room_pages) {
  const std::uint64_t kept = reserve_.load(std::memory_order_relaxed) / 2;
  promotable_.store(static_cast<std::int64_t>(room_pages > kept ? room_pages - kept : 0),
                    std::memory_order_relaxed);
}

int NodeTiers::target(unsigned t, int from, bool huge) const {
  const auto fits = [&](unsigned node) {
    return huge ? rooms_[node].pages >= kPagesPerBlock : rooms_[node].pages > 0;
  };
  const NodeSet nodes = tier(t).nodes;
  if (from >= 0 && static_cast<unsigned>(from) < kMaxNodes) {
    const NodeSet near = ranking_->next[static_cast<unsigned>(from)] & nodes;
    for (const unsigned node : near) {
      if (fits(node)) return static_cast<int>(node);
    }
  }
  int best = -1;
  for (const unsigned node : nodes) {
    if (!fits(node)) continue;
    if (best < 0 || rooms_[node].pages > rooms_[static_cast<unsigned>(best)].pages) {
      best = static_cast<int>(node);
    }
  }
  return best;
}

bool NodeTiers::take_room(unsigned node) {
  return tier(0).nodes.contains(node) && known_.take(node);
}

int NodeTiers::place_for_promotion() {
  constexpr auto kPages = static_cast<std::int64_t>(kPagesPerBlock);
  if (promotable_.fetch_sub(kPages, std::memory_order_relaxed) >= kPages) {
    const unsigned here = ops_->node_here();
    if (take_room(here)) return static_cast<int>(here);
    for (const unsigned node : tier(0).nodes) {
      if (node != here && take_room(node)) return static_cast<int>(node);
    }
  }
  promotable_.fetch_add(kPages, std::memory_order_relaxed);
  wanted_.fetch_add(kPagesPerBlock, std::memory_order_relaxed);
  return -1;
}

}  // namespace heaptier
