#include "runtime/node_tiers.h"

#include <algorithm>
#include <new>

#include "runtime/bootstrap_heap.h"
#include "runtime/heap_policy.h"

namespace heaptier {

Nanos WatchClock::lap(Nanos now, const Mark& mark) {
  constexpr std::int64_t kForget =
      256;  // grows again by 1/256 at each fault: hosts get slower, too
  const std::int64_t last = last_.exchange(now.v, std::memory_order_relaxed);
  const std::int64_t since_last = now.v - last;
  std::int64_t cost = cost_.load(std::memory_order_relaxed);
  // Not the first, nor of two handlers that came by in another order than they looked at the clock.
  if (last != 0 && since_last > 0) {
    cost = cost == 0 ? since_last : std::min(since_last, cost + cost / kForget + 1);
    cost_.store(cost, std::memory_order_relaxed);
  }
  // Of those since, and of this one. What is shorter than a part of what a fault costs cannot be
  // told from nothing.
  const std::uint32_t faults = faults_.fetch_add(1, std::memory_order_relaxed) + 1 - mark.faults;
  return {std::max(now.v - mark.at - static_cast<std::int64_t>(faults) * cost, cost / 4)};
}

Errno NodeTiers::init(NodeOps& ops, FileTree& files, const TierChain& chain) {
  if (!chain.names_nodes()) return kOk;
  if (thread_has_policy(ops)) {
    why_not_ = "the program has a memory policy of its own (set_mempolicy, numactl)";
    return kOk;
  }
  ops_ = &ops;
  const TopologyNow topology(files);
  ranking_ = bootstrap::allocate_array<Ranking>(1);
  Errno e{ENOMEM};
  if (topology && ranking_ != nullptr) {
    rank_as_configured(chain, *topology, new (ranking_) Ranking);
    for (unsigned node = 0; node < kMaxNodes; ++node) {
      node_pages_[node] = topology->nodes[node].capacity_bytes / kPageSize;
    }
    find_sockets(*topology);
    const bool balance = sockets_.count() > 1 && chain.find(TierKind::kZpool) == nullptr;
    if (ranking_->count > 1 || balance) {
      node_of_cpu_ = bootstrap::allocate_array<std::uint8_t>(kMaxCpus);
      e = node_of_cpu_ == nullptr ? Errno{ENOMEM} : make_mover();
    } else {
      if (chain.count == 1) why_not_ = "it may run beside one node of its only tier";
      e = kOk;
    }
    if (own_ != nullptr) std::copy_n(topology->node_of_cpu, kMaxCpus, node_of_cpu_);
  }
  if (own_ == nullptr) {
    bootstrap::release(node_of_cpu_, kMaxCpus);
    node_of_cpu_ = nullptr;
    bootstrap::release(ranking_, sizeof *ranking_);
    ranking_ = nullptr;
  }
  return e;
}

void NodeTiers::find_sockets(const Topology& topology) {
  for (unsigned cpu = 0; cpu < kMaxCpus; ++cpu) {
    const std::uint8_t node = topology.node_of_cpu[cpu];
    if (node == kNoNode || !topology.cpu_allowed(cpu)) continue;
    if (ranking_->count > 0 && ranking_->tiers[0].nodes.contains(node)) sockets_.add(node);
  }
}

unsigned NodeTiers::node_of_cpu(int cpu) const {
  if (cpu < 0 || static_cast<unsigned>(cpu) >= kMaxCpus || node_of_cpu_[cpu] == kNoNode) {
    return ops_->node_here();
  }
  return node_of_cpu_[cpu];
}

// ENOMEM. None is made on a host that does not let us see where pages are.
Errno NodeTiers::make_mover() {
  void* at = bootstrap::allocate(sizeof(NodeMover), alignof(NodeMover));
  if (at == nullptr) return {ENOMEM};
  // Containers refuse the one, a root without /proc lacks the other.
  const auto here = reinterpret_cast<std::uintptr_t>(at);
  *static_cast<char*>(at) = 0;
  int status = -1;
  NodeRoom room;
  if (ops_->where(&here, &status, 1).failed() ||
      ops_->room(*ranking_->tiers[0].nodes.begin(), &room).failed()) {
    why_not_ = "this host does not say where pages are (move_pages, /proc)";
    bootstrap::release(at, sizeof(NodeMover), alignof(NodeMover));
    return kOk;
  }
  own_ = new (at) NodeMover(*ops_);  // the background thread's: it may sleep between tries
  return kOk;
}

bool NodeTiers::bound(std::uintptr_t at) const {
  return bound_by_application(*ops_, at);
}

unsigned NodeTiers::tier_of(int node) const {
  if (node < 0 || static_cast<unsigned>(node) >= kMaxNodes) return count();
  return ranking_->tier_of(static_cast<unsigned>(node));
}

void NodeTiers::look() {
  const NodeSet allowed = ops_->allowed_nodes();
  NodeSet forbidden;
  NodeSet offline;
  for (unsigned t = 0; t < count(); ++t) {
    std::uint64_t sum = 0;
    std::uint64_t pages = 0;
    for (const unsigned node : tier(t).nodes) {
      NodeRoom room;
      const Errno known = ops_->room(node, &room);
      const bool there = known.code != ENODEV;
      const bool usable = there && allowed.contains(node);
      if (!usable) (there ? forbidden : offline).add(node);
      if (!usable || known.failed() || closed_.contains(node)) room = {};
      rooms_[node] = room;
      sum += room.pages;
      pages += usable ? node_pages_[node] : 0;
    }
    room_[t] = sum;
    capacity_[t] = std::min(pages, tier(t).capacity_bytes / kPageSize);
  }
  note_unusable(forbidden, offline);
}

void NodeTiers::note_unusable(NodeSet forbidden, NodeSet offline) {
  const NodeSet before = forbidden_ | offline_;
  lost_.fetch_add(((forbidden | offline) - before).count(), std::memory_order_relaxed);
  forbidden_ = forbidden;
  offline_ = offline;
}

int NodeTiers::target(unsigned t, int from, bool huge) const {
  // One with a free block of 2 MiB before one that has the pages only, where nothing huge moves
  // whole.
  if (huge) {
    const int whole =
        nearest(t, from, [this](unsigned node) { return rooms_[node].huge_blocks > 0; });
    if (whole >= 0) return whole;
  }
  const std::uint64_t pages = huge ? kPagesPerBlock : 1;
  return nearest(t, from, [this, pages](unsigned node) { return rooms_[node].pages >= pages; });
}

// Of the nodes of the tier that fit: `from`, else one of those next to it, else the one with most
// room.
template <class Fits>
int NodeTiers::nearest(unsigned t, int from, Fits fits) const {
  const NodeSet nodes = tier(t).nodes;
  if (from >= 0 && static_cast<unsigned>(from) < kMaxNodes) {
    const auto here = static_cast<unsigned>(from);
    if (nodes.contains(here) && fits(here)) return from;
    const NodeSet near = ranking_->next[here] & nodes;
    for (const unsigned node : near) {
      if (fits(node)) return static_cast<int>(node);
    }
  }
  return roomiest(nodes, rooms_, fits);
}

}  // namespace heaptier
