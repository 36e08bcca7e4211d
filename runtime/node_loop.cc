#include "runtime/node_loop.h"

#include <algorithm>

#include "runtime/bootstrap_heap.h"
#include "runtime/node_moves.h"

namespace heaptier {
namespace {

// Looking up where pages are may take this share of the time, 1/50, but a few blocks a tick.
constexpr std::int64_t kLookShare = 50;
constexpr std::uint32_t kLeastLooks = 4;
// Demoted at most, in a second: a tenth of what memory of this kind can take.
constexpr std::uint64_t kPagesPerSecond = (std::uint64_t{1} << 30) / kPageSize;
// What would not be moved or parked is left alone for so long.
constexpr Nanos kStaysFor = millis(500);
constexpr Nanos kRoomsEvery = millis(50);
// Rounds may take this part of the thread's time: 1/2.
constexpr std::int64_t kRoundShare = 2;
// From one handful of huge pages to the next.
constexpr Nanos kWatchFor = micros(300);
constexpr Nanos kShortPause = millis(10);
constexpr Nanos kLongPause = millis(100);

}  // namespace

Errno NodeLoop::init() {
  blocks_ = bootstrap::allocate_array<PlacedBlock>(core_.table.size());
  notes_ = bootstrap::allocate_array<Notes>(core_.table.size());
  steps_ = bootstrap::allocate_array<PlaceStep>(kMostSteps);
  return blocks_ != nullptr && notes_ != nullptr && steps_ != nullptr ? kOk : Errno{ENOMEM};
}

void NodeLoop::look_at(BlockIndex b) {
  Pageblock& block = core_.table.block(b);
  PlacedBlock& v = blocks_[b.v];
  Notes& notes = notes_[b.v];
  v.index = b;
  const bool managed = block.served();
  if (core_.space.pages_used(b) == 0) block.forget_pins();
  if (!core_.manageable(b)) {
    if (managed) forget_heat(block);
    v = PlacedBlock{};
    v.index = b;
    notes = Notes{};
    return;
  }
  v.movable = notes.located && !block.pinned();
  v.tier = block.tier.load(std::memory_order_relaxed);
  v.slow = block.slow.load(std::memory_order_relaxed);
  v.gap = block.gap.load(std::memory_order_relaxed);
  v.times = block.gaps_measured.load(std::memory_order_relaxed);
  v.measured = block.last_gap.load(std::memory_order_relaxed);
  v.huge = block.huge.load(std::memory_order_relaxed);
  if (managed) {
    v.resident = static_cast<std::uint16_t>(block.count(PageState::kResident) +
                                            block.count(PageState::kClean));
    v.parked = static_cast<std::uint16_t>(block.count(PageState::kParked));
    // A page that was parked again before it could go up is counted once more when it is touched.
    v.hot = std::min(block.hot.load(std::memory_order_relaxed), v.resident);
    v.warm = static_cast<std::uint16_t>(v.warm + block.warm.exchange(0));
    v.touches = block.touches.exchange(0, std::memory_order_relaxed);
    if (v.parked == 0) migration_.clear_residue(b);
    if (v.resident + v.parked == 0) forget_heat(block);
    v.slow = std::min(v.slow, static_cast<std::uint16_t>(v.resident + v.parked));
  } else {
    v.resident = notes.resident;
    v.parked = 0;
  }
}

// Where the kernel has put pages, and puts them by itself. In turn, as far as the time allows.
void NodeLoop::find_places(Nanos now) {
  const std::uint32_t limit = core_.space.block_limit();
  const Nanos end = now + Nanos{(now - last_).v / kLookShare};
  for (std::uint32_t n = 0; n < limit; ++n) {
    hand_ = core_.space.next_block(hand_);
    if (hand_ >= limit) {
      hand_ = 0;
      return;
    }
    const BlockIndex b{hand_++};
    Notes& notes = notes_[b.v];
    if (!core_.manageable(b)) continue;
    Pageblock& block = core_.table.block(b);
    if (!block.served()) {
      bool huge = false;
      if (migration_.scan(b, &notes.resident, &huge).failed()) notes.resident = 0;
      block.huge.store(huge, std::memory_order_relaxed);
      if (notes.resident == 0) continue;
    }
    migration_.locate(b);
    notes.located = !core_.nodes->bound(core_.space.address_of(b));
    if (n >= kLeastLooks && core_.ops.now() > end) return;
  }
}

void NodeLoop::look(Nanos now) {
  find_places(now);
  const std::uint32_t limit = core_.space.block_limit();
  std::uint64_t slow = 0;
  present_pages_ = 0;
  std::fill_n(used_, kMostPlaces, 0);
  for (std::uint32_t i = 0; (i = core_.space.next_block(i)) < limit; ++i) {
    look_at({i});
    const PlacedBlock& v = blocks_[i];
    slow += v.slow;
    used_[std::max<unsigned>(v.tier, 1)] += v.slow;
    present_pages_ += std::uint64_t{v.resident} + v.parked;
  }
  slow_pages_.store(slow, std::memory_order_relaxed);
  view_.blocks = {blocks_, limit};
  measure_tiers();
}

void NodeLoop::measure_tiers() {
  NodeTiers& nodes = *core_.nodes;
  // Reading /proc takes as long as moving a few pages.
  const Nanos now = core_.ops.now();
  if (moved_ || now - last_rooms_ >= kRoomsEvery) {
    nodes.look();
    last_rooms_ = now;
    moved_ = false;
  }
  view_.tier_count = std::min(nodes.count(), kMostPlaces);
  for (unsigned t = 0; t < view_.tier_count; ++t) {
    const std::uint64_t capacity = nodes.tier(t).capacity_bytes / kPageSize;
    const std::uint64_t left = capacity > used_[t] ? capacity - used_[t] : 0;
    view_.tiers[t] = {capacity, std::min(nodes.room_pages(t), left), 0};
  }
  // A budget of one's own: below what the nodes could give.
  const std::uint64_t slow = std::min(slow_pages(), present_pages_);
  const std::uint64_t fast = present_pages_ - slow;
  std::uint64_t limit = view_.tiers[0].capacity_pages;
  if (options_.fast.kind == FastBudget::Kind::kBytes)
    limit = std::min(limit, options_.fast.bytes / kPageSize);
  if (options_.fast.kind == FastBudget::Kind::kPercent && options_.fast.percent < 100) {
    limit = std::min(limit, present_pages_ * options_.fast.percent / 100);
  }
  PlaceView& first = view_.tiers[0];
  first.capacity_pages = limit;
  fast_bytes_.store(limit * kPageSize, std::memory_order_relaxed);
  first.room_pages = std::min(first.room_pages, limit > fast ? limit - fast : 0);
  first.over_pages = fast > limit ? fast - limit : 0;
  view_.store_has_room = core_.store != nullptr && !core_.store_rests(now);
}

void NodeLoop::tick(Nanos now) {
  core_.stats.ticks.add();
  if (last_.v == 0) last_ = now - kShortPause;
  look(now);
  const Nanos since = std::min(now - last_, seconds(1));
  last_ = now;
  PlacementBudget budget;
  budget.hint_nanos = static_cast<std::uint64_t>(since.v) * options_.hint_budget / 10000;
  budget.move_pages =
      std::max<std::uint64_t>(kPagesPerSecond * static_cast<std::uint64_t>(since.v) /
                                  static_cast<std::uint64_t>(seconds(1).v),
                              kPagesPerBlock);
  budget.watches = kMostWatches;
  PlacementPlan plan{{steps_, kMostSteps}};
  policy_.decide(view_, now, budget, plan);
  core_.nodes->set_promote_below(plan.promote_below);
  bool any = false;
  watching_count_ = 0;
  slept_ = Nanos{};
  for (std::size_t i = 0; i < plan.count; ++i) {
    if (!host_.between_steps() || core_.retired.load(std::memory_order_relaxed)) return;
    any = carry_out(plan.steps[i]) || any;
    if (watching_count_ == kWatchedAtOnce) begin_watch(i + 1 < plan.count);
  }
  begin_watch(false);
  moved_ = any;
  const Nanos cost = core_.ops.now() - now - slept_;
  pause_ = any || core_.nodes->promote_below() == kUnknownGap ? kShortPause : kLongPause;
  pause_ = std::clamp(Nanos{cost.v * (kRoundShare - 1)}, pause_, seconds(1));
}

// Parking took time: the clocks start together, when the application goes on.
void NodeLoop::begin_watch(bool more) {
  const Nanos now = core_.ops.now();
  for (; watching_count_ > 0; --watching_count_) {
    const BlockIndex b = watching_[watching_count_ - 1];
    note_parked(core_.table.block(b), core_.nodes->clock().mark(now));
    blocks_[b.v].parked_since = now;
  }
  if (!more) return;
  core_.nodes->ops().pause(kWatchFor);
  slept_ = slept_ + (core_.ops.now() - now);
}

// False: nothing came of it.
bool NodeLoop::carry_out(const PlaceStep& step) {
  const BlockIndex b = step.block;
  PlacedBlock& v = blocks_[b.v];
  Pageblock& block = core_.table.block(b);
  switch (step.action) {
    case PlaceAction::kWatch: {
      if (!host_.ready_for_faults() || migration_.manage(b).failed()) return false;
      // What came back from a store keeps a copy there for a while: not where it is to be watched.
      if (block.count(PageState::kClean) != 0) migration_.recall(b, PageSpan{});
      v.parked_since = core_.ops.now();
      const MoveOutcome outcome = migration_.park(b, Parking::kAll);
      if (outcome.moved == 0) {
        v.watched = 0;
        v.not_before = v.parked_since + kStaysFor;
      }
      if (outcome.moved == kPagesPerBlock && watching_count_ < kWatchedAtOnce) {
        watching_[watching_count_++] = b;
      }
      return outcome.moved > 0;
    }
    case PlaceAction::kPromote:
      return migration_.promote(b).moved > 0;
    case PlaceAction::kDemote: {
      const MoveOutcome outcome = migration_.demote(b, step.tier);
      // Pinned, shared, no free block there: others are to have their turn.
      if (outcome.moved == 0 && outcome.raced == 0) {
        v.stays_until = core_.ops.now() + kStaysFor;
      }
      return outcome.moved > 0;
    }
    case PlaceAction::kStore:
      if (core_.store_rests(core_.ops.now())) return false;
      return store_parked(core_, migration_, host_, b, Evictor::kBackground).gained();
  }
  return false;
}

}  // namespace heaptier
