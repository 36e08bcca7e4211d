#include "policies/refault.h"

#include <algorithm>
#include <bit>

namespace heaptier {
namespace {

// log2 in half steps, of v >= 1: 1 -> 0, 2 -> 2, 3 -> 3, 4 -> 4. The half step is taken from the
// square root of two, as 181/128, on.
constexpr std::uint32_t log2_half_steps(std::uint64_t v) {
  const auto whole = static_cast<std::uint32_t>(std::bit_width(v)) - 1;
  const std::uint64_t mantissa = whole >= 7 ? v >> (whole - 7) : v << (7 - whole);  // 128..255
  return whole * 2 + (mantissa >= 181 ? 1 : 0);
}

constexpr std::uint32_t kMaxEstimate = 63;  // six bits in the page word

}  // namespace

RefaultVerdict judge_refault(const RefaultInput& in, const RefaultTuning& tuning) {
  const std::uint64_t ticks = ((in.discards >> in.shift) - in.stamp) & 0xffff;
  // A stamp stands for 2^shift pages: take the middle, and never 0.
  const std::uint64_t distance = (ticks << in.shift) + ((std::uint64_t{1} << in.shift) + 1) / 2;
  // 0 means "none yet", so 1 is the smallest estimate.
  const std::uint32_t sample =
      std::clamp(log2_half_steps(distance), std::uint32_t{1}, kMaxEstimate);

  // A page of which nothing is known yet is taken for average.
  const std::uint64_t average =
      std::max<std::uint64_t>(in.stored_pages != 0 ? in.stored_pages : in.main_pages, 1);
  const std::uint32_t before = in.estimate != 0 ? in.estimate : log2_half_steps(average);

  RefaultVerdict v;
  const std::uint32_t keep = tuning.keep_quarters;
  v.estimate =
      std::clamp((before * keep + sample * (4 - keep) + 2) / 4, std::uint32_t{1}, kMaxEstimate);
  const std::uint32_t threshold =
      log2_half_steps(std::max<std::uint64_t>(average * tuning.theta_percent / 100, 1));
  v.promote = v.estimate < threshold;
  if (v.promote) v.credits = std::min(threshold - v.estimate, tuning.max_credits);
  return v;
}

std::uint32_t refault_stamp(std::uint64_t discards, std::uint32_t shift) {
  return static_cast<std::uint32_t>((discards >> shift) & 0xffff);
}

std::uint32_t stamp_shift(std::uint64_t heap_pages) {
  const std::uint64_t per_stamp = (heap_pages * 2 - (heap_pages != 0)) >> 16;
  return static_cast<std::uint32_t>(std::bit_width(per_stamp));
}

}  // namespace heaptier
