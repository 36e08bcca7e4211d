// How DAMON is to look at a heap of some size for so much CPU time. Arithmetic.
#pragma once

#include <algorithm>
#include <cstdint>

#include "runtime/sampling/damon.h"

namespace heaptier {

inline constexpr std::uint32_t kMostRegions = 2048;
// From one look at a region to the next: shorter would tell apart what is hot anyway; longer, and
// all that is used at all looks hot. In each the CPUs are to forget where pages are once
// (os/translations.h), which costs the program some 50 us each time: with a budget of 1 % every
// 20 ms.
inline constexpr Nanos kShortestLook = millis(5);
inline constexpr Nanos kLongestLook = millis(100);
constexpr Nanos shortest_look(unsigned budget) {
  return std::clamp(Nanos{seconds(2).v / budget}, kShortestLook, kLongestLook);
}
// A look at a region, on a machine that is not known yet.
inline constexpr Nanos kUsualLookCost = micros(2);

struct HeapPace {
  std::uint32_t group = 1;  // pageblocks to a region
  std::uint32_t regions = 0;
  DamonPace damon;
};

// `budget`: of CPU time, in 1/10000, not 0; `most`: regions at most.
constexpr HeapPace pace_for(std::uint32_t blocks, Nanos cost, unsigned budget, std::uint32_t most) {
  constexpr std::uint32_t kLooks = 10;  // to a report
  HeapPace pace;
  const auto regions = [&] { return (blocks + pace.group - 1) / pace.group; };
  const auto look = [&] { return std::int64_t{regions()} * cost.v * 10000 / budget; };
  while (regions() > 1 && (regions() > most || look() > kLongestLook.v)) pace.group *= 2;
  pace.regions = regions();
  pace.damon.look = std::clamp(Nanos{look()}, shortest_look(budget), kLongestLook);
  pace.damon.looks = kLooks;
  // One region for each pageblock, and DAMON leaves them so: it joins regions only up to the size
  // of the whole by the least number of them, and parts them only while there are fewer than half
  // of the most. Where that would be too many it finds out by itself which parts are worth a
  // region.
  const bool each = pace.group == 1;
  pace.damon.least_regions = std::max<std::uint32_t>(each ? pace.regions : pace.regions / 8, 3);
  pace.damon.most_regions = std::max<std::uint32_t>(each ? pace.regions : 2 * pace.regions, 3);
  return pace;
}

}  // namespace heaptier
