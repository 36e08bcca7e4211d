#include "policies/placement.h"

#include <array>

namespace heaptier {
namespace {

// Small pages of a block that are still untouched after this long are told from the others.
constexpr Nanos kWindow = millis(200);
// A parked page of the last tier goes to the store after this long.
constexpr Nanos kIdleForStore = seconds(2);
// A block that was touched rests before it is watched again, twice as long each time it shows the
// same: a huge page costs then a fault in 8 s.
constexpr Nanos kShortestRest = millis(500);
constexpr std::uint8_t kMostBackoff = 4;
// The heat of so much of the first tier, its coldest, is what a promotion is held against: 1/8.
constexpr std::uint64_t kPriceShare = 8;
// While nothing is to be exchanged, watching may cost this part of its budget.
constexpr std::uint64_t kQuietShare = 32;
constexpr Nanos kBusyFor = seconds(1);
// Hint time may be saved up for so many ticks.
constexpr std::uint64_t kSavedTicks = 8;

// The heat of what could be demoted of a block, and how many pages that are; 0 pages: none.
struct Victim {
  Gap gap = kUnknownGap;
  std::uint32_t pages = 0;
};

// A huge page that was not measured often enough to be relied on.
bool unsure(const PlacedBlock& b) {
  return b.huge && b.times < GapEstimate::kMost;
}

Victim victim_of(const PlacedBlock& b, Nanos now) {
  if (!b.movable || now < b.stays_until) return {};
  const Gap idle = b.parked > 0 ? gap_of(now - b.parked_since) : kUnknownGap;
  if (b.huge) {
    // What was measured a time or two says little; a block that nobody touches tells by itself.
    const Gap gap = std::max(b.times >= GapEstimate::kMost / 2 ? b.gap : kUnknownGap, idle);
    if (gap == kUnknownGap) return {};
    return {gap, std::uint32_t{b.parked} + b.resident};
  }
  if (b.parked == 0 || now - b.parked_since < kWindow) return {};
  // Of a block of the first tier, what is parked below already is nothing to gain.
  const std::uint32_t below = b.tier == 0 ? std::min(b.slow, b.parked) : 0;
  return {idle, b.parked - below};
}

// What could be demoted of a tier, by heat.
class Victims {
 public:
  Victims(const PlacementView& view, unsigned tier, Nanos now) {
    for (const PlacedBlock& b : view.blocks) {
      if (b.tier != tier) continue;
      const Victim v = victim_of(b, now);
      pages_[v.gap] += v.pages;
      present_ += std::uint64_t{b.resident} + b.parked;
    }
  }
  // Pages on the tier, victims or not.
  std::uint64_t present() const { return present_; }
  // The coldest that hold at least so many pages: the shortest gap among them. kUnknownGap: there
  // are not so many.
  Gap cut(std::uint64_t pages) const {
    for (unsigned g = kLongestGap; g > kUnknownGap; --g) {
      if (pages_[g] >= pages) return static_cast<Gap>(g);
      pages -= pages_[g];
    }
    return kUnknownGap;
  }

