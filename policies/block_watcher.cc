#include "policies/block_watcher.h"

#include <numeric>

#include "policies/balance.h"
#include "policies/bounce.h"
#include "policies/density.h"

namespace heaptier {
namespace {

// What is looked at lies parked for as long as a page must go untouched that is not worth
// promoting, within these bounds; and for so long while nothing is known.
constexpr Nanos kShortestWindow = millis(2);
constexpr Nanos kLongestWindow = seconds(1);
constexpr Nanos kFirstWindow = millis(100);
// While nothing is known so many touches of a block's small pages are enough.
constexpr std::uint16_t kTelling = 4;
// A block that was touched rests before it is watched again, twice as long each time it shows the
// same: a huge page costs then a fault in 8 s.
constexpr Nanos kShortestRest = millis(500);
constexpr std::uint8_t kMostBackoff = 4;
// What was found worth promoting is so for this long; then it is looked at anew.
constexpr Nanos kWantedFor = seconds(2);
// Hint time is used at most so many times as fast as it comes in while there is something to find
// out or to exchange, and otherwise so many times more slowly. What pays for itself may cost twice
// as much as the former.
constexpr std::uint64_t kBusyPace = 10;
constexpr std::uint64_t kQuietShare = 32;
constexpr std::uint64_t kPaceTicks = 8;
// Parking a small page and bringing it home untouched, ns.
constexpr std::uint64_t kParkCost = 100;
constexpr std::uint64_t kGlancePages = 4;
constexpr std::uint64_t kProbePages = 16;
// Half octaves, four times: an estimate that rests on four measurements is seldom so far off, and
// hardly ever twice as far.
constexpr Gap kFarOff = 4;
// Eleven times, after so many touches.
constexpr Gap kSoHot = 7;
constexpr std::uint8_t kFirstSight = 5;

// The mean of what comes at random and was not always waited for: the time that all of them were
// away, by the number of touches. What came before counts half as much each time it has told
// enough, and not at all if this cannot be chance.
void estimate(WatchedPart& part, Nanos window) {
  constexpr std::uint32_t kEnough = 16;
  constexpr Nanos kLongEnough = seconds(600);
  if (part.watched() == 0) return;
  const Nanos sum = part.away + Nanos{window.v * part.parked};
  part.measured = gap_of({sum.v / std::max<std::int64_t>(part.touched, 1)});
  if (part.gap != kUnknownGap) {
    const std::int64_t expected = sum.v / length_of(part.gap).v;
    const bool hotter_now =
        part.touched >= kTelling && part.measured + 4 * kGapsPerOctave <= part.gap;
    const bool colder_now = expected >= 2 * kTelling && part.touched * 8 <= expected;
    if (hotter_now || colder_now) {
      part.exposure = {};
      part.hits = 0;
    } else if (part.hits >= kEnough || part.exposure > kLongEnough) {
      part.exposure.v /= 2;
      part.hits /= 2;
    }
  }
  part.exposure = part.exposure + sum;
  part.hits += part.touched;
  part.gap = gap_of({part.exposure.v / std::max<std::int64_t>(part.hits, 1)});
}

// So many were touched soon that it is not by chance.
bool clearly_hot(const WatchedPart& part) {
  return part.soon * 7U >= part.watched();
}

// Of all pages of a block, watched at once: those that may be hot and do not go up for that alone.
std::uint32_t candidates_of(const WatchedPart& part) {
  return part.touched - (clearly_hot(part) ? part.soon : 0U);
}

bool wants_another_look(const PlacedBlock& b) {
  return b.suspect || b.split || b.next != Watch::kNone;
}

void want(PlacedBlock& b, Wanted what, std::uint16_t pages) {
  b.wanted = what;
  b.wanted_pages = pages;
}

}  // namespace

Nanos BlockWatcher::window() const {
  if (promote_below_ == kUnknownGap || every_page_goes_up()) return kFirstWindow;
  return std::clamp(length_of(promote_below_), kShortestWindow, kLongestWindow);
}

bool BlockWatcher::due(const PlacedBlock& b, Nanos now) const {
  if (b.huge || b.watch == Watch::kNone) return false;
  if (b.parked == 0) return true;
  const Nanos waited = now - b.parked_since;
  if (waited < window()) return false;
  return promote_below_ != kUnknownGap || b.touched >= kTelling || waited >= kLongestWindow;
}

bool BlockWatcher::unsure(const PlacedBlock& b) const {
  if (b.huge) return b.times < GapEstimate::kMost;
  return (b.pages_above() > 0 && b.above.gap == kUnknownGap) ||
         (b.slow > 0 && b.below.gap == kUnknownGap);
}

// How many of the pages that are to be parked are touched within the window.
std::uint64_t BlockWatcher::faults_of(const PlacedBlock& b, Watch how) const {
  const Nanos wait = window();
  const auto touched = [wait](const WatchedPart& part, std::uint64_t pages) {
    const Nanos gap = length_of(part.gap != kUnknownGap ? part.gap : gap_of(wait));
    return pages * static_cast<std::uint64_t>(std::min(wait, gap).v * 256 / gap.v) / 256;
  };
  switch (how) {
    case Watch::kNone:
      return 0;
    case Watch::kWhole:
      return 1;
    case Watch::kGlance:
    case Watch::kProbe: {
      const std::uint64_t n = how == Watch::kProbe ? kProbePages : kGlancePages;
      const std::uint64_t above = n * b.pages_above() / std::max<std::uint32_t>(b.pages(), 1);
      return touched(b.above, above) + touched(b.below, n - above);
    }
    case Watch::kBelow:
      return touched(b.below, b.slow);
    case Watch::kAbove:
      return touched(b.above, b.pages_above());
    case Watch::kAgain:
      return candidates_of(b.below) / 2U;
  }
  return 0;
}

// Whether looking at each page below the first tier is worth the faults: they would be made good
// within a minute if all touches of these pages came to the first tier. A touch there gains
// what CXL memory is slower by.
bool BlockWatcher::pays(const PlacedBlock& b) const {
  constexpr std::uint64_t kGain = 200;  // ns a touch
  // A machine where hints cost more is slow in all it does, and gains as much more by each touch.
  constexpr std::uint64_t kMostCost = 20'000;
  constexpr Nanos kHorizon = seconds(60);
  const auto touches = static_cast<std::uint64_t>(kHorizon.v / length_of(b.below.gap).v) * b.slow;
  return touches * kGain >= faults_of(b, Watch::kBelow) * std::min(hint_cost_, kMostCost);
}

void BlockWatcher::rest(PlacedBlock& b, Nanos now) {
  b.not_before = now + Nanos{kShortestRest.v << b.backoff};
  // What is on the first tier is looked at when something else is to go there.
  if (b.backoff < (b.slow == 0 ? kMostBackoff + 1 : kMostBackoff)) ++b.backoff;
}

void BlockWatcher::observe_huge(PlacedBlock& b, Nanos now) {
  if (b.parked > 0) return;  // not touched yet
  b.watch = Watch::kNone;
  if (b.touches == 0) return;  // the park did not take place, or it was stored
  want(b, Wanted::kNone, 0);
  const Gap below = b.slow == 0 ? promote_below_ : hotter(promote_below_, bar_of(b, now));
  const bool near = b.gap <= below + kFarOff;
  b.count_anew = b.samples > 0 && b.gap > below + 2 * kFarOff;
  if (b.slow == 0) {
    b.suspect = false;
  } else if (every_page_goes_up()) {
    want(b, Wanted::kAll, static_cast<std::uint16_t>(b.pages()));
  } else {
    // What seems hot is measured once more at once: one measurement says little. And so on until it
    // is clear how much of it is hot; unless at first sight it is so hot that it would be worth it
    // if only a quarter were. Not at every sight: some are so by chance.
    Density found = density(b.samples, b.repeats);
    if (b.samples <= kFirstSight && b.gap + kSoHot <= below) found = Density::kDense;
    const bool hot = b.gap <= below && !unsure(b);
    b.suspect = b.measured <= below || (near && found == Density::kUnsure);
    b.split = hot && found == Density::kSparse;
    if (hot && found == Density::kDense) {
      want(b, Wanted::kAll, static_cast<std::uint16_t>(b.pages()));
    }
    if (hot && found != Density::kUnsure) b.suspect = false;
  }
  if (b.suspect || unsure(b)) {
    b.backoff = 0;
    b.not_before = now;
    return;
  }
  rest(b, now);
}

void BlockWatcher::judge_glance(PlacedBlock& b, Nanos now) {
  if (every_page_goes_up()) {
    (void)judge_whole(b, now);
  } else if (b.below.soon > 0) {
    b.next = Watch::kProbe;
  }
}

// True: the block is judged as a whole, and wanted if any of it was touched. Because there is room
// for all that is used, or because nearly all that were parked are hot.
bool BlockWatcher::judge_whole(PlacedBlock& b, Nanos now) {
  const WatchedPart& part = b.below;
  const bool all_hot = part.touched * 5U >= part.watched() * 4 && part.measured <= promote_below_;
  b.dense = all_hot;
  if (!every_page_goes_up() &&
      (!all_hot || part.measured > hotter(promote_below_, bar_of(b, now)))) {
    return false;
  }
  if (part.touched > 0) want(b, Wanted::kAll, b.slow);
  return true;
}

// Pages that answer for all that lie below the first tier.
void BlockWatcher::judge_probe(PlacedBlock& b, Nanos now) {
  const WatchedPart& part = b.below;
  if (judge_whole(b, now)) return;
  if (part.soon > 0 && part.soon * 4U >= part.watched() && pays(b)) b.next = Watch::kBelow;
}

// All of them, each judged by itself. Of those that are not worth it one in 22 was touched soon,
// too, or one in 15 where the price is a little off: unless there are clearly more, they have to be
// so twice. And one in 16 of those that are was not: what was touched later is asked once more.
void BlockWatcher::judge_sweep(PlacedBlock& b, Nanos now) {
  const WatchedPart& part = b.below;
  if (judge_whole(b, now)) return;
  if (clearly_hot(part)) {
    want(b, Wanted::kSoon, part.soon);
    if (candidates_of(part) > 0) b.next = Watch::kAgain;
  } else if (part.soon >= kTelling) {
    b.next = Watch::kAgain;
  }
}

// Those that had been touched, and have not gone up. Hot ones were so again nearly all of them, and
// soon; the others by chance.
void BlockWatcher::judge_candidates(PlacedBlock& b) {
  const WatchedPart& part = b.below;
  if (part.soon > 0 && clearly_hot(part)) want(b, Wanted::kTwice, part.soon);
}

void BlockWatcher::observe_small(PlacedBlock& b, Nanos now) {
  if (!due(b, now)) return;
  const Watch how = b.watch;
  b.watch = Watch::kNone;
  b.home = b.parked > 0;
  const Nanos window = now - b.parked_since;
  if (how != Watch::kAgain) {
    estimate(b.below, window);
    estimate(b.above, window);
  }
  b.blind = promote_below_ == kUnknownGap;
  // Of what is on the first tier already few say enough: it is only about huge pages.
  if (b.slow == 0 && !b.blind) {
    const WatchedPart& part = b.above;
    b.dense = part.watched() >= kGlancePages && part.parked == 0 && part.measured <= promote_below_;
  }
  if (b.slow > 0 && !b.blind) {
    if (how == Watch::kGlance) judge_glance(b, now);
    if (how == Watch::kProbe) judge_probe(b, now);
    if (how == Watch::kBelow) judge_sweep(b, now);
    if (how == Watch::kAgain) judge_candidates(b);
  }
  if (b.next != Watch::kNone) b.backoff = 0;
  rest(b, now);
}

// What watching has told since the last tick.
void BlockWatcher::observe(PlacedBlock& b, Nanos now) {
  if (!b.movable || b.pages() == 0) {
    b.suspect = b.split = false;
    b.next = Watch::kNone;
    want(b, Wanted::kNone, 0);
    b.above.forget();
    b.below.forget();
  }
  if (b.slow == 0) want(b, Wanted::kNone, 0);
  // Found while there was room for all, or too long ago to be true still.
  const bool voided = b.wanted_below == kCoolest && !every_page_goes_up();
  const bool old = now - b.wanted_since > kWantedFor || promote_below_ == kUnknownGap;
  if (b.wanted != Wanted::kNone && (voided || old)) {
    want(b, Wanted::kNone, 0);
    b.not_before = now;
  }
  if (b.huge) b.next = Watch::kNone;
  if (!b.huge) b.suspect = b.split = false;
  if (b.blind && promote_below_ != kUnknownGap && b.watch == Watch::kNone) {
    b.blind = false;
    b.backoff = 0;
    b.not_before = now;
  }
  if (b.watch == Watch::kNone) return;
  if (b.huge) {
    observe_huge(b, now);
  } else {
    observe_small(b, now);
  }
  if (b.wanted != Wanted::kNone) {
    b.wanted_below = promote_below_;
    b.wanted_since = now;
  }
}

// A block of the first tier that seems to be used from another socket is looked at again.
void BlockWatcher::observe_sockets(PlacedBlock& b, Nanos now) {
  b.pull = b.slow == 0 && b.pages() > 0 ? next_pull(b.pull, b.far, b.near) : 0;
  b.far = b.near = 0;
  if (b.pull < kTugged || b.pull >= pull_needed(b, now) || b.watch != Watch::kNone) return;
  if (b.huge) {
    b.suspect = true;
  } else if (b.next == Watch::kNone) {
    b.next = Watch::kGlance;
  }
  b.not_before = std::min(b.not_before, now);
}

void BlockWatcher::observe_all(PlacementView& view, Nanos now) {
  unknown_ = urgent_blocks_ = 0;
  price_first_ = false;
  for (PlacedBlock& b : view.blocks) {
    observe(b, now);
    if (view.several_sockets) observe_sockets(b, now);
    if (wants_another_look(b)) ++urgent_blocks_;
    // Not those that would not be parked: they rest.
    if (!b.movable || b.watch != Watch::kNone || b.resident == 0 || b.not_before > now) continue;
    if (!unsure(b)) continue;
    ++unknown_;
    price_first_ = price_first_ || (b.slow == 0 && promote_below_ == kUnknownGap);
  }
}

void BlockWatcher::wake_all(PlacementView& view, Nanos now) {
  for (PlacedBlock& b : view.blocks) {
    b.backoff = 0;
    b.not_before = std::min(b.not_before, now);
  }
}

void BlockWatcher::refill(const PlacementBudget& budget, bool busy) {
  hint_cost_ = budget.hint_cost;
  watches_ = budget.watches;
  saved_.refill(begun_ ? budget.hint_nanos : budget.hint_saved, budget.hint_saved);
  begun_ = true;
  const std::uint64_t fast = budget.hint_nanos * kBusyPace;
  const std::uint64_t pace = busy || unknown_ > 0 ? fast : budget.hint_nanos / kQuietShare;
  pace_.refill(pace, pace * kPaceTicks);
  urgent_.refill(2 * fast, 2 * fast * kPaceTicks);
}

// False: the plan is full.
bool BlockWatcher::watch(PlacedBlock& b, Watch how, PlacementPlan& plan) {
  const PlaceAction action = b.split ? PlaceAction::kSplit : PlaceAction::kWatch;
  if (!plan.add({b.index, action, 0, how})) return false;
  if (watches_ > 0) --watches_;
  const bool all = how == Watch::kBelow || how == Watch::kAbove;
  const std::uint64_t nanos = hint_cost_ * faults_of(b, how) + (all ? b.resident * kParkCost : 0);
  if (how == Watch::kGlance || (how == Watch::kWhole && !b.suspect)) {
    saved_.spend(nanos);
    pace_.spend(nanos);
  } else {
    urgent_.spend(nanos);
  }
  b.watch = b.last = how;
  b.touched = 0;
  b.next = Watch::kNone;
  b.suspect = b.split = false;
  return true;
}

// Slow blocks, so that what has become hot is found; and fast ones, for what could make room. Those
// that seem to have become hot first, or the hand would take as long to come round to them again as
// it took to find them.
void BlockWatcher::plan(PlacementView& view, Nanos now, PlacementPlan& plan) {
  const auto ready = [&](const PlacedBlock& b) {
    if (!b.movable || b.watch != Watch::kNone || b.resident == 0 || b.home) return false;
    if (b.wanted != Wanted::kNone) return false;  // what is known of its pages is still needed
    // It may be on its way to the store.
    const bool swept = !b.huge && b.last == Watch::kBelow && b.parked > 0;
    if (swept && now - b.parked_since < kIdleForStore + kIdleForStore) return false;
    if (price_first_ && b.pages_above() == 0) return false;
    if (!b.huge && b.next != Watch::kNone) return true;
    return (!b.huge || b.parked == 0) && b.not_before <= now;
  };
  for (PlacedBlock& b : view.blocks) {
    if (urgent_blocks_ == 0 || !may_look_again()) break;
    if (!wants_another_look(b) || !ready(b)) continue;
    const Watch how = b.split ? Watch::kBelow : b.huge ? Watch::kWhole : b.next;
    if (!watch(b, how, plan)) return;
  }
  // In steps, so that a new hot region is soon met, wherever it lies.
  const auto count = static_cast<std::uint32_t>(view.blocks.size());
  std::uint32_t step = count * 2 / 5 | 1;
  while (std::gcd(step, count) != 1) step += 2;
  for (std::uint32_t visited = 0; visited < count && may_look_around(); ++visited) {
    hand_ = (hand_ + step) % count;
    PlacedBlock& b = view.blocks[hand_];
    if (ready(b) && !watch(b, b.huge ? Watch::kWhole : Watch::kGlance, plan)) return;
  }
}

}  // namespace heaptier
