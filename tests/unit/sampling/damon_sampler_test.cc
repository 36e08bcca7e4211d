// What DAMON is given of a heap, at what pace, and when it is given something else.
#include "runtime/sampling/damon_sampler.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/fakes/fake_damon.h"

namespace heaptier {
namespace {

constexpr int kMe = 100;
constexpr std::uintptr_t kBase = std::uintptr_t{1} << 40;
constexpr unsigned kOnePercent = 100;

// Of a heap without holes.
HeapPace pace_for(std::uint32_t blocks, Nanos cost, unsigned budget, std::uint32_t most) {
  const auto regions = [blocks](std::uint32_t group) { return (blocks + group - 1) / group; };
  return finest_pace(regions, cost, budget, most);
}

TEST(HeapPace, EachPageblockIsARegionWhileTheBudgetAllowsIt) {
  const HeapPace small = pace_for(48, micros(1), kOnePercent, kMostRegions);
  EXPECT_EQ(small.group, 1U);
  EXPECT_EQ(small.regions, 48U);
  EXPECT_EQ(small.damon.look, millis(20));
  EXPECT_EQ(small.damon.least_regions, 48U) << "no two are joined";
  EXPECT_EQ(small.damon.most_regions, 48U) << "none is parted";
  const HeapPace large = pace_for(800, micros(1), kOnePercent, kMostRegions);
  EXPECT_EQ(large.group, 1U);
  EXPECT_EQ(large.damon.look, millis(80));
  const HeapPace rich = pace_for(800, micros(1), 10 * kOnePercent, kMostRegions);
  EXPECT_EQ(rich.damon.look, millis(8));
}

TEST(HeapPace, NeverCostsMoreThanItMay) {
  for (std::uint32_t blocks = 1; blocks < (1U << 20); blocks = blocks * 3 / 2 + 1) {
    for (const std::int64_t cost : {100, 2000, 50000}) {
      for (const unsigned budget : {1U, 100U, 5000U}) {
        const HeapPace pace = pace_for(blocks, {cost}, budget, kMostRegions);
        EXPECT_LE(pace.regions, kMostRegions);
        EXPECT_GE(std::uint64_t{pace.regions} * pace.group, blocks);
        EXPECT_GE(pace.damon.least_regions, 3U) << "the kernel takes no fewer";
        EXPECT_LE(pace.damon.least_regions, pace.damon.most_regions);
        EXPECT_GE(pace.damon.looks, 10U);
        const auto share = pace.regions * cost * 10000 / pace.damon.look.v;
        EXPECT_TRUE(pace.regions == 1 || share <= budget) << blocks << " at " << cost;
      }
    }
  }
}

struct Told {
  std::uintptr_t start, end;
  std::uint32_t looks, used;
};
class Listener final : public HeatSink {
 public:
  void told(std::uintptr_t start, std::uintptr_t end, std::uint32_t looks, std::uint32_t used,
            Nanos) override {
    all.push_back({start, end, looks, used});
  }
  void used(std::uintptr_t, std::uint64_t) override { FAIL() << "DAMON tells of looks"; }
  void counted(Nanos) override {}
  std::vector<Told> all;
};

class OfAHeap : public testing::Test {
 protected:
  void use(std::uint32_t first, std::uint32_t blocks) {
    for (std::uint32_t b = first; b < first + blocks; ++b) {
      if (bits_.size() <= b / 64) bits_.resize(b / 64 + 1);
      bits_[b / 64] |= std::uint64_t{1} << (b % 64);
    }
    count_ += blocks;
  }
  SampledBlocks blocks() const { return {kBase, bits_, count_}; }
  Errno begin(unsigned budget = kOnePercent) { return sampler_.begin(kMe, blocks(), budget, now_); }
  void round(Nanos later) {
    now_ = now_ + later;
    sampler_.round(blocks(), now_, sink_);
  }
  std::uint64_t regions() const {
    return kernel_.number("0/contexts/0/targets/0/regions/nr_regions");
  }
  StatsSnapshot stats() {
    StatsSnapshot s{};
    stats_.read(&s);
    sampler_.read(&s);
    return s;
  }
  void report_all() { events_.report(kBase, kBase + kPageblockSize, 7); }

