#include "runtime/interleave.h"

#include <algorithm>
#include <cstdio>
#include <new>

#include "runtime/base/lines.h"
#include "runtime/base/words.h"
#include "runtime/bootstrap_heap.h"
#include "runtime/present_pages.h"
#include "runtime/tiers/node_mover.h"

namespace heaptier {
namespace {

// A step: some milliseconds. Faults, requests and forks are looked after between two pageblocks.
constexpr std::uint32_t kBlocksAStep = 64;
constexpr std::uint64_t kPagesAStep = 4 * kPagesPerBlock;
// Once everything that can go has gone, one look at all in so long, and with 1/50 of the time;
// while memory comes that has to be moved, sooner.
constexpr Nanos kWatchEvery = seconds(1);
constexpr std::int64_t kWatchShare = 50;
constexpr Nanos kBusyEvery = millis(100);
constexpr std::int64_t kBusyShare = 4;
// Pages that race with us (touched, parked, taken apart by the kernel) are looked for so often
// before what is found is taken for what stays.
constexpr std::uint32_t kRacedPasses = 3;

}  // namespace

struct Interleave::Parts {
  explicit Parts(NodeOps& ops) : mover(ops) {}
  NodeMover mover;
  // Of the 2 MiB at hand.
  PresentPages present;
  int status[kPagesPerBlock];
  PageMove moves[kPagesPerBlock];
};

Errno Interleave::get_ready() {
  if (parts_ != nullptr) return sandbox_.changed() ? Errno{ENOTSUP} : kOk;
  why_not_ = nullptr;
  if (!sandbox_.allows(options_.tiers)) {
    why_not_ = "a seccomp filter of the program would end it for that";
    return {ENOTSUP};
  }
  if (thread_has_policy(ops_)) {
    why_not_ = "the program has a memory policy of its own (set_mempolicy, numactl)";
    return {ENOTSUP};
  }
  const TopologyNow topology(files_);
  if (!topology) return {ENOMEM};
  void* room = bootstrap::allocate(sizeof(Parts), 64);
  if (room == nullptr) return {ENOMEM};
  chosen_ = choose_weights(options_.policy, options_.tiers, *topology);
  auto* parts = new (room) Parts(ops_);
  const auto here = reinterpret_cast<std::uintptr_t>(parts);
  int status = -1;
  const bool seen = ops_.where(&here, &status, 1).ok();
  if (!seen || chosen_.weights.nodes().count() < 2) {
    why_not_ = seen ? "this process may use one memory node only"
                    : "this host does not say where pages are (move_pages, /proc)";
    bootstrap::release(room, sizeof(Parts), 64);
    return {ENOTSUP};
  }
  parts_ = parts;
  return kOk;
}

Errno Interleave::begin() {
  if (const Errno e = get_ready(); e.failed()) return e;
  if (active_) return kOk;
  active_ = true;
  in_pass_ = false;
  next_ = Nanos{};
  use_open_nodes();
  show();
  return kOk;
}

void Interleave::stop() {
  if (whole()) {
    policy_.interleave({}, PolicyMode::kInterleave);
    (void)policy_.apply({core_.space.base(), core_.space.bytes()}, &host_);
  }
  active_ = false;
  show();
}

// A node whose memory is offline has no room to tell of.
bool Interleave::usable(unsigned node) const {
  NodeRoom room;
  return ops_.room(node, &room).code != ENODEV;
}

void Interleave::use_open_nodes() {
  NodeSet open = (chosen_.weights.nodes() & ops_.allowed_nodes()) - drain_.closed();
  for (const unsigned node : open) {
    if (!usable(node)) open = open - NodeSet::of(node);
  }
  const NodeWeights weights = chosen_.weights.within(open);
  if (weights == now_) return;
  now_ = weights;
  pattern_ = InterleavePattern(weights);
  passes_ = 0;
  settled_ = false;
  show();
}

void Interleave::show() {
  for (unsigned node = 0; node < kMaxNodes; ++node) {
    shown_weights_[node].store(active_ ? now_.of[node] : 0, std::memory_order_relaxed);
  }
  shown_in_place_.store(active_ ? counted_.in_place : 0, std::memory_order_relaxed);
  shown_left_.store(active_ ? counted_.left.all() : 0, std::memory_order_relaxed);
}

void Interleave::read(StatsSnapshot* out) const {
  for (unsigned node = 0; node < kMaxNodes; ++node) {
    out->interleave_weights.of[node] = shown_weights_[node].load(std::memory_order_relaxed);
  }
  out->interleaved_pages = shown_in_place_.load(std::memory_order_relaxed);
  out->misplaced_pages = shown_left_.load(std::memory_order_relaxed);
}

// By the kernel's files: one of them is missing, or says otherwise.
bool Interleave::kernel_has_these_weights() const {
  for (const unsigned node : now_.nodes()) {
    char path[80];
    std::snprintf(path, sizeof path, "/sys/kernel/mm/mempolicy/weighted_interleave/node%u", node);
    std::uint64_t weight = 0;
    const Errno read = each_line(files_, path, [&weight](std::string_view line) {
      if (!next_number(&line, &weight)) weight = 0;
    });
    if (read.failed() || weight != now_.of[node]) return false;
  }
  return true;
}

PolicyMode Interleave::mode_for_new_memory() const {
  return kernel_has_these_weights() ? PolicyMode::kWeightedInterleave : PolicyMode::kInterleave;
}

void Interleave::begin_pass() {
  in_pass_ = true;
  some_ = false;
  hand_ = 0;
  pass_cost_ = Nanos{};
  counting_ = Tally{};
  use_open_nodes();
  if (!asked_for_all()) return;
  policy_.interleave(now_.nodes(), mode_for_new_memory());
  (void)policy_.apply({core_.space.base(), core_.space.bytes()}, &host_);
}

void Interleave::end_pass(Nanos now) {
  in_pass_ = false;
  ++passes_;
  counted_ = counting_;
  const bool raced = counting_.raced != 0 && passes_ < kRacedPasses;
  const bool quiet = counting_.moved == 0 && !raced;
  settled_ = settled_ || quiet;
  next_ = now + (quiet ? std::max(kWatchEvery, Nanos{pass_cost_.v * kWatchShare})
                       : std::max(kBusyEvery, Nanos{pass_cost_.v * kBusyShare}));
  // The tiering loop, which does this else, has nothing to do then.
  if (asked_for_all() && core_.nodes == nullptr) {
    core_.unmanaged_pages.store(counting_.unserved, std::memory_order_relaxed);
  }
  // All that was asked for has been freed or taken back.
  if (!asked_for_all() && !some_) active_ = false;
  show();
}

bool Interleave::takes_part(BlockIndex b) {
  Pageblock& block = core_.table.block(b);
  if (core_.space.pages_used(b) == 0) block.forget_pins();
  if (!core_.manageable(b) || block.pins.load(std::memory_order_relaxed) != 0) return false;
  return asked_for_all() || block.interleaved.load(std::memory_order_relaxed);
}

void Interleave::step(Nanos now) {
  if (!active_ || now < next_) return;
  if (sandbox_.changed()) {
    active_ = false;  // nothing more of it: it would end the process
    show();
    return;
  }
  const Nanos begin = core_.ops.now();
  if (!in_pass_) begin_pass();
  const std::uint64_t before = counting_.moved;
  bool all = false;
  for (std::uint32_t n = 0; n < kBlocksAStep && counting_.moved - before < kPagesAStep; ++n) {
    hand_ = core_.space.next_block(hand_);
    if ((all = hand_ >= core_.space.block_limit())) break;
    const BlockIndex b{hand_++};
    if (!takes_part(b)) continue;
    some_ = true;
    put_in_place(b, &counting_);
    if (!host_.between_steps() || core_.retired.load(std::memory_order_relaxed)) return;
  }
  // Half of the time is for others.
  const Nanos end = core_.ops.now();
  pass_cost_ = pass_cost_ + (end - begin);
  next_ = end + (end - begin);
  if (all) end_pass(next_);
}

Nanos Interleave::until_step(Nanos now, Nanos longest) const {
  if (!active_) return longest;
  return std::clamp(next_ - now, Nanos{}, longest);
}

int Interleave::spread(PageIndex first, std::uint32_t pages) {
  if (core_.retired.load(std::memory_order_relaxed)) return -ENOTSUP;
  if (const Errno e = begin(); e.failed()) return -e.code;
  use_open_nodes();
  std::uint64_t out_of_place = 0;
  each_part(first, pages, [&](BlockIndex b, PageSpan) {
    if (b.v >= core_.space.block_limit() || !core_.manageable(b)) return true;
    core_.table.block(b).interleaved.store(true, std::memory_order_relaxed);
    if (!takes_part(b)) return true;  // pinned
    Tally tally;
    for (std::uint32_t pass = 0; pass < kRacedPasses; ++pass) {
      const std::uint64_t moved = tally.moved;
      tally = Tally{};
      tally.moved = moved;
      put_in_place(b, &tally);
      host_.between_steps();
      if (tally.raced == 0) break;
    }
    out_of_place += tally.left.all() + tally.raced;
    return true;
  });
  // What is counted for all is to have these, too.
  in_pass_ = false;
  settled_ = false;
  next_ = Nanos{};
  return static_cast<int>(std::min<std::uint64_t>(out_of_place, INT32_MAX));
}

// What is parked first: pages can go home while we look, but only this thread parks any.
void Interleave::put_in_place(BlockIndex b, Tally* tally) {
  if (pattern_.empty()) return;
  const Pageblock& block = core_.table.block(b);
  const std::uint64_t before = moved_;
  if (core_.protection != nullptr && block.count(PageState::kParked) != 0) {
    (void)migration_.unpark(b);  // hidden: where it is counts
  } else if (core_.park_base != 0 && block.count(PageState::kParked) != 0) {
    put_range(b, core_.park(first_page(b)), tally);
  }
  put_range(b, core_.space.address_of(b), tally);
  if (moved_ != before && core_.nodes != nullptr) migration_.locate(b);
}

void Interleave::put_range(BlockIndex b, std::uintptr_t at, Tally* tally) {
  Parts& p = *parts_;
  const PresentPages& present = p.present;
  const std::uintptr_t home = core_.space.address_of(b);
  const auto pages = [](bool huge) { return huge ? kPagesPerBlock : 1; };
  const auto stays = [&](Stays why, bool huge) {
    tally->left[static_cast<std::size_t>(why)] += pages(huge);
  };
  if (p.present.look(core_.ops, at).failed()) {
    core_.stats.errors_scan.add();
    ++tally->raced;  // cannot be known: once more
    return;
  }
  p.mover.where(present.at, present.count, p.status);
  std::size_t n = 0;
  for (std::size_t i = 0; i < present.count; ++i) {
    const bool huge = present.huge[i];
    if (p.status[i] < 0) {
      if (p.status[i] != -EFAULT) ++tally->raced;  // gone, or on its way by the kernel
      continue;
    }
    if (at == home && !core_.table.block(b).served()) tally->unserved += pages(huge);
    const std::uintptr_t own = present.at[i] - at + home;
    const unsigned node = pattern_.node_of(own, huge);
    if (static_cast<unsigned>(p.status[i]) == node) {
      tally->in_place += pages(huge);
    } else if (bound_by_application(ops_, own)) {
      stays(Stays::kBound, huge);
    } else {
      p.moves[n++] = {present.at[i], node, huge};
    }
  }
  (void)p.mover.move(p.moves, n, p.status);
  for (std::size_t i = 0; i < n; ++i) {
    const bool huge = p.moves[i].huge;
    switch (outcome_of(p.status[i])) {
      case NodeMoveOutcome::kMoved:
      case NodeMoveOutcome::kAlreadyThere:
        tally->in_place += pages(huge);
        tally->moved += pages(huge);
        moved_ += pages(huge);
        core_.stats.nodes_interleaved.add(pages(huge));
        if (huge) core_.stats.nodes_huge_moved.add();
        break;
      case NodeMoveOutcome::kAbsent:
      case NodeMoveOutcome::kNoMemory:
        ++tally->raced;
        break;
      default:
        stays(why_not_moved(p.status[i]), huge);
    }
  }
}

InterleaveReport Interleave::report() const {
  InterleaveReport report;
  report.on = active_;
  report.weights = now_;
  report.reason = chosen_.reason;
  report.settled = settled_;
  report.moved = moved_;
  report.in_place = counted_.in_place;
  report.left = counted_.left;
  return report;
}

}  // namespace heaptier
