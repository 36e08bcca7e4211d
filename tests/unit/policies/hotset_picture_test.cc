// What hotset plans for a given picture of memory. Watermarks are in blocks of 512 pages.
#include <gtest/gtest.h>

#include "policies/filter.h"
#include "policies/hotset.h"
#include "tests/support/picture.h"

namespace heaptier {
namespace {

using testing::Picture;

std::string plan(Picture picture, Nanos now = Picture::kNow) {
  HotsetPolicy policy;
  return picture.plan(policy, now);
}

// --- costs nothing until it pays ---

TEST(HotsetCalm, WithoutABudgetNothingMoves) {
  EXPECT_EQ(plan(Picture("HHwwuuss")), "........");
}

TEST(HotsetCalm, FarBelowTheLowWatermarkNothingMoves) {
  EXPECT_EQ(plan(Picture("HHwwPPpp").limits(9, 10).hint_time(millis(100))), "........");
}

TEST(HotsetCalm, DenseBlocksAreMadeHugeWhereThatIsAllowed) {
  Picture p("uwHs");
  p.hint_time(millis(10));
  EXPECT_EQ(plan(p), "....");
  p.budget().collapse = true;
  EXPECT_EQ(plan(p), "##..");
  p.at(0).resident = 502;
  EXPECT_EQ(plan(p), "##..");
  p.at(0).resident = 501;  // 97.9 %
  EXPECT_EQ(plan(p), ".#..");
  p.at(1).resident = 511;  // registered: the kernel would refuse to fill the hole
  EXPECT_EQ(plan(p), "....");
}

TEST(HotsetCalm, CollapsesKeepToTheTimeGiven) {
  Picture p("uuuuuuuu");
  p.hint_time(micros(300)).budget().collapse = true;  // a collapse takes 600 us
  HotsetPolicy policy;
  EXPECT_EQ(p.plan(policy), "#.......");
  EXPECT_EQ(p.plan(policy), "........");
  EXPECT_EQ(p.plan(policy), ".#......");
}

TEST(HotsetCalm, NothingIsCollapsedUnderPressure) {
  Picture p("uuuuuuuu");
  p.limits(8.2, 9).budget().collapse = true;
  EXPECT_EQ(plan(p), "........");
}

// --- near: prepares within the hint budget, gives nothing away ---

TEST(HotsetNear, ParksASixteenthToLearnWhatIsCold) {
  EXPECT_EQ(plan(Picture("HHHHHHHH HHHHHHHH").limits(16.5, 17).hint_time(millis(1))),
            "p...............");
}

TEST(HotsetNear, TheLongestRestedGoFirst) {
  Picture p("wwww");
  p.limits(4.1, 5).hint_time(millis(10));
  p.at(2).not_before = Picture::kSince - seconds(100);
  EXPECT_EQ(plan(p), "..p.");
}

TEST(HotsetNear, RestingBlocksAreLeftAlone) {
  Picture p("wwww");
  p.limits(4.1, 5).hint_time(millis(10));
  for (BlockView& b : p.blocks()) b.not_before = Picture::kNow + millis(1);
  EXPECT_EQ(plan(p), "....");
}

TEST(HotsetNear, WithoutHintTimeNothingIsParked) {
  EXPECT_EQ(plan(Picture("wwww").limits(4.1, 5)), "....");
}

TEST(HotsetNear, AnExpensiveHintIsPaidBackBeforeTheNext) {
  Picture p("wwww wwww wwww wwww");
  p.limits(16.5, 17).hint_time(micros(500));  // 256 faults are expected of a block: 1.5 ms
  HotsetPolicy policy;
  EXPECT_EQ(p.plan(policy), "p...............");
  EXPECT_EQ(p.plan(policy), "................");  // it was not carried out, but it was paid
  EXPECT_EQ(p.plan(policy), "................");
  EXPECT_EQ(p.plan(policy), "p...............");
}

TEST(HotsetNear, HintTimeIsSavedUpForEightTicksOnly) {
  Picture p(std::string(64, 'w'));  // four blocks are wanted in the park; each costs 1.5 ms
  p.limits(64.5, 70).hint_time(micros(250));
  for (BlockView& b : p.blocks()) b.not_before = Picture::kNow + millis(1);
  HotsetPolicy policy;
  for (int tick = 0; tick < 100; ++tick) p.plan(policy);
  p.plan(policy, Picture::kNow + millis(1));
  EXPECT_EQ(p.steps().size(), 2U);
}

TEST(HotsetNear, AHintCostsWhatCameBackTheLastTime) {
  Picture p(std::string(64, 'w'));
  p.limits(64.5, 70).hint_time(micros(250));
  for (BlockView& b : p.blocks()) b.heat = 10;  // 60 us
  HotsetPolicy policy;
  p.plan(policy);
  EXPECT_EQ(p.steps().size(), 4U);
}

TEST(HotsetNear, WhileMissesCostMoreHintsMayToo) {
  Picture p("wwww s");
  p.limits(4.6, 5);
  EXPECT_EQ(plan(p), ".....");
  HotsetPolicy policy;
  int parks = 0;
  for (int tick = 0; tick < 50; ++tick) {
    p.at(4).touches = 200;  // 1.2 ms of misses a tick, a park costs 1.5 ms: one in five ticks
    parks += p.plan(policy) == "p...." ? 1 : 0;
  }
  EXPECT_EQ(parks, 10);
}

TEST(HotsetNear, HugeBlocksStayWhole) {
  Picture p("HHHH");
  p.limits(4.1, 5).hint_time(millis(100));
  for (BlockView& b : p.blocks()) b.backoff = 1;
  EXPECT_EQ(plan(p), "p...");
}

TEST(HotsetNear, NothingIsStored) {
  EXPECT_EQ(plan(Picture("wwPp").limits(4.1, 5)), "....");
}

// --- low: demotes in the background ---

TEST(HotsetLow, WhatNobodyCameForIsStored) {
  EXPECT_EQ(plan(Picture("HHwP").limits(3.5, 5)), "...v");
}

TEST(HotsetLow, NoMoreIsStoredThanIsNeededOldestFirst) {
  Picture p("ppPP ww");
  p.limits(5.5, 7);
  p.at(2).parked_since = Picture::kSince - seconds(60);
  EXPECT_EQ(plan(p), "..v...");                 // 0.59 blocks are needed
  EXPECT_EQ(plan(p.limits(4.5, 9)), "v.v...");  // 1.57
}

TEST(HotsetLow, WhatWasParkedJustNowIsGivenTime) {
  Picture p("wwwP");
  p.limits(3.5, 100);
  p.at(3).parked_since = Picture::kNow - millis(1900);
  EXPECT_EQ(plan(p), "....");
  p.at(3).parked_since = Picture::kNow - millis(2000);
  EXPECT_EQ(plan(p), "...v");
}

TEST(HotsetLow, TheTimeGivenShrinksTowardsTheHighWatermark) {
  Picture p("wwwP");
  p.limits(3, 5);  // half-way
  p.at(3).parked_since = Picture::kNow - millis(900);
  EXPECT_EQ(plan(p).substr(3), ".");
  p.at(3).parked_since = Picture::kNow - millis(1100);
  EXPECT_EQ(plan(p).substr(3), "v");
}

TEST(HotsetLow, AHotBlockIsBroughtHomeBeforeTheRestOfItFaults) {
  Picture p("wwwp");
  p.limits(3.5, 5);
  p.at(3).parked = 128;
  p.at(3).resident = 384;
  HotsetPolicy policy;
  EXPECT_EQ(p.plan(policy), "...^");
  EXPECT_EQ(p.at(3).backoff, 0) << "it took 10 s to come back";
  EXPECT_EQ(p.at(3).not_before, Picture::kNow + policy::kRest);
  p.at(3).parked = 129;
  p.at(3).resident = 383;
  EXPECT_EQ(plan(p), "...v");
}

TEST(HotsetLow, HugeBlocksThatAlwaysComeBackAreBrokenUp) {
  Picture p("HHHH");
  p.limits(3.5, 5).hint_time(millis(100));
  for (BlockView& b : p.blocks()) b.backoff = 1;
  EXPECT_EQ(plan(p), "//..");  // 0.55 are needed, and half of what is parked comes back
}

TEST(HotsetLow, ScatteredBlocksAreSweptWhenNothingIsParked) {
  EXPECT_EQ(plan(Picture("sse").limits(0.9, 2)), "~..");
}

TEST(HotsetLow, TheClockGoesOnWhereItStopped) {
  Picture p("ssss");
  p.limits(1.9, 3);
  HotsetPolicy policy;
  EXPECT_EQ(p.plan(policy), "~...");
  EXPECT_EQ(p.plan(policy), ".~..");
  EXPECT_EQ(p.plan(policy), "..~.");
  EXPECT_EQ(p.plan(policy), "...~");
  EXPECT_EQ(p.plan(policy), "~...");
}

TEST(HotsetLow, NothingIsSweptWhileProbationCanGive) {
  Picture p("ssss");
  p.limits(1.9, 3);
  for (BlockView& b : p.blocks()) b.clean = 100;
  EXPECT_EQ(plan(p), "....");
}

TEST(HotsetLow, WorksDownALittleBelowTheWatermark) {
  Picture p("PPPPPPPPPPPPPPPPPPPP");
  HotsetPolicy policy;
  p.limits(19.9, 30);  // the target is 19.59
  EXPECT_EQ(p.plan(policy), "v...................");
  p.limits(20.1, 30);  // below low, above the target of 19.79: goes on
  EXPECT_EQ(p.plan(policy), "v...................");
  p.limits(20.4, 30);  // at the target: stops
  EXPECT_EQ(p.plan(policy), "....................");
  p.limits(20.1, 30);  // between the two again: stays stopped
  EXPECT_EQ(p.plan(policy), "....................");
}

// --- high: what is needed goes at once ---

TEST(HotsetHigh, ParkedBlocksAreStoredHoweverYoung) {
  Picture p("PPPP");
  p.limits(1.8, 2);
  for (BlockView& b : p.blocks()) b.parked_since = Picture::kNow;
  EXPECT_EQ(plan(p), "vvv.");
}

TEST(HotsetHigh, EvenThoseOfWhichMostCameBack) {
  Picture p("wwwp");
  p.limits(1.8, 2);
  p.at(3).parked = 128;
  p.at(3).resident = 384;
  EXPECT_EQ(plan(p).substr(3), "v");
}

TEST(HotsetHigh, WhatIsNeededIsParkedAtAnyCost) {
  // Without hint time. 2.2 blocks are needed and half of what is parked comes back: twice as many.
  EXPECT_EQ(plan(Picture("HHHHwwuu").limits(5.8, 6)), "ppppp...");
}

TEST(HotsetHigh, WhatHadToBeParkedIsNotPaidBack) {
  Picture p("wwww");
  p.limits(2.8, 3);
  HotsetPolicy policy;
  EXPECT_EQ(p.plan(policy), "ppp.");
  EXPECT_EQ(p.limits(4.1, 5).hint_time(micros(1)).plan(policy), "p...");
}

TEST(HotsetHigh, WhatIsYetToBeStoredDoesNotCount) {
  EXPECT_EQ(plan(Picture("ssss wwww").limits(5.2, 5.5)), "~~..pp..");
}

TEST(HotsetHigh, ABlockWithPagesHereAndThereIsStoredFirst) {
  Picture p("ss");
  p.limits(0.1, 0.2);
  p.at(0).resident = 100;
  p.at(0).parked = 156;
  EXPECT_EQ(plan(p), "v~");
}

TEST(HotsetHigh, HugeBlocksThatAlwaysComeBackAreBrokenUpNotSwept) {
  Picture p("HHHH");
  p.limits(3.8, 3.9);
  for (BlockView& b : p.blocks()) b.backoff = 5;
  EXPECT_EQ(plan(p), "/...");
}

TEST(HotsetHigh, RestIsNoExcuse) {
  Picture p("wwww");
  p.limits(2.8, 3);
  for (BlockView& b : p.blocks()) b.not_before = Picture::kNow + seconds(100);
  p.at(1).not_before = Picture::kNow + seconds(5);
  EXPECT_EQ(plan(p)[1], 'p');
}

TEST(HotsetHigh, SmallPagesThatAlwaysComeBackAreSwept) {
  Picture p("wwww");
  p.limits(2.8, 3);
  for (BlockView& b : p.blocks()) b.backoff = 2;
  EXPECT_EQ(plan(p), "~~..");  // 1.24 blocks are needed
}

// --- who may go ---

TEST(HotsetFilter, UnmovableNever) {
  EXPECT_EQ(plan(Picture("xxXX").limits(0.5, 1).hint_time(seconds(1))), "....");
  Picture hot("wwwX");
  hot.at(3).parked = 10;
  EXPECT_EQ(plan(hot.limits(2.5, 4)).substr(3), ".");
}

TEST(HotsetFilter, ReclaimableFirst) {
  Picture p("wwrw");
  p.limits(4.1, 5).hint_time(millis(10));
  p.at(0).not_before = {1};
  p.at(2).not_before = Picture::kNow;  // the youngest
  EXPECT_EQ(plan(p), "..p.");
  Picture q("wpRp");
  q.limits(3.5, 5).at(2).parked_since = Picture::kNow;
  EXPECT_EQ(plan(q), "..v.");
}

TEST(HotsetFilter, FruitlessNotUntilTheyHaveRested) {
  Picture p("ffwf");
  p.limits(0.5, 1);
  EXPECT_EQ(plan(p), "..p.");
  EXPECT_EQ(plan(p, Picture::kNow + seconds(1)), "pppp");
}

TEST(HotsetFilter, WithAFullStoreThereIsNothingToGain) {
  Picture p("wwPPss");
  p.limits(1, 2).hint_time(seconds(1));
  p.view().store_has_room = false;
  EXPECT_EQ(plan(p), "......");
}

TEST(HotsetPlan, AFullPlanIsTheMostUrgentPart) {
  Picture p("wwww PPPP ssss");
  p.limits(0.5, 1);
  HotsetPolicy policy;
  EXPECT_EQ(p.plan(policy, Picture::kNow, 3), "....vvv.....");
  EXPECT_EQ(p.plan(policy, Picture::kNow, 0), "............");
}

}  // namespace
}  // namespace heaptier
