#include "policies/refault.h"

#include <gtest/gtest.h>

#include "runtime/pageblock.h"

namespace heaptier {
namespace {

constexpr std::uint64_t kStored = 1 << 16;  // log2 16: 32 half steps; a quarter of it: 28

RefaultVerdict judge(std::uint64_t distance, std::uint32_t estimate, std::uint32_t shift = 0) {
  constexpr std::uint64_t kDiscarded = 1'000'000;
  return judge_refault(
      {kDiscarded + distance, refault_stamp(kDiscarded, shift), shift, estimate, 7, kStored});
}

TEST(Refault, ASingleShortDistanceProvesLittle) {
  EXPECT_FALSE(judge(8192, 0).promote);
  EXPECT_FALSE(judge(kStored / 4, 0).promote);
}

TEST(Refault, RepeatedShortDistancesProveAPageHot) {
  std::uint32_t estimate = 0;
  int rounds = 0;
  for (; rounds < 20; ++rounds) {
    const RefaultVerdict v = judge(1024, estimate);
    EXPECT_LE(v.estimate, estimate == 0 ? 63 : estimate);
    estimate = v.estimate;
    if (v.promote) break;
  }
  EXPECT_GE(rounds, 1);
  EXPECT_LE(rounds, 4);
}

TEST(Refault, LongDistancesUnproveIt) {
  std::uint32_t estimate = 20;
  EXPECT_TRUE(judge(1024, estimate).promote);
  int rounds = 0;
  for (; rounds < 20 && judge(60'000, estimate).promote; ++rounds) {
    estimate = judge(60'000, estimate).estimate;
  }
  EXPECT_GE(rounds, 1);
  EXPECT_LE(rounds, 6);
}

TEST(Refault, TheHotterTheMoreCreditsUpToFive) {
  // The distance of the estimate itself, so that it stays what it is.
  EXPECT_EQ(judge(1 << 14, 28).credits, 0U);
  EXPECT_FALSE(judge(1 << 14, 28).promote);
  EXPECT_EQ(judge(11'800, 27).credits, 1U);
  EXPECT_EQ(judge(1 << 13, 26).credits, 2U);
  EXPECT_EQ(judge(1 << 12, 24).credits, 4U);
  EXPECT_EQ(judge(1 << 11, 22).credits, 5U);
  EXPECT_EQ(judge(1, 1).credits, 5U);
}

TEST(Refault, WithoutPromotionThereAreNoCredits) {
  for (std::uint64_t distance = 1; distance < 65'536; distance += distance / 3 + 1) {
    for (std::uint32_t estimate = 0; estimate < 64; ++estimate) {
      const RefaultVerdict v = judge(distance, estimate);
      EXPECT_TRUE(v.promote || v.credits == 0);
      EXPECT_LE(v.credits, 5U);
      EXPECT_GE(v.estimate, 1U);
      // Fits the page word's fields.
      const PageWord w = PageWord{}.with_estimate(v.estimate).with_credits(v.credits);
      EXPECT_EQ(w.estimate(), v.estimate);
      EXPECT_EQ(w.credits(), v.credits);
    }
  }
}

TEST(Refault, TheEstimateIsMonotonicInTheDistance) {
  for (std::uint32_t estimate = 0; estimate < 64; ++estimate) {
    std::uint32_t before = 0;
    for (std::uint64_t distance = 0; distance < 65'536; ++distance) {
      const std::uint32_t e = judge(distance, estimate).estimate;
      ASSERT_GE(e, before) << distance;
      before = e;
    }
  }
}

TEST(Refault, WhatIsStoredIsTheMeasure) {
  const RefaultInput in{1'004'000, refault_stamp(1'000'000, 0), 0, 24, 1 << 20, 1 << 16};
  EXPECT_TRUE(judge_refault(in).promote);
  RefaultInput few = in;
  few.stored_pages = 1 << 13;
  EXPECT_FALSE(judge_refault(few).promote) << "half of all that is stored went by in between";
  RefaultInput unknown = in;
  unknown.stored_pages = 0;
  EXPECT_TRUE(judge_refault(unknown).promote) << "by main_pages";
}

TEST(Refault, EmptyInputIsHarmless) {
  const RefaultVerdict v = judge_refault({});
  EXPECT_FALSE(v.promote);
  EXPECT_GE(v.estimate, 1U);
}

TEST(Refault, StampsGoRound) {
  for (const std::uint32_t shift : {0U, 3U, 8U}) {
    const std::uint64_t turn = std::uint64_t{65'536} << shift;
    const std::uint64_t discarded = 5 * turn - 10;
    EXPECT_LT(refault_stamp(discarded, shift), 65'536U);
    const RefaultVerdict across =
        judge_refault({discarded + 100, refault_stamp(discarded, shift), shift, 20, 0, kStored});
    const RefaultVerdict within = judge_refault(
        {discarded - 1000 + 100, refault_stamp(discarded - 1000, shift), shift, 20, 0, kStored});
    EXPECT_NEAR(across.estimate, within.estimate, 1) << shift;
    EXPECT_TRUE(across.promote);
  }
}

TEST(Refault, CoarseStampsSeeTheSameWithinAStep) {
  for (std::uint64_t distance = 1024; distance < 60'000; distance += 999) {
    EXPECT_NEAR(judge(distance, 24, 0).estimate, judge(distance, 24, 6).estimate, 1) << distance;
  }
}

TEST(Refault, StampsCoverTheHeapTwiceAndNotMuchMore) {
  EXPECT_EQ(stamp_shift(0), 0U);
  EXPECT_EQ(stamp_shift(32'768), 0U);
  EXPECT_EQ(stamp_shift(32'769), 1U);
  for (std::uint64_t pages = 1; pages < (std::uint64_t{1} << 32); pages += pages / 2 + 1) {
    const std::uint64_t covered = std::uint64_t{65'536} << stamp_shift(pages);
    EXPECT_GE(covered, pages * 2);
    EXPECT_LE(covered, std::max<std::uint64_t>(pages * 4, 65'536));
  }
}

TEST(Refault, ProbationIsASmallShare) {
  EXPECT_EQ(probation_target(0), 0U);
  EXPECT_EQ(probation_target(1000), 60U);
}

}  // namespace
}  // namespace heaptier
