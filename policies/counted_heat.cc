#include "policies/counted_heat.h"

#include <algorithm>

namespace heaptier {
namespace {

// What came lately joins what came before when there is so much of it, which counts half as much
// once there is too much of that.
constexpr float kMostLately = 16;
constexpr float kMostSeenLately = 24;
constexpr float kMostBefore = 32;
// Another use than before: eight times as much or as little; of so many that were to be expected it
// is not by chance that one came or none.
constexpr float kChange = 8;
constexpr float kMissed = 12;

}  // namespace

void CountedHeat::Span::add(const Span& s) {
  time = time + s.time;
  seen += s.seen;
  uses += s.uses;
  expected += s.expected;
  expected_uses += s.expected_uses;
}

void CountedHeat::Span::halve() {
  time.v /= 2;
  seen /= 2;
  uses /= 2;
  expected /= 2;
  expected_uses /= 2;
}

void CountedHeat::add(std::uint64_t uses) {
  lately_.seen += 1;
  lately_.uses += static_cast<float>(uses);
}

// Held against the average block: that the program as a whole does more or less changes nothing.
bool CountedHeat::changed() const {
  if (before_.expected < kEnough) return false;
  const float predicted = before_.seen * lately_.expected / before_.expected;
  const bool colder = predicted >= kMissed && lately_.seen * kChange <= predicted;
  const bool hotter = lately_.seen >= kEnough && lately_.seen >= predicted * kChange;
  return colder || hotter;
}

void CountedHeat::pass(const UseShare& average) {
  lately_.time = lately_.time + average.time;
  lately_.expected += average.seen;
  lately_.expected_uses += average.uses;
  if (changed()) {
    before_ = lately_;
  } else if (lately_.expected >= kMostLately || lately_.seen >= kMostSeenLately) {
    before_.add(lately_);
  } else {
    return;
  }
  lately_ = {};
  if (before_.expected > kMostBefore) before_.halve();
}

namespace {

// Of each of so many pages, if all of them are used so often in this time.
Gap each_of(std::uint32_t pages, double uses, Nanos time) {
  const double each = static_cast<double>(time.v) / std::max(uses, 1.0);
  const double of_page = each * pages;
  constexpr double kMeasurable = 256e9;
  if (of_page < kMeasurable) return gap_of({static_cast<std::int64_t>(of_page)});
  return gap_of_each(gap_of({static_cast<std::int64_t>(std::min(each, kMeasurable))}), pages);
}

// Within 10 % from 4 on: policies have no library for it.
double square_root(double x) {
  double root = 2;
  for (double n = x; n > 8; n /= 4) root *= 2;
  for (int i = 0; i < 3; ++i) root = (root + x / root) / 2;
  return root;
}

}  // namespace

// One more may have been about to come.
Gap CountedHeat::gap_of_page(std::uint32_t pages) const {
  if (!known() || pages == 0) return kUnknownGap;
  const float one =
      expected() > 0 ? (before_.expected_uses + lately_.expected_uses) / expected() : 0;
  return each_of(pages, before_.uses + lately_.uses + one, before_.time + lately_.time);
}

// By a standard deviation fewer.
Gap CountedHeat::sure_gap_of_page(std::uint32_t pages) const {
  if (!surely_used() || pages == 0) return kUnknownGap;
  const double surely = 1 - square_root(seen()) / seen();
  return each_of(pages, (before_.uses + lately_.uses) * surely, before_.time + lately_.time);
}

}  // namespace heaptier
