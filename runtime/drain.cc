#include "runtime/drain.h"

#include <algorithm>
#include <new>

#include "runtime/bootstrap_heap.h"
#include "runtime/present_pages.h"
#include "runtime/topology/ranking.h"
#include "runtime/topology/topology.h"

namespace heaptier {
namespace {

// A step: some milliseconds. Faults, requests and forks are looked after between two pageblocks.
constexpr std::uint32_t kBlocksAStep = 64;
constexpr std::uint64_t kPagesAStep = 4 * kPagesPerBlock;
// Once everything that can go has gone, one look at all in so long, and with 1/50 of the time.
constexpr Nanos kWatchEvery = seconds(1);
constexpr std::int64_t kWatchShare = 50;
// Pages that race with us (touched, parked, taken apart by the kernel) are looked for so often
// before what is found is taken for what stays.
constexpr std::uint32_t kRacedPasses = 3;
// A heap that goes on to get memory there, because nothing else has room, never settles by itself:
// then so many passes, or the second of which nothing was left.
constexpr std::uint32_t kMostPasses = 10;

struct OneNode {
  std::uint64_t moved = 0;
  LeftPages left;
  LeftPages counting;  // of the pass under way
  std::uint64_t moved_in_pass = 0;
  std::uint32_t passes = 0;
  bool settled = false;
};

NodeMoverLimits limits() {
  NodeMoverLimits limits;
  limits.compact_directly = true;  // what finds no whole block is split next
  return limits;
}

}  // namespace

struct Drain::Parts {
  explicit Parts(NodeOps& ops) : mover(ops, limits()) {}
  Topology topology;
  Ranking ranking;
  NodeMover mover;
  DrainTargets targets;
  OneNode nodes[kMaxNodes];
  // The pages of a pageblock that are looked at, and those of them that are to be moved.
  PresentPages present;
  int status[kPagesPerBlock];
  PageMove moves[kPagesPerBlock];
  unsigned from[kPagesPerBlock];
};

Errno Drain::get_ready() {
  if (parts_ == nullptr) {
    if (!sandbox_.allows(chain_)) return {ENOTSUP};
    void* room = bootstrap::allocate(sizeof(Parts), 64);
    if (room == nullptr) return {ENOMEM};
    auto* parts = new (room) Parts(ops_);
    const auto here = reinterpret_cast<std::uintptr_t>(parts);
    int status = -1;
    if (ops_.where(&here, &status, 1).failed()) {
      bootstrap::release(room, sizeof(Parts), 64);
      return {ENOTSUP};
    }
    parts_ = parts;
  }
  // Nodes come and go, and so do cpusets.
  read_topology(files_, &parts_->topology);
  rank_as_configured(chain_, parts_->topology, &parts_->ranking);
  return kOk;
}

NodeSet Drain::chain_nodes() const {
  NodeSet nodes;
  if (parts_ == nullptr) return nodes;
  for (unsigned t = 0; t < parts_->ranking.count; ++t) {
    nodes = nodes | parts_->ranking.tiers[t].nodes;
  }
  return nodes;
}

// EBUSY: no node is left to go to.
Errno Drain::use_targets(NodeSet closed) {
  NodeSet open = chain_nodes() & (parts_->topology.usable() - closed);
  // A program that is bound as a whole (numactl) is not moved out of where it is to be.
  NodePolicy own;
  if (ops_.policy_of_this_thread(&own).ok() && own.mode == PolicyMode::kBind) {
    for (const unsigned node : open) {
      if ((own.nodes >> node & 1) == 0) open = open - NodeSet::of(node);
    }
  }
  if (open.empty()) return {EBUSY};
  parts_->targets.use(parts_->ranking, open);
  return kOk;
}

Errno Drain::begin(unsigned node) {
  if (parts_ != nullptr && sandbox_.changed()) return {ENOTSUP};
  if (Errno e = get_ready(); e.failed()) return e;
  if (!chain_nodes().contains(node)) return {ENODEV};
  const NodeSet closed = closed_ | NodeSet::of(node);
  if (Errno e = use_targets(closed); e.failed()) {
    if (!closed_.empty()) (void)use_targets(closed_);
    return e;
  }
  OneNode& one = parts_->nodes[node];
  if (!closed_.contains(node)) one = OneNode{};
  one.passes = 0;
  one.settled = false;
  closed_ = closed;
  if (core_.nodes != nullptr) core_.nodes->close(closed_);
  in_pass_ = false;
  next_ = Nanos{};
  return kOk;
}

Errno Drain::end(unsigned node) {
  if (!closed_.contains(node)) return {ENODEV};
  closed_ = closed_ - NodeSet::of(node);
  if (core_.nodes != nullptr) core_.nodes->close(closed_);
  in_pass_ = false;
  next_ = Nanos{};
  if (sandbox_.changed()) return {ENOTSUP};
  return closed_.empty() ? set_policy({}) : use_targets(closed_);
}

// Of the heap's mappings: where new memory is to come from. Forks and faults are served meanwhile.
Errno Drain::set_policy(NodeSet nodes) {
  policy_.restrict_to(nodes);
  return policy_.apply({core_.space.base(), core_.space.bytes()}, &host_);
}

void Drain::end_all() {
  for (const unsigned node : closed_) (void)end(node);
}

DrainReport Drain::report(unsigned node) const {
  DrainReport report;
  if (!closed_.contains(node)) return report;
  const OneNode& one = parts_->nodes[node];
  report.draining = true;
  report.settled = one.settled;
  report.moved = one.moved;
  report.left = one.left;
  return report;
}

Nanos Drain::until_step(Nanos now, Nanos longest) const {
  if (closed_.empty()) return longest;
  return std::clamp(next_ - now, Nanos{}, longest);
}

void Drain::begin_pass() {
  in_pass_ = true;
  hand_ = 0;
  pass_cost_ = Nanos{};
  raced_in_pass_ = 0;
  for (const unsigned node : closed_) {
    parts_->nodes[node].counting = {};
    parts_->nodes[node].moved_in_pass = 0;
  }
  (void)set_policy(parts_->targets.open());
}

void Drain::end_pass(Nanos now) {
  in_pass_ = false;
  bool all_settled = true;
  for (const unsigned node : closed_) {
    OneNode& one = parts_->nodes[node];
    one.left = one.counting;
    ++one.passes;
    const bool raced = raced_in_pass_ != 0 && one.passes < kRacedPasses;
    const bool gone = one.passes > 1 && report(node).left_in_all() == 0;
    one.settled =
        one.settled || (!raced && (one.moved_in_pass == 0 || gone)) || one.passes >= kMostPasses;
    all_settled = all_settled && one.settled;
  }
  next_ = all_settled ? now + std::max(kWatchEvery, Nanos{pass_cost_.v * kWatchShare}) : now;
}

void Drain::step(Nanos now) {
  if (closed_.empty() || now < next_) return;
  if (sandbox_.changed()) {
    // Nothing more of it; what was found last is what is known.
    for (const unsigned node : closed_) parts_->nodes[node].settled = true;
    next_ = now + seconds(3600);
    return;
  }
  const Nanos begin = core_.ops.now();
  if (!in_pass_) begin_pass();
  parts_->targets.look(ops_);
  moved_in_step_ = 0;
  bool all = false;
  for (std::uint32_t n = 0; n < kBlocksAStep && moved_in_step_ < kPagesAStep; ++n) {
    hand_ = core_.space.next_block(hand_);
    if ((all = hand_ >= core_.space.block_limit())) break;
    const BlockIndex b{hand_++};
    if (core_.space.pages_used(b) == 0) continue;
    vacate(b);
    if (!host_.between_steps() || core_.retired.load(std::memory_order_relaxed)) return;
  }
  // Half of the time is for others.
  const Nanos end = core_.ops.now();
  pass_cost_ = pass_cost_ + (end - begin);
  next_ = end + (end - begin);
  if (all) end_pass(next_);
}

// What is parked first: pages can go home while we look, but only this thread parks any.
void Drain::vacate(BlockIndex b) {
  const std::uint64_t before = moved_in_step_;
  const std::uintptr_t home = core_.space.address_of(b);
  const Pageblock& block = core_.table.block(b);
  if (core_.protection != nullptr && block.count(PageState::kParked) != 0) {
    (void)migration_.unpark(b);
  } else if (core_.park_base != 0 && block.count(PageState::kParked) != 0) {
    (void)vacate_range(b, core_.park(first_page(b)), false);
  }
  if (vacate_range(b, home, true)) (void)vacate_range(b, home, false);
  if (moved_in_step_ != before && core_.nodes != nullptr) migration_.locate(b);
}

void Drain::gather(std::uintptr_t at) {
  if (parts_->present.look(core_.ops, at).ok()) return;
  core_.stats.errors_scan.add();
  for (const unsigned node : closed_) stays(node, Stays::kOther, false);  // cannot be known
}

// True: a huge page was taken apart, since only its parts fit somewhere: once more, then.
bool Drain::vacate_range(BlockIndex b, std::uintptr_t at, bool may_split) {
  Parts& p = *parts_;
  const bool parked = at != core_.space.address_of(b);
  const PresentPages& present = p.present;
  gather(at);
  p.mover.where(present.at, present.count, p.status);
  std::size_t n = 0;
  for (std::size_t i = 0; i < present.count; ++i) {
    const int status = p.status[i];
    if (status < 0 && status != -EFAULT) ++raced_in_pass_;  // gone, or on its way by the kernel
    if (status < 0 || !closed_.contains(static_cast<unsigned>(status))) continue;
    p.from[n] = static_cast<unsigned>(status);
    p.moves[n].page = present.at[i];
    p.moves[n].huge = present.huge[i];
    const Choice choice = choose(b, parked, p.from[n], &p.moves[n]);
    if (choice == Choice::kGoes) ++n;
    if (choice != Choice::kTooLarge) continue;
    if (may_split && take_apart(b)) return true;
    if (parked && p.targets.has_room()) {
      // At home it is taken apart, which comes next; if it does not get there, in the next pass.
      ++raced_in_pass_;
      (void)migration_.unpark(b);
      continue;
    }
    stays(p.from[n], Stays::kNoRoom, true);
  }
  (void)p.mover.move(p.moves, n, p.status);
  for (std::size_t i = 0; i < n; ++i) settle(p.from[i], p.moves[i], p.status[i]);
  return false;
}

Drain::Choice Drain::choose(BlockIndex b, bool parked, unsigned from, PageMove* move) {
  const std::uintptr_t offset =
      move->page - (parked ? core_.park(first_page(b)) : core_.space.address_of(b));
  if (bound_by_application(ops_, core_.space.address_of(b) + offset)) {
    stays(from, Stays::kBound, move->huge);
    return Choice::kStays;
  }
  DrainTargets& targets = parts_->targets;
  int to = targets.take(from, move->huge ? Fit::kWhole : Fit::kSmall);
  if (to < 0 && move->huge) {
    to = targets.take(from, Fit::kCompact);
    if (to < 0) return Choice::kTooLarge;
  }
  if (to < 0) {
    stays(from, Stays::kNoRoom, move->huge);
    return Choice::kStays;
  }
  move->node = static_cast<unsigned>(to);
  return Choice::kGoes;
}

// No node has a block of 2 MiB, nor enough room to make one.
bool Drain::take_apart(BlockIndex b) {
  if (!parts_->targets.has_room() || !migration_.split_at_home(b)) return false;
  core_.stats.huge_split.add();
  return true;
}

void Drain::stays(unsigned node, Stays why, bool huge) {
  parts_->nodes[node].counting[static_cast<std::size_t>(why)] += huge ? kPagesPerBlock : 1;
}

void Drain::settle(unsigned from, const PageMove& move, int status) {
  const std::uint64_t pages = move.huge ? kPagesPerBlock : 1;
  OneNode& one = parts_->nodes[from];
  switch (outcome_of(status)) {
    case NodeMoveOutcome::kMoved:
    case NodeMoveOutcome::kAlreadyThere:
      one.moved += pages;
      one.moved_in_pass += pages;
      moved_in_step_ += pages;
      core_.stats.nodes_drained.add(pages);
      if (move.huge) core_.stats.nodes_huge_moved.add();
      return;
    case NodeMoveOutcome::kAbsent:
    case NodeMoveOutcome::kNoMemory:
      ++raced_in_pass_;
      return;
    default:
      // A huge page that did not fit may be small ones by now.
      if (move.huge) ++raced_in_pass_;
      stays(from, why_not_moved(status), move.huge);
  }
}

}  // namespace heaptier
