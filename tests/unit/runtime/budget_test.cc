#include "runtime/budget.h"

#include <gtest/gtest.h>

#include "runtime/limit_watch.h"
#include "runtime/machine_look.h"

namespace heaptier {
namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

FastBudget bytes(std::uint64_t n) {
  return {FastBudget::Kind::kBytes, n, 0};
}
FastBudget percent(std::uint32_t n) {
  return {FastBudget::Kind::kPercent, 0, n};
}

TEST(Budget, AFixedBudgetIsTheHighMark) {
  const Watermarks w = derive_watermarks(bytes(512 * kMiB), {});
  EXPECT_EQ(w.fast_bytes, 512 * kMiB);
  EXPECT_EQ(w.high_bytes, 512 * kMiB);
  EXPECT_LT(w.low_bytes, w.high_bytes);
  EXPECT_GT(w.low_bytes, 490 * kMiB);
}

TEST(Budget, AShareGrowsWithTheHeap) {
  MemorySituation now;
  now.heap_bytes = 100 * kMiB;
  const std::uint64_t small = derive_watermarks(percent(50), now).fast_bytes;
  now.heap_bytes = 1000 * kMiB;
  const std::uint64_t large = derive_watermarks(percent(50), now).fast_bytes;
  EXPECT_NEAR(static_cast<double>(small), 50.0 * kMiB, 2.0 * kMiB);
  EXPECT_NEAR(static_cast<double>(large), 500.0 * kMiB, 10.0 * kMiB);
}

TEST(Budget, TheWholeHeapIsNoLimit) {
  MemorySituation now;
  now.heap_bytes = 100 * kMiB;
  EXPECT_EQ(derive_watermarks(percent(100), now).fast_bytes, 0u);
}

TEST(Budget, AutoStaysBelowTheCgroupsLimitAndLeavesRoomForTheStore) {
  MemorySituation now;
  now.cgroup_limit = 1000 * kMiB;
  now.physical_bytes = 64000 * kMiB;
  now.available_bytes = 60000 * kMiB;
  now.present_bytes = 500 * kMiB;
  const std::uint64_t without = derive_watermarks({}, now).fast_bytes;
  EXPECT_LT(without, 950 * kMiB);
  now.store_bytes = 200 * kMiB;
  EXPECT_EQ(derive_watermarks({}, now).fast_bytes, without - 200 * kMiB);
}

TEST(Budget, AutoLeavesATenthOfTheMachineFree) {
  MemorySituation now;
  now.physical_bytes = 10000 * kMiB;
  now.available_bytes = 3000 * kMiB;
  now.present_bytes = 5000 * kMiB;
  EXPECT_EQ(derive_watermarks({}, now).fast_bytes, 7000 * kMiB);
  now.available_bytes = 0;
  EXPECT_EQ(derive_watermarks({}, now).fast_bytes, 0u) << "nothing known: no limit";
}

TEST(Budget, NothingIsTooSmall) {
  MemorySituation now;
  now.cgroup_limit = 8 * kMiB;
  now.store_bytes = 100 * kMiB;
  EXPECT_GE(derive_watermarks({}, now).fast_bytes, kMiB);
  EXPECT_GE(derive_watermarks(bytes(1), {}).low_bytes, kMiB / 2);
}

TEST(Budget, WhatCannotLeaveLeavesTheRestAnEighth) {
  MemorySituation now;
  now.stuck_bytes = 100 * kMiB;
  EXPECT_EQ(derive_watermarks(bytes(512 * kMiB), now).high_bytes, 512 * kMiB);
  now.stuck_bytes = 600 * kMiB;
  EXPECT_EQ(derive_watermarks(bytes(512 * kMiB), now).high_bytes, 664 * kMiB);
  EXPECT_EQ(derive_watermarks(bytes(4 * kMiB), now).high_bytes, 601 * kMiB);
  EXPECT_EQ(derive_watermarks(percent(100), now).fast_bytes, 0u) << "no limit stays none";
  EXPECT_EQ(derive_watermarks(bytes(4 * kMiB), now).fast_bytes, 4 * kMiB) << "as asked for";
  EXPECT_GT(derive_watermarks(bytes(4 * kMiB), now).low_bytes, 600 * kMiB)
      << "what is stuck alone must not look like pressure";
}

TEST(Budget, WhatCannotLeaveDoesNotLiftAutoOverTheCgroupsLimit) {
  MemorySituation now;
  now.cgroup_limit = 1024 * kMiB;
  now.store_bytes = 94 * kMiB;
  now.stuck_bytes = 850 * kMiB;
  now.present_bytes = 1100 * kMiB;
  EXPECT_LE(derive_watermarks({}, now).high_bytes + 94 * kMiB, 1024 * kMiB - 64 * kMiB);
  now.stuck_bytes = 2000 * kMiB;
  EXPECT_EQ(derive_watermarks({}, now).high_bytes, 2001 * kMiB) << "never nothing";
}

TEST(Budget, AFixedBudgetPutsWakingOffUntilItIsNear) {
  Options o;
  o.wake_bytes = 64 * kMiB;
  EXPECT_EQ(wake_threshold(o), 64 * kMiB);
  o.fast = bytes(1000 * kMiB);
  EXPECT_EQ(wake_threshold(o), 750 * kMiB);
  o.fast = bytes(8 * kMiB);
  EXPECT_EQ(wake_threshold(o), 64 * kMiB);
}

TEST(LimitWatch, PressesFromAnEighthBelowTheMarkAndForAWhileAfter) {
  LimitWatch watch;
  Nanos now = seconds(100);
  EXPECT_FALSE(watch.presses(now, 1000, UINT64_MAX)) << "there is no limit";
  EXPECT_FALSE(watch.presses(now, 6999, 8000));
  EXPECT_TRUE(watch.presses(now, 7000, 8000));
  EXPECT_TRUE(watch.presses(now + millis(4999), 100, 8000)) << "not to and fro";
  EXPECT_FALSE(watch.presses(now + seconds(5), 100, 8000));
  now = now + seconds(9);
  EXPECT_TRUE(watch.presses(now, 9000, 8000));
  EXPECT_FALSE(watch.presses(now, 9000, UINT64_MAX)) << "the limit has gone";
  EXPECT_FALSE(watch.presses(now, 100, 8000));
}

TEST(MachineLook, IsDueByTimeAndByGrowth) {
  constexpr std::size_t kCarved = std::size_t{100} << 20;
  MachineLook look;
  EXPECT_TRUE(look.due(seconds(50), 0)) << "nothing is known yet";
  look.done(seconds(50), kCarved, false);
  EXPECT_FALSE(look.due(seconds(50), kCarved));
  EXPECT_FALSE(look.due(seconds(50) + millis(999), kCarved + MachineLook::kGrowth - 1));
  EXPECT_TRUE(look.due(seconds(51), kCarved));
  EXPECT_TRUE(look.due(seconds(50), kCarved + MachineLook::kGrowth));
  look.done(seconds(51), kCarved, true);
  EXPECT_FALSE(look.due(seconds(51) + millis(49), kCarved / 2)) << "it has shrunk";
  EXPECT_TRUE(look.due(seconds(51) + millis(50), kCarved / 2)) << "a limit is looked at often";
}

TEST(LimitWatch, PagesArePlacedInTurnsWhileNothingIsInExcess) {
  LimitWatch watch;
  int stores = 0;
  int turns = 0;
  bool before = true;
  for (int tenths = 0; tenths < 600; ++tenths) {
    const bool now = watch.presses(seconds(100) + millis(100 * tenths), 8000 + tenths % 200, 8000);
    stores += now ? 1 : 0;
    turns += now != before ? 1 : 0;
    before = now;
  }
  EXPECT_EQ(stores, 400);
  EXPECT_EQ(turns, 7);
  // Placing ends at once when something has to leave, and is not begun again soon.
  Nanos now = seconds(300);
  for (; watch.presses(now, 7500, 8000);) now = now + seconds(1);
  EXPECT_EQ(now, seconds(310));
  EXPECT_TRUE(watch.presses(now + seconds(1), 8251, 8000));
  for (int i = 2; i <= 10; ++i) EXPECT_TRUE(watch.presses(now + seconds(i), 7500, 8000)) << i;
  EXPECT_FALSE(watch.presses(now + seconds(11), 7500, 8000));
  // While there is always an excess there are no turns.
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(watch.presses(seconds(400 + i), 9000, 8000));
}

}  // namespace
}  // namespace heaptier
