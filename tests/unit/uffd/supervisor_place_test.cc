#include "uffd/supervisor_place.h"

#include <gtest/gtest.h>

namespace heaptier {
namespace {

CpuSet cpus(std::initializer_list<int> list) {
  CpuSet set;
  for (const int cpu : list) set.add(cpu);
  return set;
}

// Looks for one period; the same is served at every one.
bool period(SupervisorPlace& place, const CpuSet& allowed, const CpuSet& serving, unsigned handlers,
            CpuSet* out) {
  bool moved = false;
  for (unsigned i = 0; i < SupervisorPlace::kPeriod; ++i) {
    moved = place.look(allowed, serving, handlers, out) || moved;
  }
  return moved;
}

TEST(SupervisorPlace, LeavesTheCpusWhereHandlersServe) {
  SupervisorPlace place;
  CpuSet now;
  ASSERT_TRUE(period(place, cpus({0, 1, 2, 3}), cpus({1, 2}), 2, &now));
  EXPECT_EQ(now, cpus({0, 3}));
  EXPECT_FALSE(period(place, cpus({0, 1, 2, 3}), cpus({1, 2}), 2, &now));
}

TEST(SupervisorPlace, DoesNothingBeforeAPeriodIsOver) {
  SupervisorPlace place;
  CpuSet now;
  for (unsigned i = 0; i + 1 < SupervisorPlace::kPeriod; ++i) {
    EXPECT_FALSE(place.look(cpus({0, 1}), cpus({0}), 1, &now));
  }
  EXPECT_TRUE(place.look(cpus({0, 1}), cpus({0}), 1, &now));
  EXPECT_EQ(now, cpus({1}));
}

TEST(SupervisorPlace, StaysWhereItIsUnlessTheyServeThereNearlyAlways) {
  SupervisorPlace place;
  CpuSet now;
  ASSERT_TRUE(period(place, cpus({0, 1}), cpus({0}), 1, &now));
  ASSERT_EQ(now, cpus({1}));
  // A thread that goes to and fro.
  for (unsigned i = 0; i < 4 * SupervisorPlace::kPeriod; ++i) {
    EXPECT_FALSE(place.look(cpus({0, 1}), i % 2 == 0 ? cpus({0}) : cpus({1}), 1, &now));
  }
  ASSERT_TRUE(period(place, cpus({0, 1}), cpus({1}), 1, &now));
  EXPECT_EQ(now, cpus({0}));
}

TEST(SupervisorPlace, GoesAnywhereWhenTheyServeEverywhereOrNotAtAll) {
  SupervisorPlace place;
  CpuSet now;
  EXPECT_FALSE(period(place, cpus({0, 1}), cpus({0, 1}), 2, &now));
  ASSERT_TRUE(period(place, cpus({0, 1}), cpus({0}), 1, &now));
  ASSERT_TRUE(period(place, cpus({0, 1}), {}, 0, &now));
  EXPECT_EQ(now, cpus({0, 1}));
}

TEST(SupervisorPlace, AThreadThatChangesCpusIsNotTwo) {
  SupervisorPlace place;
  CpuSet now;
  bool moved = false;
  for (unsigned i = 0; i < SupervisorPlace::kPeriod; ++i) {
    const bool both = i % 8 == 0;
    moved = place.look(cpus({0, 1}), both ? cpus({0, 1}) : cpus({0}), both ? 2 : 1, &now) || moved;
  }
  ASSERT_TRUE(moved);
  EXPECT_EQ(now, cpus({1}));
}

TEST(SupervisorPlace, NeverLeavesTheAllowedCpus) {
  SupervisorPlace place;
  CpuSet now;
  EXPECT_FALSE(period(place, cpus({2, 3}), cpus({0}), 1, &now) &&
               !now.without(cpus({2, 3})).empty());
  EXPECT_FALSE(period(place, cpus({2}), cpus({2}), 1, &now) && !now.without(cpus({2})).empty());
}

}  // namespace
}  // namespace heaptier
