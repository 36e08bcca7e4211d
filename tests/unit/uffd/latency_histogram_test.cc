#include "uffd/latency_histogram.h"

#include <gtest/gtest.h>

#include <cmath>

namespace heaptier {
namespace {

TEST(LatencyHistogram, BucketsGrowWithTheDurationAndHoldTheirMiddle) {
  unsigned last = 0;
  for (std::int64_t n = 0; n < 1 << 20; ++n) {
    const unsigned b = latency_bucket({n});
    ASSERT_TRUE(b == last || b == last + 1) << n;
    last = b;
    const double middle = static_cast<double>(latency_of_bucket(b).v);
    ASSERT_LE(std::abs(middle - static_cast<double>(n)), 0.125 * static_cast<double>(n) + 0.5) << n;
  }
  for (unsigned b = 0; b < kLatencyBuckets; ++b) EXPECT_EQ(latency_bucket(latency_of_bucket(b)), b);
  EXPECT_EQ(latency_bucket({-5}), 0u);
  EXPECT_EQ(latency_bucket({INT64_MAX}), kLatencyBuckets - 1);
}

TEST(LatencyHistogram, PercentilesOfAKnownSample) {
  LatencyHistogram h;
  EXPECT_EQ(h.snapshot().percentile(50), 0u);
  for (int i = 1; i <= 1000; ++i) h.add(micros(i));
  const LatencySnapshot s = h.snapshot();
  EXPECT_EQ(s.total(), 1000u);
  EXPECT_NEAR(static_cast<double>(s.percentile(50)), 500e3, 0.13 * 500e3);
  EXPECT_NEAR(static_cast<double>(s.percentile(99)), 990e3, 0.13 * 990e3);
  EXPECT_NEAR(static_cast<double>(s.percentile(100)), 1000e3, 0.13 * 1000e3);
  EXPECT_NEAR(static_cast<double>(s.percentile(0)), 1e3, 0.13 * 1e3);
}

TEST(LatencyHistogram, SnapshotsAddAndSubtract) {
  LatencyHistogram h;
  h.add(micros(5));
  const LatencySnapshot first = h.snapshot();
  for (int i = 0; i < 9; ++i) h.add(millis(5));
  const LatencySnapshot rest = h.snapshot().since(first);
  EXPECT_EQ(rest.total(), 9u);
  EXPECT_NEAR(static_cast<double>(rest.percentile(1)), 5e6, 0.13 * 5e6);
  LatencySnapshot sum = first;
  sum += rest;
  EXPECT_EQ(sum.counts, h.snapshot().counts);
  h.clear();
  EXPECT_EQ(h.snapshot().total(), 0u);
}

}  // namespace
}  // namespace heaptier
