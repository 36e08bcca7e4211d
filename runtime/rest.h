// Pages that would not shrink stay where they are and rest: they are not tried again for seconds,
// the longer the oftener they refused. Until then they count as memory that cannot leave, so that a
// budget below what they hold does not set everybody on the pages that can (budget.h).
#pragma once

#include <cstdint>

#include "runtime/base/units.h"
#include "runtime/pageblock.h"

namespace heaptier {

// The clock of rests: about seconds, 16 bits, never 0.
constexpr std::uint32_t rest_clock(Nanos now) {
  const auto t = static_cast<std::uint32_t>(static_cast<std::uint64_t>(now.v) >> 30) & 0xffff;
  return t == 0 ? 1 : t;
}

// The word of a resident page that has just refused.
constexpr PageWord to_rest(PageWord w, Nanos now) {
  return w.with_incompressible(w.incompressible() + 1).with_stamp(rest_clock(now));
}

// 4, 16 or 64 seconds: a heap of nothing but noise costs less than 2 % of a CPU.
constexpr bool rested(PageWord w, Nanos now) {
  const std::uint32_t age = (rest_clock(now) - w.stamp()) & 0xffff;
  return age >= (1u << (2 * w.incompressible()));
}

}  // namespace heaptier
