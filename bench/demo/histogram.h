// Latencies in nanoseconds, kept in buckets of at most 1.6 % width (64 to each power of two).
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace heaptier::demo {

class Histogram {
 public:
  void add(std::uint64_t nanos) {
    ++buckets_[bucket_of(nanos)];
    ++count_;
    if (nanos > max_) max_ = nanos;
  }
  std::uint64_t count() const { return count_; }
  std::uint64_t max() const { return max_; }
  // The upper edge of the bucket that holds the given fraction (0.99: the 99th percentile).
  std::uint64_t percentile(double fraction) const {
    const auto wanted = static_cast<std::uint64_t>(fraction * static_cast<double>(count_));
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < buckets_.size(); ++i) {
      seen += buckets_[i];
      if (seen > wanted) return edge_of(i) < max_ ? edge_of(i) : max_;
    }
    return max_;
  }

 private:
  static constexpr unsigned kFine = 6;  // 2^6 buckets to a power of two
  static std::size_t bucket_of(std::uint64_t n) {
    if (n < (1u << kFine)) return n;
    const unsigned shift = static_cast<unsigned>(std::bit_width(n)) - kFine - 1;
    return (std::size_t{shift + 1} << kFine) + ((n >> shift) - (1u << kFine));
  }
  static std::uint64_t edge_of(std::size_t bucket) {
    if (bucket < (1u << kFine)) return bucket;
    const unsigned shift = static_cast<unsigned>(bucket >> kFine) - 1;
    return ((((bucket & ((1u << kFine) - 1)) + (1u << kFine)) + 1) << shift) - 1;
  }

  std::array<std::uint64_t, (64 - kFine + 1) << kFine> buckets_{};
  std::uint64_t count_ = 0;
  std::uint64_t max_ = 0;
};

}  // namespace heaptier::demo
