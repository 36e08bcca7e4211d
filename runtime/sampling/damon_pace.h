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

// The time from look to look at which so many regions cost the budget.
constexpr Nanos look_at(std::uint32_t regions, Nanos cost, unsigned budget) {
  return {std::int64_t{regions} * cost.v * 10000 / budget};
}

// Of regions that are known. `group`: see there; `budget`: of CPU time, in 1/10000, not 0.
constexpr HeapPace pace_of(std::uint32_t regions, std::uint32_t group, Nanos cost,
                           unsigned budget) {
  constexpr std::uint32_t kLooks = 10;  // to a report
  HeapPace pace;
  pace.group = group;
  pace.regions = regions;
  pace.damon.look = std::clamp(look_at(regions, cost, budget), shortest_look(budget), kLongestLook);
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

// The finest that keeps to the budget, with at most `most` regions. regions_of(group): how many
// there are with groups of so many pageblocks.
template <class RegionsOf>
constexpr HeapPace finest_pace(RegionsOf regions_of, Nanos cost, unsigned budget,
                               std::uint32_t most) {
  constexpr std::uint32_t kLargest = 1U << 30;
  std::uint32_t group = 1;
  std::uint32_t n = regions_of(group);
  while (n > 1 && group < kLargest && (n > most || look_at(n, cost, budget) > kLongestLook)) {
    group *= 2;
    n = regions_of(group);
  }
  return pace_of(n, group, cost, budget);
}

}  // namespace heaptier
