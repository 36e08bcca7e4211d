// How long faults take: counts in buckets of a power of two, each cut in four, so that a percentile
// is right within 12 %.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "runtime/base/units.h"

namespace heaptier {

inline constexpr unsigned kLatencyBuckets = 4 * 40;  // up to 2^40 ns: 18 minutes

// Bucket of a duration; negative counts as 0. Monotonic.
unsigned latency_bucket(Nanos duration);
// The middle of a bucket.
Nanos latency_of_bucket(unsigned bucket);

// A copy of the counts that can be added up and asked.
struct LatencySnapshot {
  std::array<std::uint64_t, kLatencyBuckets> counts{};

  std::uint64_t total() const;
  // The duration that `percent` (0..100) of all samples do not exceed, as the middle of its bucket;
  // 0 without samples.
  std::uint64_t percentile(double percent) const;
  LatencySnapshot& operator+=(const LatencySnapshot& other);
  // What came since `earlier`.
  LatencySnapshot since(const LatencySnapshot& earlier) const;
};

// Thread rule: one thread adds (a locked instruction for every fault would buy nothing), any thread
// takes a snapshot, which is not a point in time.
class LatencyHistogram {
 public:
  constexpr LatencyHistogram() = default;
  void add(Nanos duration) {
    std::atomic<std::uint64_t>& count = counts_[latency_bucket(duration)];
    count.store(count.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  }
  LatencySnapshot snapshot() const;
  void clear();

 private:
  std::array<std::atomic<std::uint64_t>, kLatencyBuckets> counts_{};
};

}  // namespace heaptier
