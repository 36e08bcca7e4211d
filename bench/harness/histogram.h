// Latencies in buckets that are 1/64 of a power of two wide: percentiles within 1.6 %, no
// allocation while counting.
#ifndef HEAPTIER_BENCH_HARNESS_HISTOGRAM_H_
#define HEAPTIER_BENCH_HARNESS_HISTOGRAM_H_

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

namespace heaptier::bench {

class Histogram {
 public:
  void add(std::uint64_t value) {
    ++buckets_[bucket_of(value)];
    ++count_;
    max_ = std::max(max_, value);
  }
  void merge(const Histogram& other) {
    for (std::size_t i = 0; i < kBuckets; ++i) buckets_[i] += other.buckets_[i];
    count_ += other.count_;
    max_ = std::max(max_, other.max_);
  }

  // The middle of the bucket that holds the p-th part (0 < p < 1) of all values. 0 when empty.
  double percentile(double p) const {
    const auto rank = static_cast<std::uint64_t>(p * static_cast<double>(count_));
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < kBuckets; ++i) {
      seen += buckets_[i];
      if (seen > rank) return middle_of(i);
    }
    return static_cast<double>(max_);
  }
  std::uint64_t count() const { return count_; }
  std::uint64_t max() const { return max_; }

 private:
  static constexpr unsigned kSubBits = 6;
  static constexpr std::size_t kSub = 1u << kSubBits;
  static constexpr std::size_t kBuckets = kSub * (64 - kSubBits + 1);

  static std::size_t bucket_of(std::uint64_t v) {
    if (v < kSub) return static_cast<std::size_t>(v);
    const unsigned shift = static_cast<unsigned>(std::bit_width(v)) - 1 - kSubBits;
    return (shift + 1) * kSub + static_cast<std::size_t>((v >> shift) - kSub);
  }
  static double middle_of(std::size_t i) {
    if (i < kSub) return static_cast<double>(i);
    const std::size_t shift = i / kSub - 1;
    const std::uint64_t low = static_cast<std::uint64_t>(kSub + i % kSub) << shift;
    return static_cast<double>(low) + static_cast<double>(std::uint64_t{1} << shift) / 2;
  }

  std::array<std::uint64_t, kBuckets> buckets_{};
  std::uint64_t count_ = 0;
  std::uint64_t max_ = 0;
};

}  // namespace heaptier::bench

#endif  // HEAPTIER_BENCH_HARNESS_HISTOGRAM_H_
