#include "policies/told_heat.h"

#include <algorithm>
#include <bit>

#include "policies/block_watcher.h"
#include "policies/bounce.h"
#include "policies/placed_block.h"

namespace heaptier {
namespace {

// What has come before counts half as much once this is exceeded.
constexpr std::uint32_t kMostUses = 64;
constexpr Nanos kLongest = seconds(600);
// Where there is room for all that is used, this is no use any more.
constexpr Nanos kIdle = seconds(10);

// -ln(x) for 0 < x <= 1, within 6 %: policies have no library for it.
constexpr double minus_log(double x) {
  constexpr double kLn2 = 0.6931;
  double sum = 0;
  for (; x < 0.5; x *= 2) sum += kLn2;
  const double y = 1 - x;
  return sum + y + y * y / 2 + y * y * y / 3 + y * y * y * y / 4;
}

constexpr unsigned octaves_of(std::uint32_t whole, std::uint32_t part) {
  return part == 0 || part >= whole ? 0 : static_cast<unsigned>(std::bit_width(whole / part)) - 1;
}

// Of each page of the block.
Gap gap_of_page(const PlacedBlock& b) {
  constexpr auto kPages = static_cast<std::uint32_t>(kPagesPerBlock);
  const Gap gap = b.heat.gap();
  if (gap == kUnknownGap) return gap;
  if (b.huge) return gap_of_each(gap, kPages);
  // Looks at pages that are not there find no use.
  const unsigned rarer = octaves_of(kPages, b.pages()) * kGapsPerOctave;
  return b.heat.used() && gap > rarer ? hotter(gap, rarer) : gap;
}

// What a sampler says of a block.
struct Telling {
  Gap gap = kUnknownGap;       // of each page: to go down by,
  Gap sure_gap = kUnknownGap;  // and to come up by
  bool used = false;
  bool surely = false;    // and not just by chance
  bool recently = false;  // enough to come up where there is room for all that is used
  bool always = false;    // all of it
};

Telling telling_of(const PlacedBlock& b) {
  // Of single uses nobody knows whether they are of all of its pages.
  const bool counted = b.uses.known();
  if (counted) {
    return {b.uses.gap_of_page(b.pages()),
            b.uses.sure_gap_of_page(b.pages()),
            b.uses.used(),
            b.uses.surely_used(),
            true,
            false};
  }
  const Gap gap = gap_of_page(b);
  return {gap,
          gap,
          b.heat.used(),
          b.heat.surely_used(),
          b.heat.gap() <= gap_of(kIdle),
          b.heat.nearly_always_used()};
}

// What is parked although nothing is parked to be watched: it is on its way to the store, or it was
// when a sampler began to tell.
void end_watch(PlacedBlock& b, Nanos now) {
  const Nanos since = now - b.parked_since;
  if (b.parked == 0 || since >= BlockWatcher::kIdleForStore) b.watch = Watch::kNone;
  const bool forgotten = since >= BlockWatcher::kIdleForStore + BlockWatcher::kIdleForStore;
  if (b.parked > 0 && b.last != Watch::kNone && forgotten) {
    b.home = true;
    b.last = Watch::kNone;
  }
  b.suspect = b.split = b.blind = b.count_anew = false;
  b.next = Watch::kNone;
}

void judge(PlacedBlock& b, Nanos now, Gap promote_below) {
  end_watch(b, now);
  b.wanted = Wanted::kNone;
  b.dense = false;
  if (!b.movable || b.pages() == 0) {
    b.heat.forget();
    b.uses.forget();
  }
  const Telling told = telling_of(b);
  const Gap gap = told.gap;
  b.gap = b.measured = b.huge ? gap : kUnknownGap;
  b.times = b.huge && gap != kUnknownGap ? GapEstimate::kMost : 0;
  b.above.gap = b.below.gap = b.huge ? kUnknownGap : gap;
  if (gap == kUnknownGap || !told.used) return;
  const bool all = promote_below == kCoolest;
  const bool hot = told.surely && told.sure_gap <= promote_below;
  if (b.slow == 0) {
    b.dense = !b.huge && hot && told.always;
    return;
  }
  const bool worth = told.surely && told.sure_gap <= hotter(promote_below, bar_of(b, now));
  if (!worth && !(all && told.recently)) return;
  b.wanted = Wanted::kAll;
  b.wanted_pages = static_cast<std::uint16_t>(b.huge ? b.pages() : b.slow);
  b.wanted_below = promote_below;
  b.wanted_since = now;
}

}  // namespace

// Whether this cannot be chance, but has become another use.
bool ToldHeat::changed(std::uint32_t looks, std::uint32_t used) const {
  if (!known()) return false;
  const std::uint64_t expected = std::uint64_t{used_} * looks / looks_;
  const bool colder = expected >= 2 * kSure && used * 8U <= expected;
  const bool hotter = used >= kSure && used >= expected * 8;
  return colder || hotter;
}

void ToldHeat::add(std::uint32_t looks, std::uint32_t used, Nanos each) {
  if (looks == 0) return;
  used = std::min(used, looks);
  if (changed(looks, used)) forget();
  looks_ += looks;
  used_ += used;
  watched_ = watched_ + Nanos{each.v * looks};
  if (used_ > kMostUses || watched_ > kLongest) {
    looks_ -= looks_ / 2;
    used_ /= 2;
    watched_.v /= 2;
  }
}

// What is used at random is unused for a time t with the probability exp(-t / mean).
Gap ToldHeat::gap() const {
  if (!known()) return kUnknownGap;
  if (used_ == 0) return gap_of(watched_);
  const double looks = looks_;
  // Never unused, as far as is known: half a look.
  const double unused = std::max(looks - used_, 0.5) / looks;
  const double each = static_cast<double>(watched_.v) / looks;
  return gap_of({static_cast<std::int64_t>(each / minus_log(unused))});
}

void judge_told(PlacementView& view, Nanos now, Gap promote_below) {
  for (PlacedBlock& b : view.blocks) judge(b, now, promote_below);
}

}  // namespace heaptier
