// Not these: pageblocks that a demotion leaves alone whatever the rank says.
#pragma once

#include <algorithm>
#include <cstdint>

#include "policies/policy.h"

namespace heaptier::policy {

// A block that had to be left alone rests 100 ms, and twice as long for every further time in a
// row, at most 3 minutes: a hot block of 512 small pages then costs 15 us of hint faults a second,
// a huge one nothing. bench/simulate: starting at 1 s instead, the first seconds have a tenth more
// misses (zipf-huge, blocks), which is how long it takes to learn that every block holds something
// hot.
inline constexpr Nanos kRest = millis(100);
inline constexpr std::uint32_t kMaxBackoff = 11;

constexpr Nanos rest_after(std::uint32_t times) {
  return {kRest.v << std::min(times, kMaxBackoff)};
}

// Whether a demotion of this block could do any good. Fruitless blocks are left alone even under
// pressure: trying again costs time and frees nothing.
constexpr bool may_demote(const BlockView& b, Nanos now) {
  return b.mobility != Mobility::kUnmovable && (b.fruitless == 0 || b.not_before <= now);
}

constexpr std::uint32_t main_pages(const BlockView& b) {
  return b.resident > b.clean ? static_cast<std::uint32_t>(b.resident - b.clean) : 0U;
}

// At home in one piece: parking it says how hot it is.
constexpr bool is_whole(const BlockView& b) {
  return (b.phase == BlockPhase::kUnmanaged || b.phase == BlockPhase::kWhole) && b.parked == 0;
}

// Came straight back the last time.
constexpr bool known_hot(const BlockView& b) {
  return b.backoff > 0;
}

// Small pages that all came back, twice: parking tells nothing more.
constexpr bool hopelessly_hot(const BlockView& b) {
  return !b.huge && b.backoff > 1;
}

}  // namespace heaptier::policy
