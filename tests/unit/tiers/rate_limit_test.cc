#include "runtime/tiers/rate_limit.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <random>

namespace heaptier {
namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

TEST(RateLimit, NoneIsNone) {
  RateLimit none;
  EXPECT_TRUE(none.take(~std::uint64_t{0}, {0}));
  EXPECT_EQ(none.wait_for(~std::uint64_t{0}, {0}), Nanos{0});
}

TEST(RateLimit, ABurstThenTheRate) {
  RateLimit limit(100 * kMiB, 10 * kMiB);
  Nanos now = seconds(5);
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(limit.take(2 * kMiB, now));
  EXPECT_FALSE(limit.take(1, now));
  // 2 MiB at 100 MiB/s: 20 ms.
  EXPECT_EQ(limit.wait_for(2 * kMiB, now), millis(20));
  now = now + millis(20) - Nanos{1};
  EXPECT_FALSE(limit.take(2 * kMiB, now));
  now = now + Nanos{1};
  EXPECT_TRUE(limit.take(2 * kMiB, now));
  EXPECT_FALSE(limit.take(2 * kMiB, now));
}

TEST(RateLimit, RestGivesNoMoreThanTheBurst) {
  RateLimit limit(100 * kMiB, 10 * kMiB);
  ASSERT_TRUE(limit.take(10 * kMiB, seconds(1)));
  const Nanos later = seconds(100'000'000);
  EXPECT_TRUE(limit.take(10 * kMiB, later));
  EXPECT_FALSE(limit.take(1, later));
}

TEST(RateLimit, AHugePageAlwaysFitsIntoTheBucket) {
  RateLimit limit(kMiB, 1);
  EXPECT_TRUE(limit.take(kPageblockSize, seconds(1)));
  EXPECT_EQ(limit.wait_for(kPageblockSize, seconds(1)), seconds(2));
}

TEST(RateLimit, WhatIsGivenBackCanBeTakenButNeverMoreThanTheBurst) {
  RateLimit limit(kMiB, 4 * kMiB);
  const Nanos now = seconds(1);
  ASSERT_TRUE(limit.take(4 * kMiB, now));
  limit.give_back(2 * kMiB);
  EXPECT_TRUE(limit.take(2 * kMiB, now));
  limit.give_back(100 * kMiB);
  EXPECT_TRUE(limit.take(4 * kMiB, now));
  EXPECT_FALSE(limit.take(1, now));
}

TEST(RateLimit, AClockThatStepsBackGivesNothing) {
  RateLimit limit(kMiB, 2 * kMiB);
  ASSERT_TRUE(limit.take(2 * kMiB, seconds(10)));
  EXPECT_FALSE(limit.take(1, seconds(3)));
  EXPECT_FALSE(limit.take(kMiB, seconds(10)));
  EXPECT_TRUE(limit.take(kMiB, seconds(11)));
}

TEST(RateLimit, ManyShortStepsGiveWhatOneLongStepGives) {
  // Rates that divide nothing evenly; page after page, asked for every few microseconds.
  for (const std::uint64_t rate : {std::uint64_t{1}, std::uint64_t{4097}, 33 * kMiB + 7,
                                   std::uint64_t{7'777'777'777}, std::uint64_t{1} << 40}) {
    RateLimit limit(rate, 64 * kMiB);
    std::mt19937 random(1);
    Nanos now = seconds(1);
    ASSERT_TRUE(limit.take(64 * kMiB, now));
    std::uint64_t taken = 0;
    const Nanos end = seconds(3);
    while (now < end) {
      now = std::min(now + Nanos{static_cast<std::int64_t>(random() % 20'000)}, end);
      while (limit.take(kPageSize, now)) taken += kPageSize;
    }
    EXPECT_LE(taken, 2 * rate) << rate;
    EXPECT_GT(taken + kPageSize, 2 * rate) << rate;
  }
}

TEST(RateLimit, ExtremesDoNotOverflow) {
  RateLimit limit(~std::uint64_t{0}, ~std::uint64_t{0});
  EXPECT_TRUE(limit.take(std::uint64_t{8} << 30, {1}));
  EXPECT_GT(limit.wait_for(std::uint64_t{8} << 30, {1}), Nanos{0});
  EXPECT_LT(limit.wait_for(std::uint64_t{8} << 30, {1}), seconds(1));
  EXPECT_TRUE(limit.take(std::uint64_t{8} << 30, {std::int64_t{1} << 62}));
}

}  // namespace
}  // namespace heaptier
