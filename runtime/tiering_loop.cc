#include "runtime/tiering_loop.h"

#include <algorithm>

#include "policies/refault.h"
#include "runtime/bootstrap_heap.h"
#include "runtime/discard.h"

namespace heaptier {
namespace {

constexpr auto kBlockPages = static_cast<std::uint32_t>(kPagesPerBlock);
constexpr std::size_t kDiscardBatch = 64;
// Rests ended in one tick: pages, pageblocks walked for them, pageblocks looked at. What was stuck
// leaves the reckoning slowly, not all at once.
constexpr std::uint32_t kRestsEnded = 32;
constexpr std::uint32_t kRestsWalked = 4;
constexpr std::uint32_t kRestsSeen = 256;
// Scanning page tables of pageblocks that are not managed may take this share of the time: 1/50.
constexpr std::int64_t kScanShare = 50;

}  // namespace

Errno TieringLoop::init() {
  blocks_ = static_cast<BlockView*>(
      bootstrap::allocate(core_.table.size() * sizeof(BlockView), kPageSize));
  steps_ = bootstrap::allocate_array<Step>(kMaxSteps);
  if (blocks_ == nullptr || steps_ == nullptr) return {ENOMEM};
  return kOk;
}

void TieringLoop::look_at(BlockIndex b) {
  Pageblock& block = core_.table.block(b);
  BlockView& v = blocks_[b.v];
  v.index = b;
  const bool managed = block.served();
  if (core_.space.pages_used(b) == 0) block.forget_pins();
  if (!core_.manageable(b) && !managed) {
    v = BlockView{};
    v.index = b;
    v.mobility = Mobility::kUnmovable;
    return;
  }
  v.mobility =
      block.stays() || !core_.manageable(b) ? Mobility::kUnmovable : core_.space.mobility_of(b);
  if (!managed) {
    bool huge = false;
    if (migration_.scan(b, &v.resident, &huge).failed()) v.resident = 0;
    v.huge = huge;
    v.phase = BlockPhase::kUnmanaged;
    return;
  }
  v.huge = block.huge.load(std::memory_order_relaxed);
  v.clean = static_cast<std::uint16_t>(block.count(PageState::kClean));
  // What would not shrink is nothing to gain.
  const std::uint32_t resident = block.count(PageState::kResident);
  const std::uint32_t resting = block.resting.load(std::memory_order_relaxed);
  v.resident = static_cast<std::uint16_t>(resident - std::min(resident, resting) + v.clean);
  v.parked = static_cast<std::uint16_t>(block.count(PageState::kParked));
  v.stored =
      static_cast<std::uint16_t>(block.count(PageState::kStored) + block.count(PageState::kFilled));
  v.touches = block.touches.exchange(0, std::memory_order_relaxed);
  if (v.phase == BlockPhase::kUnmanaged) v.phase = BlockPhase::kWhole;
  if (v.phase == BlockPhase::kParked && v.parked == 0) {
    v.phase = v.stored + v.clean > 0 ? BlockPhase::kScattered : BlockPhase::kWhole;
  }
  if (v.parked == 0) migration_.clear_residue(b);
}

void TieringLoop::look(Nanos now) {
  const std::uint32_t limit = core_.space.block_limit();
  // Page tables of unmanaged blocks are read at most so often that it stays a small share of the
  // time.
  const bool scan = now - last_scan_ >= Nanos{scan_cost_.v * kScanShare};
  std::uint64_t unmanaged = 0;
  view_.resident_bytes = 0;
  view_.parked_bytes = 0;
  view_.stored_bytes = 0;
  std::uint64_t pinned = 0;
  const Nanos begin = core_.ops.now();
  for (std::uint32_t i = 0; (i = core_.space.next_block(i)) < limit; ++i) {
    const BlockIndex b{i};
    const bool managed = core_.table.block(b).served();
    if (managed || scan) look_at(b);
    const BlockView& v = blocks_[i];
    if (!managed) unmanaged += v.resident;
    if (managed && core_.table.block(b).stays()) {
      pinned += v.resident;
    } else {
      view_.resident_bytes += std::uint64_t{v.resident} * kPageSize;
    }
    view_.parked_bytes += std::uint64_t{v.parked} * kPageSize;
    view_.stored_bytes += std::uint64_t{v.stored} * kPageSize;
  }
  if (scan) {
    last_scan_ = now;
    scan_cost_ = core_.ops.now() - begin;
  }
  core_.unmanaged_pages.store(unmanaged, std::memory_order_relaxed);
  stuck_pages_.store(pinned + core_.table.resting_pages(), std::memory_order_relaxed);
  view_.blocks = {blocks_, limit};
  view_.probation_bytes = core_.table.total(PageState::kClean) * kPageSize;
  // Copied pages that wait out their grace time will leave without anybody planning it.
  const std::uint64_t leaving = std::uint64_t{core_.copied.size()} * kPageSize;
  view_.resident_bytes -= std::min(view_.resident_bytes, leaving);
  view_.store_has_room = core_.store != nullptr && !core_.store_rests(now);
}

// Once the heap could grow beyond its budget, every pageblock in use is registered, touched or not:
// growth then comes as faults, which make room for themselves, instead of outrunning the background
// thread (and, in a cgroup, the kernel's patience). A run of first touches costs one fault for many
// pages.
void TieringLoop::manage_growth() {
  const bool may_exceed =
      marks_.fast_bytes != 0 && core_.space.usage().demotable_bytes() >= marks_.low_bytes;
  if (!may_exceed || core_.store == nullptr) return;
  // Whoever wants huge pages from the start gets them by the kernel's own first touch.
  if (options_.huge == HugeMode::kAlways) return;
  const std::uint32_t limit = core_.space.block_limit();
  for (std::uint32_t i = 0; (i = core_.space.next_block(i)) < limit; ++i) {
    const BlockIndex b{i};
    if (core_.table.block(b).served() || !core_.manageable(b)) continue;
    if (!host_.ready_for_faults() || migration_.manage(b).failed()) return;
  }
}

void TieringLoop::end_some_rests() {
  std::uint32_t pages = kRestsEnded;
  std::uint32_t walked = 0;
  const std::uint32_t limit = core_.space.block_limit();
  for (std::uint32_t seen = 0; seen < kRestsSeen && walked < kRestsWalked && pages > 0; ++seen) {
    rest_hand_ = core_.space.next_block(rest_hand_);
    if (rest_hand_ >= limit) {
      rest_hand_ = 0;
      return;
    }
    const BlockIndex b{rest_hand_};
    if (core_.table.block(b).resting.load(std::memory_order_relaxed) != 0) {
      migration_.end_rests(b, &pages);
      ++walked;
    }
    if (pages > 0) ++rest_hand_;
  }
}

void TieringLoop::set_marks(const MemorySituation& situation) {
  marks_ = derive_watermarks(budget_, situation);
  const bool limited = marks_.fast_bytes != 0;
  core_.high_pages.store(limited ? marks_.high_bytes / kPageSize : UINT64_MAX,
                         std::memory_order_relaxed);
  core_.low_pages.store(limited ? marks_.low_bytes / kPageSize : UINT64_MAX,
                        std::memory_order_relaxed);
  core_.probation_pages.store(
      limited ? probation_target(marks_.fast_bytes / kPageSize) : UINT64_MAX,
      std::memory_order_relaxed);
  // Stamps are 16 bits wide: their granularity grows with the heap so that they cover it twice.
  core_.stamp_shift.store(stamp_shift(situation.heap_bytes / kPageSize), std::memory_order_relaxed);
}

void TieringLoop::keep_marks(MemorySituation situation) {
  situation.stuck_bytes = core_.table.resting_pages() * kPageSize;
  situation.present_bytes = core_.present_pages() * kPageSize;
  situation.heap_bytes =
      situation.present_bytes +
      (core_.table.total(PageState::kStored) + core_.table.total(PageState::kFilled)) * kPageSize;
  situation.store_bytes = core_.store != nullptr ? core_.store->usage().resident_bytes : 0;
  set_marks(situation);
  manage_growth();
}

void TieringLoop::take_over(Nanos now) {
  const std::uint32_t limit = core_.space.block_limit();
  for (std::uint32_t i = 0; (i = core_.space.next_block(i)) < limit; ++i) {
    Pageblock& block = core_.table.block({i});
    if (!block.served() || block.count(PageState::kParked) == 0) continue;
    blocks_[i].phase = BlockPhase::kParked;
    blocks_[i].parked_since = now;
  }
  last_ = now;
}

void TieringLoop::tick(Nanos now, MemorySituation situation) {
  core_.stats.ticks.add();
  if (core_.fetched.grow_if_crowded().failed() || core_.copied.grow_if_crowded().failed()) {
    core_.stats.errors_memory.add();
  }
  // The heap cannot hold more than was carved of it; below the mark there is nothing to look for.
  const std::uint64_t carved = core_.space.usage().demotable_bytes();
  if (core_.table.managed_blocks() == 0) {
    MemorySituation most = situation;
    most.heap_bytes = carved;
    most.present_bytes = carved;
    set_marks(most);
    const bool idle = marks_.fast_bytes == 0 || carved < marks_.low_bytes - marks_.low_bytes / 8;
    if (idle && options_.huge != HugeMode::kAuto) {
      pause_ = seconds(1);
      last_ = now;
      return;
    }
    pause_ = idle ? seconds(1) : millis(10);
  }
  manage_growth();
  end_some_rests();
  look(now);
  situation.stuck_bytes = stuck_bytes();
  situation.present_bytes = view_.resident_bytes + view_.parked_bytes + situation.stuck_bytes;
  situation.heap_bytes = situation.present_bytes + view_.stored_bytes;
  situation.store_bytes = core_.store != nullptr ? core_.store->usage().resident_bytes : 0;
  set_marks(situation);

  const Nanos since = last_.v == 0 ? millis(10) : std::min(now - last_, seconds(1));
  last_ = now;
  Budget budget;
  // The policy sees what can leave, and what of the budget is left for that.
  budget.fast_bytes = marks_.fast_bytes;
  budget.high_bytes = marks_.high_bytes - marks_.stuck_bytes;
  budget.low_bytes = marks_.low_bytes - marks_.stuck_bytes;
  budget.hint_nanos = static_cast<std::uint64_t>(since.v) * options_.hint_budget / 10000;
  budget.collapse = options_.huge == HugeMode::kAuto;
  Plan plan{{steps_, kMaxSteps}};
  policy_.decide(view_, now, budget, plan);
  for (const Step& step : plan.steps()) {
    if (!host_.between_steps() || core_.retired.load(std::memory_order_relaxed)) return;
    carry_out(step);
  }
  drain_probation();

  const std::uint64_t movable = view_.resident_bytes + view_.parked_bytes;
  if (marks_.fast_bytes == 0 || movable < budget.low_bytes / 2) {
    pause_ = millis(500);
  } else if (movable < budget.low_bytes - budget.low_bytes / 8) {
    pause_ = millis(50);
  } else {
    pause_ = core_.above_low() ? millis(2) : millis(10);
  }
}

void TieringLoop::carry_out(const Step& step) {
  const BlockIndex b = step.block;
  BlockView& v = blocks_[b.v];
  if (step.action == Action::kCollapse) {
    if (v.phase == BlockPhase::kUnmanaged) {
      v.fruitless =
          static_cast<std::uint16_t>(migration_.collapse(b).gained() ? 0 : v.fruitless + 1);
    }
    return;
  }
  if (!host_.ready_for_faults()) return;
  if (migration_.manage(b).failed()) {
    ++v.fruitless;
    return;
  }
  if (v.phase == BlockPhase::kUnmanaged) v.phase = BlockPhase::kWhole;
  MoveOutcome outcome;
  switch (step.action) {
    case Action::kPark:
    case Action::kParkSplit:
      outcome = step.action == Action::kPark ? migration_.park(b, Parking::kAll)
                                             : migration_.park_split(b);
      if (outcome.moved > 0) {
        v.phase = BlockPhase::kParked;
        v.parked_since = core_.ops.now();
      } else if (outcome.busy > 0) {
        // Shared with a forked child, or pinned: not by moving. Page by page it may still work.
        v.phase = BlockPhase::kScattered;
      }
      break;
    case Action::kStore:
      outcome = store_parked(core_, migration_, host_, b, Evictor::kBackground);
      v.phase = BlockPhase::kScattered;
      break;
    case Action::kSweep:
      v.phase = BlockPhase::kScattered;
      outcome = sweep(b);
      break;
    case Action::kUnpark:
      outcome = migration_.unpark(b);
      v.phase = v.stored + v.clean > 0 ? BlockPhase::kScattered : BlockPhase::kWhole;
      break;
    case Action::kCollapse:
      break;
  }
  if (outcome.store_full) core_.store_refused(core_.ops.now());
  const bool nothing =
      !outcome.gained() && (outcome.busy > 0 || outcome.failed || outcome.incompressible > 0);
  if (outcome.gained()) {
    v.fruitless = 0;
  } else if (nothing && v.fruitless < UINT16_MAX) {
    ++v.fruitless;
  }
}

// Page by page. What was never written since it was mapped is copied and stays for its probation;
// the rest leaves by the park, which needs one interruption of other CPUs like protecting would,
// but no grace time. Pages that cannot be moved because a forked child shares them are protected
// and copied.
MoveOutcome TieringLoop::sweep(BlockIndex b) {
  const bool hurry = core_.above_high();
  const MoveOutcome parked = migration_.park(b, hurry ? Parking::kSpared : Parking::kWritten);
  MoveOutcome outcome;
  outcome.busy = parked.busy;
  outcome.incompressible = parked.incompressible;
  if (parked.moved > 0) {
    outcome.add(store_parked(core_, migration_, host_, b, Evictor::kBackground));
  }
  const CopyOut which = parked.busy > 0 ? CopyOut::kAll : CopyOut::kProtected;
  for (std::uint32_t next = 0; next < kBlockPages && host_.between_steps();) {
    const MoveOutcome part = migration_.copy_out(b, &next, which);
    outcome.add(part);
    if (part.failed || part.store_full) break;
  }
  return outcome;
}

// Lets clean pages go as long as memory is above the low mark: first those that only wait for it,
// then those whose probation has lasted long enough because newer ones have come.
void TieringLoop::drain_probation() {
  const std::uint64_t keep = core_.probation_pages.load(std::memory_order_relaxed);
  while (core_.above_low() && host_.between_steps()) {
    std::size_t left = 0;
    const std::size_t looked =
        discard_copied(core_, migration_.worker(), kStagingPages, Evictor::kBackground, &left);
    std::size_t gone = 0;
    if (core_.fetched.size() > keep || core_.above_high()) {
      gone = discard_fetched(core_, kDiscardBatch, Evictor::kBackground);
    }
    if (looked == 0 && gone == 0) break;
  }
}

int TieringLoop::demote_range(PageIndex first, std::uint32_t pages, bool store, MoveOutcome* why) {
  if (core_.retired.load(std::memory_order_relaxed)) return 0;
  if (store && core_.store == nullptr) return 0;
  if (!host_.ready_for_faults()) return -ENOTSUP;
  std::uint32_t done = 0;
  each_part(first, pages, [&](BlockIndex b, PageSpan span) {
    if (core_.manageable(b) && !core_.table.block(b).pinned() && migration_.manage(b).ok()) {
      BlockView& v = blocks_[b.v];
      migration_.recall(b, span);
      MoveOutcome outcome = migration_.park(b, Parking::kAll, span);
      if (outcome.moved > 0) {
        v.phase = BlockPhase::kParked;
        v.parked_since = core_.ops.now();
      }
      if (store) {
        outcome.add(store_parked(core_, migration_, host_, b, Evictor::kAsked, span));
        v.phase = BlockPhase::kScattered;
      }
      if (why != nullptr) why->add(outcome);
      for (std::uint32_t i = 0; i < span.n; ++i) {
        const PageState s = core_.table.peek({first_page(b).v + span.first + i}).state();
        const bool away = s == PageState::kStored || s == PageState::kFilled;
        if (store ? away : away || s == PageState::kParked) ++done;
      }
    }
    return host_.between_steps();
  });
  return static_cast<int>(done);
}

}  // namespace heaptier
