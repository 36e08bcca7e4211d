#include "uffd/latency_histogram.h"

#include <bit>

namespace heaptier {

// Below 4 ns each nanosecond is a bucket; from there on, bucket = 4 * (log2 - 1) + the two bits
// after the leading one.
unsigned latency_bucket(Nanos duration) {
  if (duration.v < 4) return duration.v < 0 ? 0 : static_cast<unsigned>(duration.v);
  const auto n = static_cast<std::uint64_t>(duration.v);
  const auto log2 = static_cast<unsigned>(std::bit_width(n) - 1);
  const auto quarter = static_cast<unsigned>(n >> (log2 - 2)) & 3;
  const unsigned bucket = 4 * (log2 - 1) + quarter;
  return bucket < kLatencyBuckets ? bucket : kLatencyBuckets - 1;
}

Nanos latency_of_bucket(unsigned bucket) {
  if (bucket < 8) return {static_cast<std::int64_t>(bucket)};
  const unsigned log2 = bucket / 4 + 1;
  const std::int64_t width = std::int64_t{1} << (log2 - 2);
  return {(4 + static_cast<std::int64_t>(bucket % 4)) * width + width / 2};
}

std::uint64_t LatencySnapshot::total() const {
  std::uint64_t sum = 0;
  for (std::uint64_t n : counts) sum += n;
  return sum;
}

std::uint64_t LatencySnapshot::percentile(double percent) const {
  const std::uint64_t all = total();
  if (all == 0) return 0;
  const double wanted = static_cast<double>(all) * percent / 100.0;
  std::uint64_t seen = 0;
  unsigned last = 0;
  for (unsigned i = 0; i < kLatencyBuckets; ++i) {
    if (counts[i] == 0) continue;
    last = i;
    seen += counts[i];
    if (static_cast<double>(seen) >= wanted) break;
  }
  return static_cast<std::uint64_t>(latency_of_bucket(last).v);
}

LatencySnapshot& LatencySnapshot::operator+=(const LatencySnapshot& other) {
  for (unsigned i = 0; i < kLatencyBuckets; ++i) counts[i] += other.counts[i];
  return *this;
}

LatencySnapshot LatencySnapshot::since(const LatencySnapshot& earlier) const {
  LatencySnapshot difference;
  for (unsigned i = 0; i < kLatencyBuckets; ++i) {
    difference.counts[i] = counts[i] - earlier.counts[i];
  }
  return difference;
}

LatencySnapshot LatencyHistogram::snapshot() const {
  LatencySnapshot copy;
  for (unsigned i = 0; i < kLatencyBuckets; ++i) {
    copy.counts[i] = counts_[i].load(std::memory_order_relaxed);
  }
  return copy;
}

void LatencyHistogram::clear() {
  for (auto& count : counts_) count.store(0, std::memory_order_relaxed);
}

}  // namespace heaptier
