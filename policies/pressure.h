// When: how far the fast tier is from its watermarks, and what that asks for.
//
//        near       target  low            high     fast_bytes
//   calm  |    near    |     |     low      |   high    |
//   ------+------------+-----+--------------+-----------+----> home + park
//
// Calm costs nothing. Near prepares: it hints within the hint budget, so that something is known
// when memory gets short, and gives nothing away. Low demotes in the background. High has the
// application wait for its memory: what is needed goes at once.
#pragma once

#include <algorithm>
#include <cstdint>

#include "policies/policy.h"

namespace heaptier::policy {

enum class Zone : std::uint8_t { kCalm, kNear, kLow, kHigh };

struct Pressure {
  Zone zone = Zone::kCalm;
  std::uint64_t used = 0;  // pages at home and in the park
  std::uint64_t need = 0;  // pages to give up to reach the target; 0 in calm and near
  Nanos idle{};            // how long a parked page must lie untouched to be taken for cold
};

// A parked page is cold after this long untouched, at the low watermark. Storing a page and
// fetching it again costs about 16 us of CPU, so a page that comes back every 2 s would cost 8 ppm
// of a CPU. bench/simulate: 1 s to 8 s end in the same miss rate; with 8 s the first seconds after
// a load have up to a tenth more misses (blocks), because hot blocks keep their cold neighbours
// longer.
inline constexpr Nanos kIdleAtLow = seconds(2);

class Watermarks {
 public:
  // Works down to 1/64 below the low watermark once it was passed, so that a heap that sits on the
  // watermark is not worked on at every tick.
  constexpr Pressure judge(const View& view, const Budget& budget) {
    Pressure p;
    const std::uint64_t used = view.resident_bytes + view.parked_bytes;
    p.used = used / kPageSize;
    const std::uint64_t low = budget.low_bytes;
    const std::uint64_t high = std::max(low, budget.high_bytes);
    const std::uint64_t target = low - low / 64;
    if (budget.fast_bytes == 0 || used <= target) working_ = false;
    if (budget.fast_bytes == 0 || used <= low - low / 16) return p;
    if (used > low) working_ = true;
    p.zone = used > high ? Zone::kHigh : working_ ? Zone::kLow : Zone::kNear;
    if (p.zone != Zone::kNear) p.need = (used - target + kPageSize - 1) / kPageSize;
    p.idle = idle_time(used, low, high);
    return p;
  }

 private:
  // Shrinks evenly from low to high, where there is no time left.
  static constexpr Nanos idle_time(std::uint64_t used, std::uint64_t low, std::uint64_t high) {
    if (used <= low) return kIdleAtLow;
    if (used >= high) return {0};
    const auto left = static_cast<double>(high - used) / static_cast<double>(high - low);
    return {static_cast<std::int64_t>(static_cast<double>(kIdleAtLow.v) * left)};
  }

  bool working_ = false;
};

}  // namespace heaptier::policy
