// What could be moved down, by heat. A part of placement.cc.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "policies/bounce.h"
#include "policies/placed_block.h"

namespace heaptier {

// What could be moved down of a block.
struct Victim {
  Gap gap = kUnknownGap;
  std::uint32_t pages = 0;
  bool ready = false;  // parked, or a huge page; else it has to be swept first
};

// How the small pages on the tier are parked, all of them.
constexpr Watch sweep_of(unsigned tier) {
  return tier == 0 ? Watch::kAbove : Watch::kBelow;
}

inline Victim victim_of(const PlacedBlock& b, unsigned tier, Nanos now) {
  if (!b.movable || now < b.stays_until) return {};
  const std::uint32_t here = b.pages_on(tier);
  if (b.huge ? b.tier != tier : here == 0) return {};
  const Gap parked =
      b.parked > 0 ? gap_of_each(gap_of(now - b.parked_since), b.parked) : kUnknownGap;
  if (b.huge) {
    // What was measured a time or two says little; a block that nobody touches tells by itself.
    Gap gap = std::max(b.times >= GapEstimate::kMost / 2 ? b.gap : kUnknownGap, parked);
    if (const unsigned bar = bar_of(b, now); gap > bar + 1) gap = hotter(gap, bar);
    return {gap, gap == kUnknownGap ? 0 : b.pages(), true};
  }
  const bool swept = b.last == sweep_of(tier);
  if (swept && b.watch == Watch::kNone && b.parked > 0) {
    return {parked, std::min<std::uint32_t>(b.parked, here), true};
  }
  const Gap gap = tier == 0 ? b.above.gap : b.below.gap;
  return {gap, gap == kUnknownGap ? 0 : here, false};
}

// What could be moved down of a tier, by heat.
class Victims {
 public:
  Victims(const PlacementView& view, unsigned tier, Nanos now) {
    for (const PlacedBlock& b : view.blocks) {
      const Victim v = victim_of(b, tier, now);
      pages_[v.gap] += v.pages;
      present_ += b.pages_on(tier);
      if (b.watch == sweep_of(tier) && b.pages_on(tier) > 0) coming_ += b.parked;
    }
  }
  // Pages on the tier, victims or not; and those that are being swept.
  std::uint64_t present() const { return present_; }
  std::uint64_t coming() const { return coming_; }
  // The coldest that hold at least so many pages: the shortest gap among them. kUnknownGap: there
  // are not so many.
  Gap cut(std::uint64_t pages) const {
    for (unsigned g = kCoolest; g > kUnknownGap; --g) {
      if (pages_[g] >= pages) return static_cast<Gap>(g);
      pages -= pages_[g];
    }
    return kUnknownGap;
  }

 private:
  std::array<std::uint64_t, kCoolest + 1> pages_{};
  std::uint64_t present_ = 0;
  std::uint64_t coming_ = 0;
};

}  // namespace heaptier
