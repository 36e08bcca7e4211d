// Ping-pong damping: a block that went down as a whole and comes up again soon, or the other way
// round, is at the border of what the first tier holds. Each time it has to be twice as hot as the
// last time to come up, and counts as twice as hot when something has to go down.
//
// Of single small pages nothing is kept between moves; what they have is kExchange.
#pragma once

#include <algorithm>
#include <cstdint>

#include "policies/placed_block.h"

namespace heaptier {

inline constexpr Nanos kBounceWithin = seconds(8);
inline constexpr Nanos kBouncesForgotten = seconds(64);
inline constexpr std::uint8_t kMostHops = 4;  // 16 times as hot

// Half octaves; less by an octave for every minute that it has stayed where it is.
constexpr unsigned bar_of(const PlacedBlock& b, Nanos now) {
  const std::int64_t quiet = (now - b.hopped_at).v / kBouncesForgotten.v;
  return quiet < b.hops ? static_cast<unsigned>(b.hops - quiet) * kGapsPerOctave : 0;
}

// All of it moves now, up or down.
constexpr void note_hop(PlacedBlock& b, bool up, Nanos now) {
  const bool back = b.hopped_at.v != 0 && up != b.hopped_up;
  const Nanos since = now - b.hopped_at;
  b.hops = static_cast<std::uint8_t>(bar_of(b, now) / kGapsPerOctave);
  if (back && since < kBounceWithin) {
    b.hops = std::min<std::uint8_t>(static_cast<std::uint8_t>(b.hops + 1), kMostHops);
  }
  b.hopped_up = up;
  b.hopped_at = now;
}

}  // namespace heaptier
