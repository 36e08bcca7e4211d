// How much of a huge page is hot, told by where its touches fall. Each time it is parked its first
// touch names a page; if few pages are hot the same ones are named again soon. A sequential test
// (Wald, "Sequential Tests of Statistical Hypotheses", 1945) between a quarter of the pages and all
// of them: most huge pages are judged after 20 to 50 touches.
#pragma once

#include <cstdint>

#include "runtime/base/units.h"

namespace heaptier {

enum class Density : std::uint8_t { kUnsure, kSparse, kDense };

// Of `samples` touches `repeats` fell on a page that an earlier one had fallen on.
constexpr Density density(std::uint32_t samples, std::uint32_t repeats) {
  // Logarithm of the likelihood ratio in 1/256. A repeat is four times as likely if a quarter is
  // hot: ln 4. A touch of the (i+1)th new page: ln((1 - i/128) / (1 - i/512)), summed up to the
  // third power.
  constexpr std::int64_t kRepeat = 355;
  // Wrong in 1 of 50, and 1 of 33: a huge page is dear, and so is moving what is cold.
  constexpr std::int64_t kSparseFrom = 1024;
  constexpr std::int64_t kDenseFrom = -896;
  constexpr std::uint32_t kMostSamples = 120;
  const auto d = static_cast<std::int64_t>(samples - (repeats < samples ? repeats : samples));
  const std::int64_t ratio = kRepeat * repeats - d * d * 3 / 4 - d * d * d / 410;
  if (ratio >= kSparseFrom) return Density::kSparse;
  if (ratio <= kDenseFrom || samples >= kMostSamples) return Density::kDense;
  return Density::kUnsure;
}

}  // namespace heaptier
