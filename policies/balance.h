// Memory of the first tier that is used from another socket: whether it should move there. A hint
// fault tells from which node it was touched: from the page's own or from another. What is used
// from both stays where it is, wherever that may be: a sequential test (density.h) between half of
// the touches from the other node and nearly all of them.
#pragma once

#include <algorithm>
#include <cstdint>

#include "policies/gap.h"
#include "policies/placed_block.h"

namespace heaptier {

// Six touches from there in a row say enough: by chance one of 64 blocks shows them. One touch from
// its own node counts against three of them, as ln(0.5/0.1) is to ln(0.9/0.5).
inline constexpr std::uint8_t kPulled = 6;
inline constexpr std::uint8_t kPushes = 3;
// From here on it is worth looking again at once.
inline constexpr std::uint8_t kTugged = 3;
// A block that went and is pulled back soon has to be pulled so much harder each time.
inline constexpr std::uint8_t kDamping = 6;
inline constexpr std::uint8_t kMostBounces = 6;
inline constexpr Nanos kBouncedWithin = seconds(30);

constexpr std::uint8_t next_pull(std::uint8_t pull, std::uint32_t far, std::uint32_t near) {
  const std::uint32_t up = std::min<std::uint32_t>(pull + far, kPulled + kDamping * kMostBounces);
  return static_cast<std::uint8_t>(up - std::min(up, kPushes * near));
}

constexpr bool crossed_lately(const PlacedBlock& b, Nanos now) {
  return b.crossed_at.v != 0 && now - b.crossed_at < kBouncedWithin;
}

constexpr std::uint8_t pull_needed(const PlacedBlock& b, Nanos now) {
  return static_cast<std::uint8_t>(kPulled + (crossed_lately(b, now) ? kDamping * b.crossings : 0));
}

// Whether the touches of a minute, each 60 ns sooner, make good what the move costs: half a
// microsecond a small page, as much for eight pages of a huge one.
constexpr bool crossing_pays(const PlacedBlock& b) {
  constexpr std::int64_t kGain = 60;
  constexpr std::int64_t kCost = 500;
  constexpr Nanos kHorizon = seconds(60);
  const Gap gap = b.huge ? b.gap : b.above.gap;
  if (gap == kUnknownGap) return false;
  const std::int64_t touches = kHorizon.v / std::max<std::int64_t>(length_of(gap).v, 1);
  return touches * kGain >= (b.huge ? kCost / 8 : kCost);
}

// It has gone there.
constexpr void note_crossing(PlacedBlock& b, Nanos now) {
  b.crossings = crossed_lately(b, now)
                    ? static_cast<std::uint8_t>(std::min(b.crossings + 1, int{kMostBounces}))
                    : 1;
  b.crossed_at = now;
}

constexpr bool should_cross(const PlacedBlock& b, Nanos now) {
  return b.movable && b.slow == 0 && b.pull >= pull_needed(b, now) && crossing_pays(b);
}

}  // namespace heaptier
