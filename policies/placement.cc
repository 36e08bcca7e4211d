#include "policies/placement.h"

#include <algorithm>

#include "policies/balance.h"
#include "policies/bounce.h"
#include "policies/victims.h"

namespace heaptier {
namespace {

// The heat of so much of the first tier, its coldest, is what a promotion is held against: 1/8.
constexpr std::uint64_t kPriceShare = 8;
constexpr Nanos kBusyFor = seconds(1);
// So many pages worth promoting, found within a second, say that the use of memory has changed: one
// huge page may seem so by chance. All are then looked at anew, so often at most.
constexpr std::uint64_t kAlarmPages = kPagesPerBlock * 3 / 2;
constexpr Nanos kAlarmEvery = seconds(2);
// A block that could not be made huge, or was taken apart again, is left alone for so long.
constexpr Nanos kGatherEvery = seconds(30);

}  // namespace

void PlacementPolicy::decide(PlacementView& view, Nanos now, const PlacementBudget& budget,
                             PlacementPlan& plan) {
  if (view.tier_count < 2 && !view.several_sockets) return;
  if (view.told) {
    judge_told(view, now, watcher_.promote_below());
  } else {
    watcher_.observe_all(view, now);
  }
  std::uint64_t left = budget.move_pages;
  const std::uint64_t wanted = plan_promotions(view, now, &left, plan);
  const bool could_exchange = view.tier_count > 1 && view.tiers[1].room_pages > 0;
  if ((wanted > 0 && could_exchange) || raised_ >= kAlarmPages) alarm(view, now);
  watcher_.refill(budget, now < busy_until_);
  plan_demotions(view, now, wanted, &left, plan);
  plan_stores(view, now, plan);
  plan_ways_home(view, plan);
  if (view.several_sockets) plan_crossings(view, now, &left, plan);
  if (view.gather_pages > 0) plan_gathering(view, now, plan);
  const std::uint64_t reserve = reserve_of(view.tiers[0].capacity_pages);
  const bool any_slow =
      std::any_of(view.blocks.begin(), view.blocks.end(), [](const auto& b) { return b.slow > 0; });
  const bool short_of_room = view.tiers[0].room_pages < reserve;
  if (!view.told && (any_slow || view.several_sockets || short_of_room)) {
    watcher_.plan(view, now, plan);
  }
}

void PlacementPolicy::note_raised(std::uint64_t pages, Nanos now) {
  if (now - raised_since_ > kBusyFor) {
    rose_ = now - raised_since_ > kBusyFor + kBusyFor ? 0 : rising_;
    raised_since_ = now;
    raised_ = rising_ = 0;
  }
  raised_ += pages;
  rising_ += pages;
}

// What is used has changed. Where some of it was found there is more: nobody rests any longer.
void PlacementPolicy::alarm(PlacementView& view, Nanos now) {
  busy_until_ = now + kBusyFor;
  raised_ = 0;
  if (now < next_alarm_) return;
  next_alarm_ = now + kAlarmEvery;
  watcher_.wake_all(view, now);
}

// What was touched often enough, as far as there is room; for the rest there is to be room soon.
std::uint64_t PlacementPolicy::plan_promotions(PlacementView& view, Nanos now, std::uint64_t* left,
                                               PlacementPlan& plan) {
  std::uint64_t wanted = 0;
  const std::uint64_t reserve = reserve_of(view.tiers[0].capacity_pages);
  std::uint64_t& room = view.tiers[0].room_pages;
  const std::uint64_t budgeted = *left;  // one block at least
  for (PlacedBlock& b : view.blocks) {
    if (b.wanted == Wanted::kNone || now < b.rises_not_before) continue;
    const std::uint64_t pages = std::min(b.wanted_pages, b.slow);
    // What goes up because there is room says nothing of the use of memory, and nobody makes room
    // for it: else that would be found again, and filled, for ever.
    const bool by_room = b.wanted_below == kCoolest;
    const std::uint64_t kept = by_room ? reserve + reserve / 2 : reserve / 2;
    if (room < kept + pages) {
      if (!by_room) wanted += pages;
    } else if (*left < pages && *left < budgeted) {
      continue;  // the next time
    } else if (plan.add({b.index, PlaceAction::kPromote, 0, Watch::kNone, b.wanted})) {
      if (b.huge || b.wanted == Wanted::kAll) note_hop(b, true, now);
      room -= pages;
      *left -= std::min(*left, pages);
      b.wanted = Wanted::kNone;
      if (!by_room) note_raised(pages, now);
    }
  }
  return wanted;
}

// From the last tier but one upwards, so that room is made below before it is needed.
void PlacementPolicy::plan_demotions(PlacementView& view, Nanos now, std::uint64_t wanted,
                                     std::uint64_t* left, PlacementPlan& plan) {
  for (unsigned t = view.tier_count - 1; t-- > 0;) {
    const PlaceView& tier = view.tiers[t];
    const std::uint64_t reserve = reserve_of(tier.capacity_pages);
    std::uint64_t need = tier.room_pages < reserve ? reserve - tier.room_pages : 0;
    need += tier.over_pages;
    if (t == 0) {
      const std::uint64_t spare = tier.room_pages - std::min(tier.room_pages, reserve / 2);
      // And where some went up there will be more, which are not to wait for room again.
      const bool goes_on = now < busy_until_ && now - raised_since_ <= kBusyFor + kBusyFor;
      const std::uint64_t soon = goes_on ? std::min(std::max(rising_, rose_) / 2, 2 * reserve) : 0;
      const std::uint64_t now_wanted = std::min(wanted + soon, 4 * reserve);
      need = std::max(need, now_wanted - std::min(now_wanted, spare));
    }
    const PlaceView& below = view.tiers[t + 1];
    const std::uint64_t kept = reserve_of(below.capacity_pages) / 2;
    const std::uint64_t room = below.room_pages > kept ? below.room_pages - kept : 0;
    need = std::min(need, room);
    if (need == 0 && t != 0) continue;
    const Victims victims(view, t, now);
    if (t == 0) {
      // What would have to go sets the price: not the very coldest, which only seem so.
      const Gap price = victims.cut(std::max(need, victims.present() / kPriceShare));
      // Room that was made for what is hot is not there for all.
      const bool plenty = tier.room_pages > 2 * reserve && now >= busy_until_;
      const bool stuck = room == 0 && tier.room_pages <= reserve / 2;
      watcher_.set_promote_below(plenty  ? kCoolest
                                 : stuck ? kUnknownGap
                                         : hotter(price, kExchange));
    }
    const Gap cut = victims.cut(need);
    need -= std::min(need, victims.coming());
    if (need > 0) demote_from(t, need, left, cut, view, now, plan);
  }
}

// The blocks of the tier that are as cold as `cut` or colder, until they hold `need` pages.
void PlacementPolicy::demote_from(unsigned tier, std::uint64_t need, std::uint64_t* left, Gap cut,
                                  PlacementView& view, Nanos now, PlacementPlan& plan) {
  for (PlacedBlock& b : view.blocks) {
    if (need == 0) return;
    const Victim v = victim_of(b, tier, now);
    if (v.pages == 0 || v.gap < cut) continue;
    if (v.ready || view.told) {
      if (*left == 0) {  // the next time
        need -= std::min<std::uint64_t>(need, v.pages);
        continue;
      }
      *left -= std::min<std::uint64_t>(*left, v.pages);
      if (!plan.add({b.index, PlaceAction::kDemote, static_cast<std::uint8_t>(tier + 1)})) return;
      if (v.pages == b.pages()) note_hop(b, false, now);
      b.home = false;  // whoever demotes them brings them home
    } else if (b.watch != Watch::kNone || b.home || b.wanted != Wanted::kNone) {
      continue;  // soon, or what is known of its pages is still needed
    } else if (!watcher_.may_look_again() || !watcher_.watch(b, sweep_of(tier), plan)) {
      return;
    }
    need -= std::min<std::uint64_t>(need, v.pages);
  }
}

// Below the last node comes the store, if any: what lies there parked for long.
void PlacementPolicy::plan_stores(const PlacementView& view, Nanos now, PlacementPlan& plan) {
  const unsigned last = view.tier_count - 1;
  const PlaceView& tier = view.tiers[last];
  const std::uint64_t reserve = reserve_of(tier.capacity_pages);
  if (!view.store_has_room || tier.room_pages >= reserve) return;
  std::uint64_t need = reserve - tier.room_pages;
  // Twice as many are made ready as are needed: some of them will be touched.
  const Gap cut = Victims(view, last, now).cut(2 * need);
  std::uint64_t waiting = 0;
  for (PlacedBlock& b : view.blocks) {
    if (need == 0) return;
    const Victim v = victim_of(b, last, now);
    if (v.pages == 0 || (b.huge && b.parked == 0 && !view.told)) continue;
    const bool ready = v.ready && b.parked > 0;
    const bool idle = ready && now - b.parked_since >= BlockWatcher::kIdleForStore;
    if (ready) b.home = false;
    if (idle && plan.add({b.index, PlaceAction::kStore})) {
      need -= std::min<std::uint64_t>(need, b.parked);
    } else if (ready || b.watch == Watch::kBelow) {
      waiting += b.parked;
    } else if (waiting < 2 * need && v.gap >= cut && b.watch == Watch::kNone && !b.home &&
               b.wanted == Wanted::kNone && watcher_.may_look_again() &&
               watcher_.watch(b, b.huge ? Watch::kWhole : Watch::kBelow, plan)) {
      waiting += v.pages;
    }
  }
}

// Memory of the first tier that is used from another socket.
void PlacementPolicy::plan_crossings(PlacementView& view, Nanos now, std::uint64_t* left,
                                     PlacementPlan& plan) {
  for (PlacedBlock& b : view.blocks) {
    if (*left == 0) return;
    if (b.home || now < b.crosses_not_before || !should_cross(b, now)) continue;
    if (!plan.add({b.index, PlaceAction::kCross})) return;
    *left -= std::min<std::uint64_t>(*left, b.pages());
    b.pull = 0;
  }
}

// A copy of 2 MiB each: a few a round. While one is made the tier holds a block more than the
// option may allow, since that can leave no room for as long as all of the tier is hot.
void PlacementPolicy::plan_gathering(PlacementView& view, Nanos now, PlacementPlan& plan) {
  constexpr std::uint64_t kAtOnce = 4;
  // The copy needs room for a while, which the kernel is not to take from others.
  const std::uint64_t fit = std::min(view.gather_pages / kPagesPerBlock, kAtOnce);
  std::uint64_t planned = 0;
  for (PlacedBlock& b : view.blocks) {
    if (!b.dense || now < b.gather_not_before) continue;
    if (b.huge || b.slow != 0 || b.parked != 0 || b.resident != kPagesPerBlock || !b.movable ||
        b.watch != Watch::kNone || b.home || b.wanted != Wanted::kNone) {
      continue;
    }
    if (planned == fit || !plan.add({b.index, PlaceAction::kGather})) return;
    ++planned;
    b.dense = false;
    b.gather_not_before = now + kGatherEvery;
  }
}

// What is still parked when its time is over comes home in one go: its touches would tell nothing
// that is worth a fault.
void PlacementPolicy::plan_ways_home(PlacementView& view, PlacementPlan& plan) {
  for (PlacedBlock& b : view.blocks) {
    if (!b.home) continue;
    if (b.parked > 0 && !plan.add({b.index, PlaceAction::kHome})) return;
    b.home = false;
  }
}

}  // namespace heaptier
