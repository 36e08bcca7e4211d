// How many samples of memory accesses to take for so much CPU time. Arithmetic.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "runtime/base/units.h"

namespace heaptier {

// Of a sample: an interrupt, and reading it. Not measured by us; it depends on the processor.
inline constexpr Nanos kSampleCost = micros(2);

// In a second, of all threads together. `budget`: of CPU time, in 1/10000.
constexpr std::uint64_t samples_wanted(unsigned budget) {
  const std::int64_t n = seconds(1).v * std::int64_t{budget} / 10000 / kSampleCost.v;
  return static_cast<std::uint64_t>(std::max<std::int64_t>(n, 1));
}

// Samples in a second of each event of each thread, while that runs.
struct PerfPace {
  static constexpr std::uint32_t kLeast = 10;
  // What they came to is held against what was wanted after so long; sooner where it is far more.
  static constexpr Nanos kMeasureFor = seconds(2);
  static constexpr Nanos kMeasureSoon = millis(200);

  std::uint32_t rate = 0;
  std::uint32_t most = 0;

  // `running`: events whose threads may run at once. `limit`: what the kernel allows at all.
  void begin(std::uint64_t wanted, std::uint64_t running, std::uint64_t limit) {
    set_limit(wanted, limit);
    rate = within(wanted / std::max<std::uint64_t>(running, 1));
  }
  void set_limit(std::uint64_t wanted, std::uint64_t limit) {
    most = static_cast<std::uint32_t>(std::min({wanted, limit, std::uint64_t{UINT32_MAX}}));
    most = std::max(most, std::uint32_t{1});
    rate = std::min(rate, most);
  }
  static bool due(std::uint64_t wanted, std::uint64_t came, Nanos in) {
    if (in >= kMeasureFor) return true;
    return in >= kMeasureSoon && came > 2 * samples_in(wanted, in);
  }
  // Changed only by a factor of two or more: events are opened anew for it. More at once at most
  // by that, since threads that slept may all begin to run. `throttled`: the kernel found it too
  // much.
  void adjust(std::uint64_t wanted, std::uint64_t came, Nanos in, bool throttled) {
    const std::uint64_t expected = std::max<std::uint64_t>(samples_in(wanted, in), 1);
    if (came > expected * 3 / 2) {
      rate = within(std::min<std::uint64_t>(rate * expected / came, rate / 2));
    } else if (throttled) {
      rate = within(rate / 2);
    } else if (came != 0 && came * 2 < expected) {
      rate = within(std::uint64_t{rate} * 2);
    }
  }
  // Whether an event that was opened for `had` is to be opened anew.
  bool far_from(std::uint32_t had) const { return had >= 2 * rate || rate >= 2 * had; }
  // Room for the samples of half a second.
  std::size_t ring_bytes() const {
    constexpr std::size_t kSample = 32;  // with what is before it; 40 where the source is told
    constexpr std::size_t kLeastPages = 2;
    constexpr std::size_t kMostPages = 128;
    const std::size_t pages = rate / 2 * kSample / kPageSize;
    return std::bit_ceil(std::clamp(pages, kLeastPages, kMostPages)) * kPageSize;
  }

 private:
  static constexpr std::uint64_t samples_in(std::uint64_t wanted, Nanos in) {
    return wanted * static_cast<std::uint64_t>(in.v) / static_cast<std::uint64_t>(seconds(1).v);
  }
  std::uint32_t within(std::uint64_t n) const {
    const std::uint64_t least = std::min(kLeast, most);
    return static_cast<std::uint32_t>(std::clamp<std::uint64_t>(n, least, most));
  }
};

}  // namespace heaptier