  FakeDamon kernel_;
  FakeEvents events_;
  Stats stats_;
  DamonSampler sampler_{kernel_, events_, stats_};
  Listener sink_;
  std::vector<std::uint64_t> bits_;
  std::uint32_t count_ = 0;
  Nanos now_ = seconds(5);
};

TEST_F(OfAHeap, BeginsWithFewRegionsAndGoesOnWithAll) {
  use(3, 400);
  ASSERT_TRUE(begin().ok()) << sampler_.why_not();
  EXPECT_LE(regions(), 32U) << "nobody is to wait for the rest";
  EXPECT_EQ(kernel_.number("0/contexts/0/targets/0/regions/0/start"), kBase + 3 * kPageblockSize);
  round(millis(400));
  EXPECT_EQ(regions(), 400U);
  EXPECT_EQ(stats().sampler_regions, 400U);
  EXPECT_EQ(stats().sampler_starts, 2U);
  EXPECT_TRUE(sampler_.tells());
}

TEST_F(OfAHeap, HolesAreNotLookedAt) {
  use(0, 2);
  use(1000, 1);
  ASSERT_TRUE(begin().ok());
  round(millis(400));
  ASSERT_EQ(regions(), 3U);
  EXPECT_EQ(kernel_.number("0/contexts/0/targets/0/regions/1/end"), kBase + 2 * kPageblockSize);
  EXPECT_EQ(kernel_.number("0/contexts/0/targets/0/regions/2/start"),
            kBase + 1000 * kPageblockSize);
}

TEST_F(OfAHeap, AHeapFullOfHolesHasNoMoreRegionsThanMayBe) {
  for (std::uint32_t b = 0; b < 100000; b += 10) use(b, 1);
  ASSERT_TRUE(begin().ok());
  EXPECT_LE(regions(), 32U);
  round(millis(400));
  EXPECT_GT(regions(), 32U);
  EXPECT_LE(regions(), kMostRegions);
  EXPECT_TRUE(kernel_.on());
  // To the last of them, and for no more than may be spent.
  const std::string last =
      "0/contexts/0/targets/0/regions/" + std::to_string(regions() - 1) + "/end";
  EXPECT_EQ(kernel_.get(last), std::to_string(kBase + (99990 + 1) * kPageblockSize));
  const auto look_us =
      std::stoull(kernel_.get("0/contexts/0/monitoring_attrs/intervals/sample_us"));
  EXPECT_LE(regions() * 2 * 100, look_us) << "2 us each, of which 1 % may be spent";
}

TEST_F(OfAHeap, OneThatSwingsIsToldOfAllTheSame) {
  use(0, 400);
  ASSERT_TRUE(begin().ok());
  round(millis(400));
  const std::uint64_t starts = stats().sampler_starts;
  for (std::uint32_t i = 0; i < 10; ++i) {
    use(400 + 200 * i, 200);
    events_.report(kBase, kBase + kPageblockSize, 10);
    round(millis(350));
  }
  EXPECT_LE(stats().sampler_starts, starts + 3) << "a report takes most of a second here";
  EXPECT_EQ(sink_.all.size(), 10U);
}

TEST_F(OfAHeap, WithoutAHeapItWaitsForOne) {
  ASSERT_TRUE(begin().ok()) << sampler_.why_not();
  round(millis(400));
  use(0, 40);
  round(millis(400));
  EXPECT_EQ(regions(), 40U);
}

TEST_F(OfAHeap, WhatIsReportedIsHandedOn) {
  use(0, 10);
  ASSERT_TRUE(begin().ok());
  round(millis(400));
  events_.report(kBase, kBase + kPageblockSize, 10);
  events_.lose(2);
  round(millis(100));
  ASSERT_EQ(sink_.all.size(), 1U);
  EXPECT_EQ(sink_.all[0].start, kBase);
  EXPECT_EQ(sink_.all[0].looks, 10U);
  EXPECT_EQ(sink_.all[0].used, 10U);
  EXPECT_EQ(stats().sampler_reports, 1U);
  EXPECT_EQ(stats().sampler_lost, 2U);
}

TEST_F(OfAHeap, GrowthIsFollowedSoonIfItIsMuchAndElseInItsTurn) {
  use(0, 100);
  ASSERT_TRUE(begin().ok());
  round(millis(400));
  ASSERT_EQ(regions(), 100U);
  use(100, 1);
  round(millis(400));
  EXPECT_EQ(regions(), 100U);
  use(101, 30);
  round(millis(100));
  EXPECT_EQ(regions(), 131U);
  use(131, 1);
  for (int i = 0; i < 60; ++i) {
    report_all();
    round(millis(100));
  }
  EXPECT_EQ(regions(), 132U);
  EXPECT_EQ(stats().sampler_starts, 4U);
}

TEST_F(OfAHeap, KeepsToItsBudgetByWhatItCosts) {
  use(0, 50);
  ASSERT_TRUE(begin().ok());
  round(millis(400));
  const auto look = [&] {
    return kernel_.number("0/contexts/0/monitoring_attrs/intervals/sample_us");
  };
  EXPECT_EQ(look(), 20000U) << "by what a look usually costs";
  // 10 us each: 500 us in 20 ms are a fortieth.
  for (int i = 1; i <= 150; ++i) {
    kernel_.files["/proc/777/schedstat"] = std::to_string(i * 5 * 500'000) + " 0 0\n";
    report_all();
    round(millis(100));
  }
  EXPECT_GE(look(), 40000U);
  EXPECT_GT(stats().sampler_cpu_ns, 0U);
}

TEST_F(OfAHeap, ABudgetOfNothingIsRefused) {
  use(0, 50);
  EXPECT_TRUE(begin(0).failed());
  EXPECT_NE(std::string(sampler_.why_not()).find("HINT_BUDGET"), std::string::npos);
  EXPECT_TRUE(kernel_.orders.empty());
  EXPECT_FALSE(sampler_.tells());
  EXPECT_FALSE(sampler_.leave());
}

TEST_F(OfAHeap, WhoeverEndsItHasItStartedAgainUntilThatIsInVain) {
  use(0, 50);
  ASSERT_TRUE(begin().ok());
  round(millis(400));
  kernel_.set("0/state", "off");
  round(seconds(3));
  EXPECT_TRUE(kernel_.on());
  // Somebody else has it now.
  kernel_.live(200);
  kernel_.add_kdamond(0, 200, true);
  for (int i = 0; i < 20; ++i) round(seconds(3));
  EXPECT_FALSE(sampler_.tells());
  EXPECT_EQ(stats().sampler_fallbacks, 1U);
  EXPECT_EQ(stats().sampler_regions, 0U);
  EXPECT_EQ(kernel_.get("0/contexts/0/targets/0/pid_target"), "200");
  EXPECT_TRUE(kernel_.on());
}

TEST_F(OfAHeap, IfItSaysNothingForLongItIsNotReliedOn) {
  use(0, 50);
  ASSERT_TRUE(begin().ok());
  for (int i = 0; i < 20; ++i) round(seconds(3));
  EXPECT_FALSE(sampler_.tells());
  EXPECT_EQ(kernel_.get("nr_kdamonds"), "0");
}

TEST_F(OfAHeap, CPUsForgetOnceALook) {
  EXPECT_EQ(sampler_.until_forgotten(now_, seconds(1)), seconds(1)) << "nobody looks";
  use(0, 50);
  ASSERT_TRUE(begin().ok());
  EXPECT_EQ(sampler_.until_forgotten(now_, seconds(1)).v, 0);
  sampler_.have_forgotten(now_);
  EXPECT_EQ(sampler_.until_forgotten(now_, seconds(1)), millis(20));
  sampler_.have_forgotten(now_ + millis(5));
  EXPECT_EQ(sampler_.until_forgotten(now_ + millis(5), seconds(1)), millis(15));
  EXPECT_EQ(sampler_.until_forgotten(now_, millis(1)), millis(1));
  EXPECT_EQ(sampler_.until_forgotten(now_ + seconds(9), millis(1)).v, 0);
}

TEST_F(OfAHeap, TheEndOfTheProcessIsItsEnd) {
  use(0, 50);
  ASSERT_TRUE(begin().ok());
  sampler_.see_who_leaves();
  EXPECT_TRUE(kernel_.on());
  ASSERT_TRUE(sampler_.leave());
  sampler_.see_who_leaves();
  sampler_.await_left();
  EXPECT_EQ(kernel_.get("nr_kdamonds"), "0");
  EXPECT_FALSE(sampler_.tells());
  EXPECT_FALSE(sampler_.leave());
}

TEST_F(OfAHeap, AForkedChildIsNotLookedAt) {
  use(0, 50);
  ASSERT_TRUE(begin().ok());
  kernel_.orders.clear();
  sampler_.forget();
  EXPECT_TRUE(sampler_.left_to_parent());
  EXPECT_FALSE(sampler_.tells());
  round(seconds(3));
  sampler_.stop();
  EXPECT_TRUE(kernel_.orders.empty());
  EXPECT_EQ(stats().sampler_fallbacks, 1U);
  DamonSampler asleep(kernel_, events_, stats_);
  asleep.forget();
  EXPECT_FALSE(asleep.left_to_parent()) << "its parent had not begun";
}

}  // namespace
}  // namespace heaptier