 private:
  std::array<std::uint64_t, kLongestGap + 1> pages_{};
  std::uint64_t present_ = 0;
};

}  // namespace

// What watching has told since the last tick.
void PlacementPolicy::observe(PlacedBlock& b, Nanos now) {
  if (!b.movable || b.resident + b.parked == 0) b.suspect = false;
  if (b.watched == 0) {
    b.warm = 0;
    return;
  }
  const bool all_home = b.parked == 0;
  if (!all_home && (b.huge || now - b.parked_since < kWindow)) return;
  b.watched = 0;
  if (all_home && b.touches == 0) return;  // the park did not take place, or it was stored
  // What seems hot is measured once more at once: one measurement says little.
  b.suspect = b.slow > 0 && (b.huge ? b.measured <= promote_below_ : b.warm > 0);
  b.warm = 0;
  if (b.suspect || unsure(b)) {
    b.backoff = 0;
    b.not_before = now;
    return;
  }
  b.not_before = now + Nanos{kShortestRest.v << b.backoff};
  // What is on the first tier is looked at when something else is to go there.
  if (b.backoff < (b.tier == 0 ? kMostBackoff + 1 : kMostBackoff)) ++b.backoff;
}

void PlacementPolicy::decide(PlacementView& view, Nanos now, const PlacementBudget& budget,
                             PlacementPlan& plan) {
  if (view.tier_count < 2) return;
  unknown_ = suspects_ = 0;
  bool any_slow = false;
  for (PlacedBlock& b : view.blocks) {
    observe(b, now);
    any_slow = any_slow || b.slow > 0;
    if (b.suspect) ++suspects_;
    const bool unknown = b.not_before.v == 0 || unsure(b);
    if (b.movable && b.watched == 0 && unknown && b.resident > 0) ++unknown_;
  }
  const std::uint64_t wanted = plan_promotions(view, plan);
  if (wanted > 0) busy_until_ = now + kBusyFor;
  plan_demotions(view, now, budget, wanted, plan);
  plan_stores(view, now, plan);
  plan.promote_below = promote_below_;
  const std::uint64_t reserve = reserve_of(view.tiers[0].capacity_pages);
  if (any_slow || view.tiers[0].room_pages < reserve) plan_watches(view, now, budget, plan);
}

// What was touched often enough, as far as there is room; for the rest there is to be room soon.
std::uint64_t PlacementPolicy::plan_promotions(PlacementView& view, PlacementPlan& plan) {
  std::uint64_t wanted = 0;
  const std::uint64_t kept = reserve_of(view.tiers[0].capacity_pages) / 2;
  std::uint64_t& room = view.tiers[0].room_pages;
  for (const PlacedBlock& b : view.blocks) {
    if (b.hot == 0 || !b.movable) continue;
    if (room < kept + b.hot) {
      wanted += b.hot;
    } else if (plan.add({b.index, PlaceAction::kPromote, 0})) {
      room -= b.hot;
    }
  }
  return wanted;
}

// From the last tier but one upwards, so that room is made below before it is needed.
void PlacementPolicy::plan_demotions(const PlacementView& view, Nanos now,
                                     const PlacementBudget& budget, std::uint64_t wanted,
                                     PlacementPlan& plan) {
  std::uint64_t left = budget.move_pages;
  for (unsigned t = view.tier_count - 1; t-- > 0;) {
    const PlaceView& tier = view.tiers[t];
    const std::uint64_t reserve = reserve_of(tier.capacity_pages);
    std::uint64_t need = tier.room_pages < reserve ? reserve - tier.room_pages : 0;
    need += tier.over_pages;
    if (t == 0) {
      const std::uint64_t spare = tier.room_pages - std::min(tier.room_pages, reserve / 2);
      const std::uint64_t now_wanted = std::min(wanted, 4 * reserve);
      need = std::max(need, now_wanted - std::min(now_wanted, spare));
    }
    const PlaceView& below = view.tiers[t + 1];
    const std::uint64_t kept = reserve_of(below.capacity_pages) / 2;
    const std::uint64_t room = below.room_pages > kept ? below.room_pages - kept : 0;
    need = std::min({need, room, left});
    if (need == 0 && t != 0) continue;
    const Victims victims(view, t, now);
    if (t == 0) {
      // What would have to go sets the price: not the very coldest, which only seem so.
      const Gap price = victims.cut(std::max(need, victims.present() / kPriceShare));
      // Room that was made for what is hot is not there for all.
      const bool plenty = tier.room_pages > 2 * reserve && now >= busy_until_;
      const bool stuck = room == 0 && tier.room_pages <= reserve / 2;
      promote_below_ = plenty ? kLongestGap : stuck ? kUnknownGap : hotter(price, kExchange);
    }
    if (need > 0) demote_from(t, need, victims.cut(need), view, now, plan);
    left -= need;
  }
}

// The blocks of the tier that are as cold as `cut` or colder, until they hold `need` pages.
void PlacementPolicy::demote_from(unsigned tier, std::uint64_t need, Gap cut,
                                  const PlacementView& view, Nanos now, PlacementPlan& plan) {
  for (const PlacedBlock& b : view.blocks) {
    if (b.tier != tier || need == 0) continue;
    const Victim v = victim_of(b, now);
    if (v.pages == 0 || v.gap < cut) continue;
    if (!plan.add({b.index, PlaceAction::kDemote, static_cast<std::uint8_t>(tier + 1)})) return;
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
  for (const PlacedBlock& b : view.blocks) {
    if (need == 0) return;
    if (b.tier != last || !b.movable || b.parked == 0) continue;
    if (now - b.parked_since < kIdleForStore) continue;
    if (!plan.add({b.index, PlaceAction::kStore, 0})) return;
    need -= std::min<std::uint64_t>(need, b.parked);
  }
}

// False: the plan is full.
bool PlacementPolicy::watch(PlacedBlock& b, Nanos now, const PlacementBudget& budget,
                            PlacementPlan& plan) {
  if (!b.movable || b.watched != 0 || b.resident == 0 || b.not_before > now) return true;
  // Parked small pages are being watched still: those at home were just touched.
  if (b.parked > 0 && (b.huge || now - b.parked_since < kWindow)) return true;
  if (watches_ == 0 || !plan.add({b.index, PlaceAction::kWatch, 0})) return false;
  --watches_;
  b.watched = b.resident;
  b.suspect = false;
  if (b.not_before.v == 0) b.not_before = now;
  // Small pages fault one by one, the hot ones among them.
  hints_.spend(budget.hint_cost * (b.huge ? 1 : b.resident / 4 + 1U));
  return true;
}

// Slow blocks, so that what has become hot is found; and fast ones, for what could make room. Those
// that seem to have become hot first, or the hand would take as long to come round to them again as
// it took to find them.
void PlacementPolicy::plan_watches(PlacementView& view, Nanos now, const PlacementBudget& budget,
                                   PlacementPlan& plan) {
  const bool busy = now < busy_until_ || unknown_ > 0 || suspects_ > 0;
  const std::uint64_t nanos = busy ? budget.hint_nanos : budget.hint_nanos / kQuietShare;
  watches_ = budget.watches;
  hints_.refill(nanos, budget.hint_nanos * kSavedTicks);
  for (PlacedBlock& b : view.blocks) {
    if (suspects_ == 0 || !hints_.any()) break;
    if (b.suspect && !watch(b, now, budget, plan)) return;
  }
  const auto count = static_cast<std::uint32_t>(view.blocks.size());
  for (std::uint32_t visited = 0; visited < count && hints_.any(); ++visited) {
    if (hand_ >= count) hand_ = 0;
    if (!watch(view.blocks[hand_], now, budget, plan)) return;
    ++hand_;
  }
}

}  // namespace heaptier
