#include "runtime/node_loop.h"

#include <algorithm>

#include "policies/balance.h"
#include "runtime/bootstrap_heap.h"
#include "runtime/node_moves.h"
#include "runtime/page_heat.h"

namespace heaptier {
namespace {

// Looking up where pages are may take this share of the time, 1/50, but a few blocks a tick; 1/4
// while some were never looked at: what lies nobody knows where is not watched.
constexpr std::int64_t kLookShare = 50;
constexpr std::int64_t kFirstLookShare = 4;
constexpr std::uint32_t kLeastLooks = 4;
// Demoted at most, in a second: a tenth of what memory of this kind can take.
constexpr std::uint64_t kPagesPerSecond = (std::uint64_t{1} << 30) / kPageSize;
// In one round no longer than this, as far as is known: what lies parked meanwhile waits for it.
constexpr Nanos kMovesAtOnce = millis(50);
// What would not be moved or parked is left alone for so long.
constexpr Nanos kStaysFor = millis(500);
// And what would not go up, or into the store.
constexpr Nanos kRefusedFor = seconds(8);
constexpr Nanos kRoomsEvery = millis(50);
// Hint time that was not used is kept for so long; and what a hint may be taken to cost.
constexpr Nanos kHintsSavedFor = seconds(30);
constexpr Nanos kLeastHintCost = micros(2);
constexpr Nanos kMostHintCost = micros(200);
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
  in_use_ = bootstrap::allocate_array<std::uint64_t>(core_.table.size() / 64 + 1);
  const bool all = blocks_ != nullptr && notes_ != nullptr && steps_ != nullptr;
  return all && in_use_ != nullptr ? kOk : Errno{ENOMEM};
}

SampledBlocks NodeLoop::blocks_in_use() {
  const std::uint32_t limit = core_.space.block_limit();
  const std::size_t words = (limit + 63) / 64;
  std::fill_n(in_use_, words, 0);
  std::uint32_t count = 0;
  for (std::uint32_t i = 0; (i = core_.space.next_block(i)) < limit; ++i) {
    if (!core_.manageable({i})) continue;
    in_use_[i / 64] |= std::uint64_t{1} << (i % 64);
    ++count;
  }
  return {core_.space.base(), {in_use_, words}, count};
}

// A report of a whole region holds for each of its blocks.
void NodeLoop::told(std::uintptr_t start, std::uintptr_t end, std::uint32_t looks,
                    std::uint32_t used, Nanos each) {
  const std::uintptr_t base = core_.space.base();
  if (start < base || end > base + core_.space.bytes() || start >= end) return;
  const auto first = static_cast<std::uint32_t>((start - base) / kPageblockSize);
  const auto last = static_cast<std::uint32_t>((end - 1 - base) / kPageblockSize);
  for (std::uint32_t b = first; b <= last && b < view_.blocks.size(); ++b) {
    blocks_[b].heat.add(looks, used, each);
  }
}

void NodeLoop::used(std::uintptr_t address, std::uint64_t times) {
  const std::uintptr_t at = address - core_.space.base();
  if (at >= core_.space.bytes()) return;
  const std::size_t b = at / kPageblockSize;
  if (b >= view_.blocks.size() || blocks_[b].pages() == 0) return;
  blocks_[b].uses.add(times);
  uses_.seen += 1;
  uses_.uses += static_cast<float>(times);
}

// Time in which nobody used anything that was seen makes nothing cold.
void NodeLoop::counted(Nanos now) {
  if (counted_at_.v == 0) counted_at_ = last_;
  if (uses_.seen <= 0) return;
  const Nanos since = std::min(now - counted_at_, seconds(1));
  std::uint32_t blocks = 0;
  for (const PlacedBlock& b : view_.blocks) blocks += b.pages() != 0 ? 1 : 0;
  const auto share = static_cast<float>(std::max(blocks, 1U));
  const UseShare average{since, uses_.seen / share, uses_.uses / share};
  for (PlacedBlock& b : view_.blocks) b.uses.pass(average);
  uses_ = {};
  counted_at_ = now;
}

// It may end within a round and between two: in a forked child, at exit. What it has told is not
// what watching finds out then, and the blocks that it is about need not be managed.
void NodeLoop::see_whether_told() {
  const bool told = view_.told;
  view_.told = sampler_ != nullptr && sampler_->tells();
  if (!told || view_.told) return;
  for (PlacedBlock& v : view_.blocks) {
    v.above.forget();
    v.below.forget();
    v.heat.forget();
    v.uses.forget();
    v.wanted = Wanted::kNone;
    v.dense = v.suspect = v.split = false;
  }
}

void NodeLoop::look_at(BlockIndex b, Nanos now) {
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
  // Interleaving settles the place of all pages.
  const bool interleaved = options_.policy.kind == PolicyKind::kInterleave;
  v.movable = notes.located && !block.stays() && !interleaved && (view_.told || core_.may_park(b));
  v.tier = block.tier.load(std::memory_order_relaxed);
  v.slow = block.slow.load(std::memory_order_relaxed);
  const bool huge = block.huge.load(std::memory_order_relaxed);
  if (huge != v.huge) v.heat.forget();
  v.huge = huge;
  if (v.huge && !view_.told) {
    constexpr auto kPages = static_cast<std::uint32_t>(kPagesPerBlock);
    v.gap = gap_of_each(block.gap.load(std::memory_order_relaxed), kPages);
    v.times = block.gaps_measured.load(std::memory_order_relaxed);
    v.measured = gap_of_each(block.last_gap.load(std::memory_order_relaxed), kPages);
    if (v.count_anew) {
      block.samples.store(0, std::memory_order_relaxed);
      block.repeats.store(0, std::memory_order_relaxed);
    }
    v.count_anew = false;
    v.samples = block.samples.load(std::memory_order_relaxed);
    v.repeats = block.repeats.load(std::memory_order_relaxed);
  }
  if (managed) {
    v.resident = static_cast<std::uint16_t>(block.count(PageState::kResident) +
                                            block.count(PageState::kClean));
    v.parked = static_cast<std::uint16_t>(block.count(PageState::kParked));
    v.touches = block.touches.exchange(0, std::memory_order_relaxed);
    v.far = block.far_touches.exchange(0, std::memory_order_relaxed);
    v.near = block.near_touches.exchange(0, std::memory_order_relaxed);
    // By hand, too.
    v.parked_since =
        std::max(v.parked_since, Nanos{block.parked_at.load(std::memory_order_relaxed)});
    if (v.watch != Watch::kNone && !v.huge) take_stock(v, now);
    if (v.parked == 0) migration_.clear_residue(b);
    if (v.resident + v.parked == 0) forget_heat(block);
    v.slow = std::min(v.slow, static_cast<std::uint16_t>(v.resident + v.parked));
  } else {
    v.resident = notes.resident;
    v.parked = 0;
  }
}

// How far watching of small pages has come; at its end, what it has told.
void NodeLoop::take_stock(PlacedBlock& v, Nanos now) {
  watching_ = true;
  v.touched = static_cast<std::uint16_t>(v.touched + v.touches);
  if (!policy_.watcher().due(v, now)) return;
  heaptier::take_stock(core_.table, v.index, policy_.watcher().soon(), &v.below, &v.above);
}

// Where the kernel has put pages, and puts them by itself: in turn, as far as the time allows.
void NodeLoop::find_places(Nanos now) {
  const Nanos since = now - last_;
  find_some_places(&hand_, false, now + Nanos{since.v / kLookShare});
  if (unseen_ == 0) return;
  find_some_places(&new_hand_, true, core_.ops.now() + Nanos{since.v / kFirstLookShare});
}

void NodeLoop::find_some_places(std::uint32_t* hand, bool unseen, Nanos end) {
  const std::uint32_t limit = core_.space.block_limit();
  std::uint32_t looks = 0;
  for (std::uint32_t n = 0; n < limit; ++n) {
    *hand = core_.space.next_block(*hand);
    if (*hand >= limit) {
      *hand = 0;
      return;
    }
    const BlockIndex b{(*hand)++};
    if (!core_.manageable(b) || (unseen && notes_[b.v].seen)) continue;
    find_place(b);
    if (++looks >= kLeastLooks && core_.ops.now() > end) return;
  }
}

void NodeLoop::find_place(BlockIndex b) {
  Pageblock& block = core_.table.block(b);
  Notes& notes = notes_[b.v];
  notes.seen = true;
  if (!block.served()) {
    bool huge = false;
    if (migration_.scan(b, &notes.resident, &huge).failed()) notes.resident = 0;
    block.found(huge);
    if (notes.resident == 0) return;
  } else if (core_.protection != nullptr) {
    migration_.look_again(b);
  }
  migration_.locate(b);
  notes.located = !core_.nodes->bound(core_.space.address_of(b));
}

void NodeLoop::look(Nanos now) {
  find_places(now);
  const std::uint32_t limit = core_.space.block_limit();
  std::uint64_t slow = 0;
  std::uint64_t unmanaged = 0;
  present_pages_ = 0;
  watching_ = false;
  unseen_ = 0;
  std::fill_n(used_, kMostPlaces, 0);
  for (std::uint32_t i = 0; (i = core_.space.next_block(i)) < limit; ++i) {
    look_at({i}, now);
    const PlacedBlock& v = blocks_[i];
    if (!notes_[i].seen && core_.manageable({i})) ++unseen_;
    slow += v.slow;
    used_[std::max<unsigned>(v.tier, 1)] += v.slow;
    present_pages_ += std::uint64_t{v.resident} + v.parked;
    if (!core_.table.block({i}).served()) unmanaged += v.resident;
  }
  core_.unmanaged_pages.store(unmanaged, std::memory_order_relaxed);
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
    const std::uint64_t capacity = nodes.capacity_pages(t);
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
  view_.gather_pages = options_.huge == HugeMode::kAuto ? nodes.room_pages(0) : 0;
  view_.several_sockets = nodes.sockets().count() > 1;
  view_.store_has_room = core_.store != nullptr && !core_.store_rests(now);
}

PlacementBudget NodeLoop::budget_for(Nanos since) const {
  const auto share = [this](Nanos time) {
    return static_cast<std::uint64_t>(time.v) * options_.hint_budget / 10000;
  };
  PlacementBudget budget;
  budget.hint_nanos = share(since);
  budget.hint_saved = share(kHintsSavedFor);
  if (const Nanos cost = core_.nodes->clock().cost(); cost.v != 0) {
    budget.hint_cost =
        static_cast<std::uint64_t>(std::clamp(cost, kLeastHintCost, kMostHintCost).v);
  }
  const auto in_time =
      static_cast<std::uint64_t>(kMovesAtOnce.v / std::max<std::int64_t>(move_cost_, 1));
  budget.move_pages = std::min(in_time, kPagesPerSecond * static_cast<std::uint64_t>(since.v) /
                                            static_cast<std::uint64_t>(seconds(1).v));
  budget.move_pages = std::max<std::uint64_t>(budget.move_pages, kPagesPerBlock);
  budget.watches = kMostWatches;
  return budget;
}

void NodeLoop::tick(Nanos now) {
  core_.stats.ticks.add();
  if (last_.v == 0) last_ = now - kShortPause;
  see_whether_told();
  look(now);
  if (view_.told) {
    sampler_->round(blocks_in_use(), now, *this);
    see_whether_told();
  }
  const Nanos since = std::min(now - last_, seconds(1));
  last_ = now;
  PlacementPlan plan{{steps_, kMostSteps}};
  policy_.decide(view_, now, budget_for(since), plan);
  bool any = false;
  parked_count_ = 0;
  slept_ = Nanos{};
  // Those first that have waited for long enough: moving takes its time.
  if (!carry_out_all(plan, true, &any) || !carry_out_all(plan, false, &any)) return;
  begin_watch(false);
  moved_ = any;
  const Nanos cost = core_.ops.now() - now - slept_;
  const bool learning = policy_.watcher().learning() && options_.hint_budget != 0;
  const bool soon = any || watching_ || learning || unseen_ > 0;
  pause_ = soon ? kShortPause : kLongPause;
  pause_ = std::clamp(Nanos{cost.v * (kRoundShare - 1)}, pause_, seconds(1));
}

void NodeLoop::keep_books(Nanos now) {
  look(now);
  last_ = now;
}

void NodeLoop::take_over(Nanos now) {
  for (PlacedBlock& v : view_.blocks) {
    v.watch = v.last = v.next = Watch::kNone;
    v.home = core_.table.block(v.index).count(PageState::kParked) != 0;
  }
  last_ = now;
}

// What comes home, or all else. False: to be left off at once.
bool NodeLoop::carry_out_all(const PlacementPlan& plan, bool home, bool* any) {
  for (std::size_t i = 0; i < plan.count; ++i) {
    const PlaceStep& step = plan.steps[i];
    if ((step.action == PlaceAction::kHome) != home) continue;
    if (!host_.between_steps() || core_.retired.load(std::memory_order_relaxed)) return false;
    *any = carry_out(step) || *any;
    if (parked_count_ == kWatchedAtOnce) begin_watch(i + 1 < plan.count);
  }
  return true;
}

// Parking took time: the clocks start together, when the application goes on.
void NodeLoop::begin_watch(bool more) {
  const Nanos now = core_.ops.now();
  for (; parked_count_ > 0; --parked_count_) {
    const BlockIndex b = parked_[parked_count_ - 1];
    note_parked(core_.table.block(b), core_.nodes->clock().mark(now));
    blocks_[b.v].parked_since = now;
  }
  if (!more) return;
  core_.nodes->ops().pause(kWatchFor);
  slept_ = slept_ + (core_.ops.now() - now);
}

// Pages that were parked.
std::uint32_t NodeLoop::park_for(const PlaceStep& step) {
  constexpr std::uint32_t kGlanceRun = 2;
  constexpr std::uint32_t kProbeRun = 8;
  constexpr std::uint32_t kFew = 64;
  constexpr auto kPages = static_cast<std::uint32_t>(kPagesPerBlock);
  const BlockIndex b = step.block;
  if (step.action == PlaceAction::kSplit) {
    // In halves: the whole would go in one piece.
    forget_seen(core_.table, b);
    const std::uint32_t parked = migration_.park(b, Parking::kAll, {0, kPages / 2}).moved +
                                 migration_.park(b, Parking::kAll, {kPages / 2, kPages / 2}).moved;
    if (parked != 0) core_.stats.nodes_huge_split.add();
    return parked;
  }
  if (core_.table.block(b).huge.load(std::memory_order_relaxed)) {
    return migration_.park(b, Parking::kAll).moved;
  }
  if (step.watch == Watch::kAgain) {
    mark_candidates(core_.table, b, policy_.watcher().perhaps());
    return migration_.park(b, Parking::kCandidates).moved;
  }
  forget_seen(core_.table, b);
  if (step.watch == Watch::kBelow) return migration_.park(b, Parking::kBelow).moved;
  if (step.watch == Watch::kAbove) return migration_.park(b, Parking::kAbove).moved;
  // A run in each half, somewhere else each time; all, where there are few.
  if (blocks_[b.v].resident <= kFew) return migration_.park(b, Parking::kAll).moved;
  const std::uint32_t run = step.watch == Watch::kGlance ? kGlanceRun : kProbeRun;
  const std::uint32_t at = probes_++ * 5 % (kPages / 2 / run) * run;
  return migration_.park(b, Parking::kAll, {at, run}).moved +
         migration_.park(b, Parking::kAll, {kPages - run - at, run}).moved;
}

bool NodeLoop::watch(const PlaceStep& step) {
  const BlockIndex b = step.block;
  PlacedBlock& v = blocks_[b.v];
  Pageblock& block = core_.table.block(b);
  std::uint32_t parked = 0;
  if (host_.ready_for_faults() && migration_.manage(b).ok()) {
    // What came back from a store keeps a copy there for a while: not where it is to be watched.
    if (block.count(PageState::kClean) != 0) migration_.recall(b, PageSpan{});
    note_parked(block, core_.nodes->clock().mark(core_.ops.now()));
    parked = park_for(step);
  }
  const Nanos now = core_.ops.now();
  if (parked == 0) {
    v.watch = Watch::kNone;
    v.not_before = v.stays_until = now + kStaysFor;
    return false;
  }
  v.parked_since = now;
  note_parked(block, core_.nodes->clock().mark(now));
  const bool huge = block.huge.load(std::memory_order_relaxed);
  watching_ = watching_ || !huge;
  if (huge && parked_count_ < kWatchedAtOnce) parked_[parked_count_++] = b;
  return true;
}

// What moving a page takes, averaged over some calls.
void NodeLoop::note_cost(Nanos began, std::uint32_t pages) {
  if (pages == 0) return;
  const std::int64_t each = (core_.ops.now() - began).v / pages;
  move_cost_ = move_cost_ == 0 ? each : (move_cost_ * 3 + each) / 4;
}

// What a sampler has told of need not have been watched: its pages are known from now on. Where
// they are parked their faults are served from then on, too.
bool NodeLoop::take_charge(BlockIndex b) {
  if (!view_.told && core_.table.block(b).served()) return true;
  if (core_.protection == nullptr && !host_.ready_for_faults()) return false;
  return migration_.manage(b).ok();
}

bool NodeLoop::demote(const PlaceStep& step) {
  const BlockIndex b = step.block;
  const Nanos began = core_.ops.now();
  MoveOutcome outcome;
  if (take_charge(b)) {
    outcome = migration_.demote(b, step.tier, view_.told ? Cold::kTold : Cold::kParked);
  }
  note_cost(began, outcome.moved);
  // Pinned, shared, no free block there: others are to have their turn.
  if (outcome.moved == 0 && outcome.raced == 0) {
    blocks_[b.v].stays_until = core_.ops.now() + kStaysFor;
  }
  if (view_.told) return outcome.moved > 0;
  // A huge page stays parked, so that its next touch is seen; that of small ones would tell nothing
  // that is worth a fault each. Unless they may go on to a store.
  const bool to_store = core_.store != nullptr && step.tier + 1U == view_.tier_count;
  if (!core_.table.block(b).huge.load(std::memory_order_relaxed) && !to_store) {
    (void)migration_.unpark(b, Migration::Unpark::kNotLazy);
  } else {
    blocks_[b.v].last = Watch::kBelow;  // what is parked is to be seen as that
  }
  return outcome.moved > 0;
}

bool NodeLoop::promote(const PlaceStep& step) {
  const BlockIndex b = step.block;
  const Nanos began = core_.ops.now();
  Pageblock& block = core_.table.block(b);
  // Nobody has seen from where it is used.
  if (view_.told) block.hot_node.store(block.node.load(std::memory_order_relaxed));
  const Gap soon = policy_.watcher().soon();
  const std::uint32_t pages = take_charge(b) ? migration_.promote(b, step.wanted, soon).moved : 0;
  const bool moved = pages > 0;
  note_cost(began, pages);
  // No free block of 2 MiB there, pinned, shared: it will not be otherwise soon.
  if (!moved) blocks_[b.v].rises_not_before = core_.ops.now() + kRefusedFor;
  return moved;
}

bool NodeLoop::cross(BlockIndex b) {
  const Nanos began = core_.ops.now();
  const std::uint32_t pages = migration_.balance(b).moved;
  note_cost(began, pages);
  if (pages > 0) {
    note_crossing(blocks_[b.v], began);
  } else {
    blocks_[b.v].crosses_not_before = began + kRefusedFor;
  }
  return pages > 0;
}

bool NodeLoop::store(BlockIndex b) {
  if (store_parked(core_, migration_, host_, b, Evictor::kBackground).gained()) return true;
  PlacedBlock& v = blocks_[b.v];
  v.stays_until = v.not_before = core_.ops.now() + kRefusedFor;  // it would not shrink
  return false;
}

// False: nothing came of it.
bool NodeLoop::carry_out(const PlaceStep& step) {
  const BlockIndex b = step.block;
  switch (step.action) {
    case PlaceAction::kWatch:
    case PlaceAction::kSplit:
      return watch(step);
    case PlaceAction::kHome:
      return migration_.unpark(b, Migration::Unpark::kNotLazy).moved > 0;
    case PlaceAction::kPromote:
      return promote(step);
    case PlaceAction::kDemote:
      return demote(step);
    case PlaceAction::kStore:
      if (core_.store_rests(core_.ops.now())) return false;
      return store(b);
    case PlaceAction::kCross:
      return cross(b);
    case PlaceAction::kGather:
      return take_charge(b) && migration_.gather(b).moved > 0;
  }
  return false;
}

}  // namespace heaptier
