// How long a page, or a huge page as a whole, goes untouched, in six bits: half octaves from an
// eighth of a microsecond. It is measured as the time from parking to the first touch, which for
// accesses that come at random is as long as the mean time between two of them, give or take a
// factor of three. So single measurements are averaged, as logarithms.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "runtime/base/units.h"

namespace heaptier {

// 0: not known. The smaller, the hotter. 63: 4 minutes or longer.
using Gap = std::uint8_t;
inline constexpr Gap kUnknownGap = 0;
inline constexpr Gap kLongestGap = 63;
inline constexpr unsigned kGapsPerOctave = 2;

constexpr Gap gap_of(Nanos length) {
  if (length.v < 256) return 1;
  const auto v = static_cast<std::uint64_t>(length.v) >> 7;
  const auto octave = static_cast<unsigned>(std::bit_width(v)) - 1;
  const auto half = octave == 0 ? 0U : static_cast<unsigned>(v >> (octave - 1) & 1);
  return static_cast<Gap>(std::min<unsigned>(octave * kGapsPerOctave + half + 1, kLongestGap));
}

// The length in the middle of the half octave.
constexpr Nanos length_of(Gap gap) {
  if (gap <= 1) return {128};
  const unsigned halves = gap - 1U;
  const std::int64_t octave = std::int64_t{128} << (halves / kGapsPerOctave);
  return {halves % kGapsPerOctave == 0 ? octave + octave / 4 : octave * 7 / 4};
}

// A group of pages that is touched every `together` has pages that are touched every so often each:
// what makes huge pages, groups of small ones and single pages comparable. Longer than what can be
// measured of one page.
inline constexpr Gap kCoolest = kLongestGap + 18;
constexpr Gap gap_of_each(Gap together, std::uint32_t pages) {
  if (together == kUnknownGap || pages == 0) return kUnknownGap;
  const auto octave = static_cast<unsigned>(std::bit_width(pages)) - 1;
  const unsigned half = octave == 0 ? 0U : pages >> (octave - 1) & 1;
  return static_cast<Gap>(std::min<unsigned>(together + octave * kGapsPerOctave + half, kCoolest));
}

// A gap shorter by so many half octaves.
constexpr Gap hotter(Gap gap, unsigned less) {
  return gap > less ? static_cast<Gap>(gap - less) : kUnknownGap;
}

// The estimate after one more measurement: the mean of all while they are few, later a quarter of
// each new one.
struct GapEstimate {
  static constexpr std::uint8_t kMost = 4;
  Gap gap = kUnknownGap;
  std::uint8_t measured = 0;  // times, at most kMost: then it is to be relied on

  constexpr GapEstimate after(Gap one) const {
    // By chance a gap is a sixteenth of the mean once in sixteen times, and eight times the mean
    // once in three thousand: its use has changed.
    if (measured == 0 || one + 8 <= gap || one >= gap + 6) return {one, 1};
    const unsigned n = std::min<unsigned>(measured + 1U, kMost);
    // Rounded towards the new one, which would otherwise never be reached.
    const unsigned up = one > gap ? n - 1 : 0;
    return {static_cast<Gap>(((n - 1) * gap + one + up) / n), static_cast<std::uint8_t>(n)};
  }
};

}  // namespace heaptier
