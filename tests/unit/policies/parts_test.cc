// The parts that policies are assembled from, each alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "policies/clock.h"
#include "policies/filter.h"
#include "policies/pressure.h"
#include "policies/quota.h"
#include "policies/rank.h"
#include "policies/watch.h"

namespace heaptier::policy {
namespace {

// --- when ---

Pressure judge(Watermarks& marks, std::uint64_t used_pages) {
  View view;
  view.resident_bytes = used_pages * kPageSize / 2;
  view.parked_bytes = used_pages * kPageSize - view.resident_bytes;
  Budget budget;
  budget.low_bytes = 6400 * kPageSize;  // near above 6000, target 6300
  budget.high_bytes = 8000 * kPageSize;
  budget.fast_bytes = 9000 * kPageSize;
  return marks.judge(view, budget);
}

TEST(Watermarks, ZonesBeginAboveTheirWatermark) {
  const auto zone = [](std::uint64_t used) {
    Watermarks fresh;
    return judge(fresh, used).zone;
  };
  EXPECT_EQ(zone(0), Zone::kCalm);
  EXPECT_EQ(zone(6000), Zone::kCalm);
  EXPECT_EQ(zone(6001), Zone::kNear);
  EXPECT_EQ(zone(6400), Zone::kNear);
  EXPECT_EQ(zone(6401), Zone::kLow);
  EXPECT_EQ(zone(8000), Zone::kLow);
  EXPECT_EQ(zone(8001), Zone::kHigh);
}

TEST(Watermarks, NeedReachesToTheTargetAndOnlyAfterLowWasPassed) {
  Watermarks marks;
  EXPECT_EQ(judge(marks, 6350).need, 0U);
  EXPECT_EQ(judge(marks, 6401).need, 101U);
  EXPECT_EQ(judge(marks, 6350).need, 50U);
  EXPECT_EQ(judge(marks, 6350).zone, Zone::kLow);
  EXPECT_EQ(judge(marks, 6300).need, 0U);
  EXPECT_EQ(judge(marks, 6350).need, 0U);
  EXPECT_EQ(judge(marks, 6350).zone, Zone::kNear);
}

TEST(Watermarks, IdleTimeShrinksFromLowToNothingAtHigh) {
  Watermarks marks;
  Nanos before = judge(marks, 6401).idle;
  EXPECT_NEAR(static_cast<double>(before.v), static_cast<double>(kIdleAtLow.v), 2e6);
  for (std::uint64_t used = 6402; used <= 8000; ++used) {
    const Nanos idle = judge(marks, used).idle;
    EXPECT_LT(idle, before);
    before = idle;
  }
  EXPECT_EQ(before.v, 0);
}

TEST(Watermarks, NoLimitIsNoPressure) {
  View view;
  view.resident_bytes = ~std::uint64_t{0} / 2;
  Watermarks marks;
  EXPECT_EQ(marks.judge(view, Budget{}).zone, Zone::kCalm);
}

TEST(Watermarks, OddBudgetsAreSurvived) {
  View view;
  view.resident_bytes = 100 * kPageSize;
  Budget budget;
  budget.fast_bytes = 1;  // all watermarks at zero
  Watermarks marks;
  EXPECT_EQ(marks.judge(view, budget).zone, Zone::kHigh);
  EXPECT_EQ(marks.judge(view, budget).need, 100U);
  budget.low_bytes = 200 * kPageSize;  // above high
  EXPECT_EQ(marks.judge(view, budget).zone, Zone::kCalm);
}

// --- how much ---

TEST(Allowance, IsOverdrawnOnceAndPaidBack) {
  Allowance a;
  EXPECT_FALSE(a.any());
  a.refill(10, 100);
  EXPECT_TRUE(a.any());
  a.spend(35);
  a.refill(10, 100);
  a.refill(10, 100);
  EXPECT_FALSE(a.any());
  a.refill(10, 100);
  EXPECT_TRUE(a.any());  // 40 given, 35 spent
}

TEST(Allowance, SavesUpToALimit) {
  Allowance a;
  for (int i = 0; i < 100; ++i) a.refill(10, 30);
  a.spend(30);
  EXPECT_FALSE(a.any());
}

TEST(Allowance, WhatHadToBeSpentIsNoDebt) {
  Allowance a;
  a.refill(10, 100);
  a.spend_at_most_all(1000);
  EXPECT_FALSE(a.any());
  a.refill(1, 100);
  EXPECT_TRUE(a.any());
  a.spend(5);
  a.spend_at_most_all(1000);  // neither does it forgive any
  a.refill(4, 100);
  EXPECT_FALSE(a.any());
}

TEST(ReturnShare, FollowsWhatIsSeen) {
  ReturnShare share;
  EXPECT_EQ(share.yield(512), 256U);
  for (int i = 0; i < 100; ++i) share.note(0, 512);
  EXPECT_EQ(share.returning(512), 0U);
  EXPECT_EQ(share.yield(512), 512U);
  EXPECT_EQ(share.pages_for(100), 100U);
}

TEST(ReturnShare, NeverExpectsLessThanAQuarter) {
  ReturnShare share;
  for (int i = 0; i < 100; ++i) share.note(600, 512);
  EXPECT_GE(share.returning(512), 500U);
  EXPECT_EQ(share.yield(512), 128U);
  EXPECT_EQ(share.pages_for(100), 400U);
  share.note(1, 0);  // nothing was parked: says nothing
  EXPECT_EQ(share.yield(512), 128U);
}

// --- which first ---

TEST(Ranking, KeysGrowWithAge) {
  Ranking::Key before = Ranking::key_of_age({-(std::int64_t{1} << 62)});
  for (std::int64_t magnitude = std::int64_t{1} << 62; magnitude > 0; magnitude /= 2) {
    const Ranking::Key key = Ranking::key_of_age({-magnitude});
    EXPECT_GE(key, before);
    before = key;
  }
  for (std::int64_t magnitude = 0; magnitude < std::int64_t{1} << 62;
       magnitude += magnitude / 16 + 1) {
    const Ranking::Key key = Ranking::key_of_age({magnitude});
    EXPECT_GE(key, before);
    EXPECT_LE(key, before + 4) << "no gap wider than an octave at " << magnitude;
    before = key;
  }
  EXPECT_LT(before, Ranking::kFirst);
  EXPECT_LT(Ranking::key_of_age({-1}), Ranking::key_of_age({0}));
  EXPECT_LT(Ranking::key_of_age(millis(100)), Ranking::key_of_age(millis(130)));
  EXPECT_LT(Ranking::key_of_age({INT64_MAX}), Ranking::kFirst);
  EXPECT_GE(Ranking::key_of_age({INT64_MIN}), Ranking::Key{0});
}

TEST(Ranking, TakesTheHighestKeysAndLittleMoreThanIsWanted) {
  std::mt19937 random(7);
  for (int round = 0; round < 500; ++round) {
    struct Item {
      Ranking::Key key;
      std::uint32_t pages;
    };
    std::vector<Item> items(random() % 40);
    std::uint64_t all = 0;
    for (Item& i : items) {
      i = {static_cast<Ranking::Key>(random() % 12),
           static_cast<std::uint32_t>(1 + random() % 512)};
      all += i.pages;
    }
    const std::uint64_t wanted = random() % (all + 100);
    Ranking ranking;
    for (const Item& i : items) ranking.count(i.key, i.pages);
    ranking.cut(wanted, items.size());
    std::uint64_t taken = 0;
    Ranking::Key lowest_taken = Ranking::kKeys, highest_left = 0;
    for (const Item& i : items) {
      if (ranking.take(i.key, i.pages)) {
        taken += i.pages;
        lowest_taken = std::min(lowest_taken, i.key);
      } else {
        highest_left = std::max(highest_left, i.key);
      }
    }
    EXPECT_GE(taken, std::min(wanted, all));
    EXPECT_LT(taken, wanted + 512);
    if (taken > 0 && taken < all) {
      EXPECT_LE(highest_left, lowest_taken);
    }
    if (wanted == 0) {
      EXPECT_EQ(taken, 0U);
    }
  }
}

TEST(Ranking, ABoundOnBlocksCutsEarlier) {
  Ranking ranking;
  for (Ranking::Key k = 0; k < 10; ++k) ranking.count(k, 1);
  ranking.cut(1000, 3);
  for (Ranking::Key k = 0; k < 10; ++k) EXPECT_EQ(ranking.take(k, 1), k >= 7) << k;
}

// --- not these, and what became of it ---

BlockView parked_block(std::uint16_t pages) {
  BlockView b;
  b.phase = BlockPhase::kParked;
  b.not_before = {1};
  b.parked = b.watched = pages;
  b.parked_since = seconds(10);
  return b;
}

void bring_home(BlockView& b, std::uint16_t touches) {
  b.phase = BlockPhase::kWhole;
  b.resident = b.parked;
  b.parked = 0;
  b.touches = touches;
}

TEST(Observe, ABlockThatComesStraightBackRestsTwiceAsLongEachTime) {
  ReturnShare share;
  BlockView b = parked_block(512);
  Nanos now = seconds(10);
  Nanos rest{};
  for (std::uint32_t times = 1; times <= kMaxBackoff + 3; ++times) {
    b.parked_since = now;
    b.phase = BlockPhase::kParked;
    b.parked = b.watched = 512;
    bring_home(b, 1);
    now.v += millis(10).v;
    observe(b, now, share);
    EXPECT_EQ(b.backoff, std::min(times, kMaxBackoff));
    EXPECT_EQ(b.heat, 512);
    EXPECT_EQ(b.watched, 0);
    const Nanos r = b.not_before - now;
    EXPECT_EQ(r, times <= kMaxBackoff ? Nanos{kRest.v << times} : rest);
    rest = r;
  }
}

TEST(Observe, ALateTouchHalvesWhatWasEarned) {
  ReturnShare share;
  BlockView b = parked_block(512);
  b.backoff = 6;
  bring_home(b, 1);
  observe(b, b.parked_since + kStraightBack, share);
  EXPECT_EQ(b.backoff, 3);
}

TEST(Observe, APageAtATimeIsWaitedFor) {
  ReturnShare share;
  BlockView b = parked_block(512);
  b.parked = 500;
  b.resident = 12;
  b.touches = 12;
  observe(b, seconds(11), share);
  EXPECT_EQ(b.watched, 512);
  EXPECT_EQ(returned_pages(b), 12U);
}

TEST(Observe, AStoredBlockIsForgiven) {
  ReturnShare share;
  BlockView b = parked_block(512);
  b.backoff = 5;
  b.phase = BlockPhase::kScattered;
  b.parked = 0;
  b.resident = 100;
  b.stored = 412;
  observe(b, seconds(11), share);
  EXPECT_EQ(b.backoff, 0);
  EXPECT_EQ(b.heat, 100);
  EXPECT_LT(share.returning(512), 256U);
}

TEST(Observe, AParkThatDidNotTakePlaceSaysNothing) {
  ReturnShare share;
  BlockView b = parked_block(512);
  bring_home(b, 0);
  observe(b, seconds(11), share);
  EXPECT_EQ(b.watched, 0);
  EXPECT_EQ(b.backoff, 0);
  EXPECT_EQ(share.yield(512), 256U);
}

TEST(Observe, ANewBlockIsLetAloneForAMoment) {
  ReturnShare share;
  BlockView b;
  observe(b, seconds(5), share);
  EXPECT_EQ(b.not_before.v, 0) << "empty: not there yet";
  b.resident = 1;
  observe(b, seconds(5), share);
  EXPECT_EQ(b.not_before, seconds(5) + kRest);
  observe(b, seconds(6), share);
  EXPECT_EQ(b.not_before, seconds(5) + kRest);
}

TEST(Observe, FruitlessBlocksRestFromWhenItIsSeen) {
  ReturnShare share;
  BlockView b;
  b.resident = 512;
  b.not_before = {1};
  b.fruitless = 2;
  observe(b, seconds(5), share);
  EXPECT_EQ(b.not_before, seconds(5) + Nanos{kRest.v * 4});
  EXPECT_FALSE(may_demote(b, seconds(5)));
  EXPECT_TRUE(may_demote(b, b.not_before));
  observe(b, b.not_before, share);
  EXPECT_TRUE(may_demote(b, b.not_before)) << "only a further failure makes it rest again";
  b.fruitless = 0;
  b.not_before = seconds(1000);
  EXPECT_TRUE(may_demote(b, seconds(5)));
}

TEST(Clock, SweepsEachBlockOnceAndReclaimableOnesFirst) {
  std::vector<BlockView> blocks(6);
  for (std::uint32_t i = 0; i < 6; ++i) {
    blocks[i].index = {i};
    blocks[i].phase = BlockPhase::kScattered;
    blocks[i].resident = 100;
  }
  blocks[4].mobility = Mobility::kReclaimable;
  blocks[3].mobility = Mobility::kUnmovable;
  blocks[5].clean = 100;  // all on probation
  View view;
  view.blocks = blocks;
  view.clock_hand = 2;
  const auto swept = [&](std::uint64_t pages) {
    Step storage[10];
    Plan plan(storage);
    plan_sweeps(view, seconds(1), pages, false, plan);
    std::string order;
    for (const Step& s : plan.steps()) order += std::to_string(s.block.v);
    return order;
  };
  EXPECT_EQ(swept(0), "");
  EXPECT_EQ(swept(150), "42");
  EXPECT_EQ(swept(10'000),
            "401"
            "2");
}

}  // namespace
}  // namespace heaptier::policy
