#include "policies/hotset.h"

#include <algorithm>

#include "policies/clock.h"
#include "policies/filter.h"
#include "policies/rank.h"
#include "policies/refault.h"

namespace heaptier {

using policy::Pressure;
using policy::Ranking;
using policy::Zone;

namespace {

// Pages kept in the park while memory is short or nearly so, as a share of what is used: the
// candidates that time has to sort. bench/simulate: 1/8 to 1/64 end in the same miss rate; a small
// share is kind to an application that touches everything.
constexpr std::uint64_t kWatchedShare = 16;

// Hint time may be saved up for so many ticks; a burst of faults is felt, so not for more.
constexpr std::uint64_t kSavedTicks = 8;

// Hints may cost this part of what misses cost, beyond their budget: while pages are fetched all
// the time, the blocks that are still whole must be searched for colder ones, or the scattered ones
// bear it all. bench/simulate --blocks 1024: without it, the first quarter has 18 % (zipf-huge) and
// 65 % (blocks-huge) more misses; a part of 1 to 16 makes 2 % of difference.
constexpr std::uint64_t kMissesPerHint = 4;

// MADV_COLLAPSE of 2 MiB, measured 517-780 us. Takes the place of the hints while there is no
// pressure.
constexpr std::uint64_t kCollapseNanos = 600'000;

// Dense enough to be made huge: the pages added are at most 2 % of the block. Once a block is
// registered with userfaultfd the kernel adds none: it must be complete.
constexpr bool is_dense(const BlockView& b) {
  constexpr std::uint32_t kDensePages = (kPagesPerBlock * 98 + 99) / 100;
  return b.resident >= (b.phase == BlockPhase::kUnmanaged ? kDensePages : kPagesPerBlock);
}

// A parked block of which this many pages came straight back is hot as a whole: the rest is brought
// home before it faults too.
constexpr bool comes_back(const BlockView& b) {
  return b.watched > 0 && policy::returned_pages(b) * 4 >= b.watched * 3U;
}

Ranking::Key rank(const BlockView& b, Nanos since, Nanos now) {
  if (b.mobility == Mobility::kReclaimable) return Ranking::kFirst;
  return Ranking::key_of_age(now - since);
}

bool may_park(const BlockView& b, Nanos now, Zone zone) {
  if (!policy::is_whole(b) || b.resident == 0 || !policy::may_demote(b, now)) return false;
  if (zone == Zone::kHigh) return !policy::hopelessly_hot(b);
  return b.not_before <= now;
}

// Hint faults to expect of parking this block.
std::uint64_t faults_of(const BlockView& b, Action action, const policy::ReturnShare& share) {
  if (b.huge && action == Action::kPark) return 1;
  return b.heat > 0 && !b.huge ? b.heat : share.returning(b.resident);
}

}  // namespace

void HotsetPolicy::decide(View& view, Nanos now, const Budget& budget, Plan& plan) {
  pressure_ = watermarks_.judge(view, budget);
  if (pressure_.zone == Zone::kCalm) {
    if (budget.collapse) plan_collapses(view, now, budget, plan);
    return;
  }
  std::uint64_t fetches = 0;
  for (BlockView& b : view.blocks) {
    if (b.phase == BlockPhase::kScattered) fetches += b.touches;
    policy::observe(b, now, share_);
  }
  const std::uint64_t hint_nanos = budget.hint_nanos + fetches * budget.hint_cost / kMissesPerHint;
  hints_.refill(hint_nanos, hint_nanos * kSavedTicks);
  if (!view.store_has_room) return;

  storing_ = 0;
  watching_ = view.parked_bytes / kPageSize;
  plan_stores(view, now, plan);
  plan_parks(view, now, budget, plan);
  plan_remaining_sweeps(view, now, plan);
}

// Parked pages that nobody came for, oldest first; and home with those that are hot after all.
void HotsetPolicy::plan_stores(View& view, Nanos now, Plan& plan) {
  if (view.parked_bytes == 0) return;
  const bool high = pressure_.zone == Zone::kHigh;
  const auto may_store = [&](const BlockView& b) {
    return b.parked > 0 && policy::may_demote(b, now) && (high || !comes_back(b)) &&
           (b.mobility == Mobility::kReclaimable || now - b.parked_since >= pressure_.idle);
  };
  Ranking ranking;
  for (const BlockView& b : view.blocks) {
    if (may_store(b)) ranking.count(rank(b, b.parked_since, now), b.parked);
  }
  ranking.cut(pressure_.need, plan.room());
  for (BlockView& b : view.blocks) {
    if (may_store(b)) {
      if (!ranking.take(rank(b, b.parked_since, now), b.parked)) continue;
      if (!plan.add({b.index, Action::kStore, high ? Reason::kPressure : Reason::kIdle})) return;
      storing_ += b.parked;
      watching_ -= std::min<std::uint64_t>(watching_, b.parked);
    } else if (!high && b.parked > 0 && b.mobility != Mobility::kUnmovable && comes_back(b)) {
      if (!plan.add({b.index, Action::kUnpark, Reason::kHot})) return;
      share_.note(policy::returned_pages(b), b.watched);
      b.heat = b.watched;
      policy::let_rest(b, now);
    }
  }
}

// New candidates, coldest first, until enough of them are parked that what is needed can be
// expected to stay there.
void HotsetPolicy::plan_parks(View& view, Nanos now, const Budget& budget, Plan& plan) {
  const Zone zone = pressure_.zone;
  const std::uint64_t missing = pressure_.need - std::min(pressure_.need, storing_);
  const std::uint64_t needed = share_.pages_for(missing);
  const std::uint64_t wanted = std::max(needed, pressure_.used / kWatchedShare);
  if (wanted <= watching_) return;

  Ranking ranking;
  for (const BlockView& b : view.blocks) {
    if (may_park(b, now, zone)) ranking.count(rank(b, b.not_before, now), b.resident);
  }
  ranking.cut(wanted - watching_, plan.room());
  for (BlockView& b : view.blocks) {
    if (!may_park(b, now, zone) || !ranking.take(rank(b, b.not_before, now), b.resident)) continue;
    const bool split = b.huge && zone != Zone::kNear && policy::known_hot(b);
    const Action action = split ? Action::kParkSplit : Action::kPark;
    const std::uint64_t cost = faults_of(b, action, share_) * budget.hint_cost;
    // Under real pressure what is needed is parked at any cost.
    const bool must = zone == Zone::kHigh && watching_ < needed;
    if (!must && !hints_.any()) return;
    if (!plan.add({b.index, action, zone == Zone::kNear ? Reason::kIdle : Reason::kPressure}))
      return;
    must ? hints_.spend_at_most_all(cost) : hints_.spend(cost);
    policy::watch(b);
    watching_ += b.resident;
  }
}

// What neither the stores of now nor those to come will free, nor probation beyond its target, is
// taken page by page. Above the high watermark nothing to come counts.
void HotsetPolicy::plan_remaining_sweeps(View& view, Nanos now, Plan& plan) {
  const bool high = pressure_.zone == Zone::kHigh;
  const std::uint64_t probation = view.probation_bytes / kPageSize;
  const std::uint64_t target = probation_target(view.resident_bytes / kPageSize);
  const std::uint64_t expected = storing_ + (high ? 0 : share_.yield(watching_)) +
                                 (probation > target ? probation - target : 0);
  if (pressure_.need > expected) {
    policy::plan_sweeps(view, now, pressure_.need - expected, high, plan);
  }
}

// While memory is plentiful, what is dense may be made huge.
void HotsetPolicy::plan_collapses(View& view, Nanos now, const Budget& budget, Plan& plan) {
  collapses_.refill(budget.hint_nanos, std::max(budget.hint_nanos, kCollapseNanos));
  const auto count = static_cast<std::uint32_t>(view.blocks.size());
  for (std::uint32_t visited = 0; visited < count && collapses_.any(); ++visited) {
    if (view.clock_hand >= count) view.clock_hand = 0;
    BlockView& b = view.blocks[view.clock_hand++];
    policy::observe(b, now, share_);
    if (b.huge || b.clean > 0 || !policy::is_whole(b) || !is_dense(b)) continue;
    if (!policy::may_demote(b, now)) continue;
    if (!plan.add({b.index, Action::kCollapse, Reason::kDense})) return;
    collapses_.spend(kCollapseNanos);
  }
}

}  // namespace heaptier
