// What demotion and faults do to pages, on a fake machine: every way out and back, and every call
// failing in turn.
#include <random>

#include "runtime/reclaim.h"
#include "tests/unit/runtime/engine_fixture.h"

namespace heaptier::test {
namespace {

void fill_all(SmallHeap& h) {
  for (std::uint32_t i = 0; i < h.expected.size(); ++i)
    ASSERT_TRUE(h.write(i, i % 7 == 0 ? 0 : 1000 + i));
}

TEST(Migration, ManagingTakesStockWithoutTouching) {
  SmallHeap h;
  ASSERT_TRUE(h.write(3, 33));
  ASSERT_TRUE(h.migration.manage(h.block(0)).ok());
  EXPECT_EQ(h.in_state(PageState::kResident), 1u);
  EXPECT_EQ(h.in_state(PageState::kUntouched), 511u);
  EXPECT_EQ(h.faults, 0u);
  h.check_all();
}

TEST(Migration, AParkedPageComesBackWithItsFirstTouch) {
  SmallHeap h;
  fill_all(h);
  ASSERT_TRUE(h.migration.manage(h.block(0)).ok());
  EXPECT_EQ(h.migration.park(h.block(0), Parking::kAll).moved, 512u);
  EXPECT_EQ(h.in_state(PageState::kParked), 512u);
  h.check_books();
  ASSERT_TRUE(h.good(17));
  EXPECT_EQ(h.faults, 1u);
  EXPECT_EQ(h.in_state(PageState::kParked), 511u);
  h.check_all();
}

TEST(Migration, AHugePageParksAndReturnsInOnePiece) {
  SmallHeap h;
  fill_all(h);
  h.machine.huge[h.space.address_of(h.block(1))] = true;
  ASSERT_TRUE(h.migration.manage(h.block(1)).ok());
  EXPECT_EQ(h.migration.park(h.block(1), Parking::kAll).moved, 512u);
  const std::uint64_t before = h.machine.calls;
  ASSERT_TRUE(h.good(600));
  EXPECT_EQ(h.machine.calls, before + 1) << "one move brings all of it";
  EXPECT_EQ(h.in_state(PageState::kParked), 0u);
  EXPECT_EQ(h.stats.huge_unparked.get(), 1u);
  h.check_all();
}

TEST(Migration, UntouchedParkedPagesAreStoredAndFetched) {
  SmallHeap h;
  fill_all(h);
  ASSERT_TRUE(h.migration.manage(h.block(0)).ok());
  h.migration.park(h.block(0), Parking::kAll);
  const MoveOutcome out = h.migration.store(h.block(0), 1000, Evictor::kBackground);
  EXPECT_EQ(out.moved, 512u);
  EXPECT_EQ(h.in_state(PageState::kFilled), 74u) << "every seventh page is all zeros";
  EXPECT_EQ(h.in_state(PageState::kStored), 438u);
  EXPECT_EQ(h.machine.present_pages(h.core.park(h.page(0)), kPageblockSize), 0u)
      << "frames are released";
  h.check_books();
  ASSERT_TRUE(h.good(5));
  EXPECT_EQ(h.in_state(PageState::kClean), 1u) << "fetched pages are on probation, their copy kept";
  ASSERT_TRUE(h.write(5, 555));
  EXPECT_EQ(h.in_state(PageState::kClean), 0u) << "a write drops the copy";
  ASSERT_TRUE(h.write(9, 999)) << "a page fetched by a write";
  EXPECT_EQ(h.in_state(PageState::kClean), 0u);
  h.check_all();
}

TEST(Migration, AHugePageIsStoredWhileItsPagesAreTouched) {
  SmallHeap h;
  fill_all(h);
  h.machine.huge[h.space.address_of(h.block(0))] = true;
  ASSERT_TRUE(h.migration.manage(h.block(0)).ok());
  h.migration.park(h.block(0), Parking::kAll);
  EXPECT_EQ(h.migration.store(h.block(0), 100, Evictor::kBackground).moved, 100u);
  ASSERT_TRUE(h.good(400));  // still parked: copied home, the frame stays for the others' sake
  EXPECT_EQ(h.in_state(PageState::kParked), 411u);
  h.check_books();
  EXPECT_EQ(h.migration.store(h.block(0), 1000, Evictor::kBackground).moved, 411u);
  EXPECT_EQ(h.machine.present_pages(h.core.park(h.page(0)), kPageblockSize), 0u);
  h.check_all();
}

TEST(Migration, SequentialTouchesBringWhatComesNext) {
  SmallHeap h;
  for (std::uint32_t i = 0; i < 512; ++i) ASSERT_TRUE(h.write(i, 5000 + i));
  ASSERT_TRUE(h.migration.manage(h.block(0)).ok());
  h.migration.park(h.block(0), Parking::kAll);
  h.migration.store(h.block(0), 1000, Evictor::kBackground);
  h.faults = 0;
  for (std::uint32_t i = 0; i < 512; ++i) ASSERT_TRUE(h.good(i));
  EXPECT_LT(h.faults, 40u) << "a scan pays one fault for many pages";
  h.check_books();
}

TEST(Migration, CleanPagesLeaveWithoutASecondCompression) {
  SmallHeap h;
  fill_all(h);
  ASSERT_TRUE(h.migration.manage(h.block(0)).ok());
  h.migration.park(h.block(0), Parking::kAll);
  h.migration.store(h.block(0), 1000, Evictor::kBackground);
  for (std::uint32_t i = 1; i < 512; i += 3) ASSERT_TRUE(h.good(i));
  const std::uint32_t clean = h.in_state(PageState::kClean);
  ASSERT_GT(clean, 0u);
  const std::uint64_t tries = h.stats.store_tries.get();
  std::size_t left = 0;
  while (std::size_t n = discard_fetched(h.core, 64, Evictor::kInline)) left += n;
  EXPECT_EQ(left, clean);
  EXPECT_EQ(h.stats.store_tries.get(), tries);
  EXPECT_EQ(h.in_state(PageState::kClean), 0u);
  h.check_all();
}

TEST(Migration, CopiedPagesWaitOutTheGraceTime) {
  SmallHeap h;
  fill_all(h);
  ASSERT_TRUE(h.migration.manage(h.block(0)).ok());
  std::uint32_t next = 0;
  EXPECT_EQ(h.migration.copy_out(h.block(0), &next, CopyOut::kAll).moved, kStagingPages);
  EXPECT_EQ(h.in_state(PageState::kClean), kStagingPages);
  h.check_books();
  std::size_t left = 0;
  EXPECT_EQ(discard_copied(h.core, h.own, 64, Evictor::kBackground, &left), 0u) << "too early";
  h.machine.clock = h.machine.clock + kGraceTime + millis(1);
  EXPECT_EQ(discard_copied(h.core, h.own, 64, Evictor::kBackground, &left), kStagingPages);
  EXPECT_EQ(left, kStagingPages);
  h.check_all();
}

// A device that was given the page before it was protected writes without a fault.
TEST(Migration, WhatADeviceWroteInTheGraceTimeIsKept) {
  SmallHeap h;
  fill_all(h);
  ASSERT_TRUE(h.migration.manage(h.block(0)).ok());
  std::uint32_t next = 0;
  h.migration.copy_out(h.block(0), &next, CopyOut::kAll);
  SmallHeap::fill(h.home(4), 4444);
  h.expected[4] = 4444;
  h.machine.clock = h.machine.clock + kGraceTime + millis(1);
  std::size_t left = 0;
  discard_copied(h.core, h.own, 64, Evictor::kBackground, &left);
  EXPECT_EQ(left, kStagingPages - 1);
  EXPECT_EQ(h.stats.pages_changed.get(), 1u);
  h.check_all();
}

TEST(Migration, NothingWritableIsCopiedWhileADescriptorMayPin) {
  SmallHeap h;
  fill_all(h);
  ASSERT_TRUE(h.migration.manage(h.block(0)).ok());
  h.machine.long_pins = true;
  std::uint32_t next = 0;
  EXPECT_EQ(h.migration.copy_out(h.block(0), &next, CopyOut::kAll).moved, 0u);
  EXPECT_EQ(h.in_state(PageState::kClean), 0u);
  EXPECT_GT(h.stats.refused_pins.get(), 0u);
  h.check_all();
  for (std::uint32_t i = 0; i < 64; ++i) ASSERT_TRUE(h.write(i, 77 + i));
}

TEST(Migration, APinOpenedDuringTheGraceTimeHoldsPagesBack) {
  SmallHeap h;
  fill_all(h);
  ASSERT_TRUE(h.migration.manage(h.block(0)).ok());
  std::uint32_t next = 0;
  h.migration.copy_out(h.block(0), &next, CopyOut::kAll);
  h.machine.long_pins = true;
  h.machine.clock = h.machine.clock + kGraceTime + millis(1);
  std::size_t left = 0;
  discard_copied(h.core, h.own, 64, Evictor::kBackground, &left);
  EXPECT_EQ(left, 0u);
  h.check_all();
}

TEST(Migration, PinnedPagesStayAndOthersGo) {
  SmallHeap h;
  fill_all(h);
  h.machine.page(h.home(100)).pinned = true;
  ASSERT_TRUE(h.migration.manage(h.block(0)).ok());
  const MoveOutcome out = h.migration.park(h.block(0), Parking::kAll);
  EXPECT_EQ(out.moved, 511u);
  EXPECT_EQ(out.busy, 1u);
  h.check_all();
}

TEST(Migration, APinnedBlockIsLeftAlone) {
  SmallHeap h;
  fill_all(h);
  ASSERT_TRUE(h.migration.manage(h.block(0)).ok());
  h.table.block(h.block(0)).pins = 1;
  std::uint32_t next = 0;
  EXPECT_EQ(h.migration.park(h.block(0), Parking::kAll).moved, 0u);
  EXPECT_EQ(h.migration.copy_out(h.block(0), &next, CopyOut::kAll).moved, 0u);
  EXPECT_EQ(next, 512u);
}

TEST(Migration, FreedPagesAreDroppedUnreadWhateverTheirState) {
  SmallHeap h;
  fill_all(h);
  ASSERT_TRUE(h.migration.manage(h.block(0)).ok());
  h.migration.park(h.block(0), Parking::kAll);
  h.migration.store(h.block(0), 200, Evictor::kBackground);
  for (std::uint32_t i = 0; i < 50; ++i) ASSERT_TRUE(h.good(i));
  const std::uint64_t fetched = h.stats.pages_fetched.get() + h.stats.pages_fetched_ahead.get();
  ASSERT_TRUE(drop_content(h.core, h.home(0), 300 * kPageSize));
  EXPECT_EQ(h.stats.pages_fetched.get() + h.stats.pages_fetched_ahead.get(), fetched);
  for (std::uint32_t i = 0; i < 300; ++i) h.expected[i] = 0;
  h.check_all();
}

TEST(Migration, AFullStoreLeavesPagesAtHome) {
  SmallHeap h(std::size_t{128} << 10);
  std::mt19937_64 random(7);
  for (std::uint32_t i = 0; i < h.expected.size(); ++i) ASSERT_TRUE(h.write(i, random() | 1));
  for (std::uint32_t b = 0; b < 2; ++b) {
    ASSERT_TRUE(h.migration.manage(h.block(b)).ok());
    h.migration.park(h.block(b), Parking::kAll);
    h.migration.store(h.block(b), 1000, Evictor::kBackground);
  }
  EXPECT_GT(h.stats.store_full.get(), 0u);
  h.check_all();
}

TEST(Migration, ReclaimableMemoryIsGivenUpNotStored) {
  SmallHeap h;
  auto* at =
      h.space.allocate(kPageblockSize, kPageblockSize, Mobility::kReclaimable, Owner::kJemalloc);
  ASSERT_NE(at, nullptr);
  const auto base = reinterpret_cast<std::uintptr_t>(at);
  for (std::uint32_t i = 0; i < 4; ++i) {
    SmallHeap::fill(base + i * kPageSize, 9);
    h.machine.page(base + i * kPageSize).present = true;
  }
  const BlockIndex b = block_of(h.space.page_at(base));
  ASSERT_TRUE(h.migration.manage(b).ok());
  EXPECT_EQ(h.migration.park(b, Parking::kAll).moved, 4u);
  EXPECT_EQ(h.migration.store(b, 100, Evictor::kBackground).moved, 4u);
  EXPECT_EQ(h.pool.usage().slots, 0u);
  EXPECT_EQ(h.in_state(PageState::kUntouched), 512u);
  EXPECT_EQ(h.stats.pages_reclaimed.get(), 4u);
}

TEST(Migration, IncompressiblePagesStayAndRest) {
  SmallHeap h;
  ASSERT_TRUE(h.write(0, 1));
  std::mt19937_64 random(9);
  auto* words = reinterpret_cast<std::uint64_t*>(h.home(0));
  std::vector<std::uint64_t> noise(kPageSize / 8);
  for (std::size_t i = 0; i < noise.size(); ++i) words[i] = noise[i] = random();
  ASSERT_TRUE(h.migration.manage(h.block(0)).ok());
  h.migration.park(h.block(0), Parking::kAll);
  EXPECT_EQ(h.migration.store(h.block(0), 10, Evictor::kBackground).incompressible, 1u);
  EXPECT_EQ(h.in_state(PageState::kResident), 1u);
  EXPECT_EQ(std::memcmp(words, noise.data(), kPageSize), 0);
  EXPECT_EQ(h.migration.park(h.block(0), Parking::kAll).moved, 0u) << "not tried again soon";
}

void fill_with_noise(std::uintptr_t at, std::mt19937_64& random) {
  auto* words = reinterpret_cast<std::uint64_t*>(at);
  for (std::size_t i = 0; i < kPageSize / 8; ++i) words[i] = random();
}

TEST(Migration, AfterItsRestAPageIsTriedAgain) {
  SmallHeap h;
  std::mt19937_64 random(9);
  ASSERT_TRUE(h.write(0, 1));
  fill_with_noise(h.home(0), random);
  ASSERT_TRUE(h.migration.manage(h.block(0)).ok());
  h.migration.park(h.block(0), Parking::kAll);
  h.migration.store(h.block(0), 10, Evictor::kBackground);
  ASSERT_EQ(h.table.resting_pages(), 1u);
  std::uint32_t most = 5;
  h.migration.end_rests(h.block(0), &most);
  EXPECT_EQ(most, 5u) << "too early";
  h.machine.clock = h.machine.clock + seconds(8);
  h.migration.end_rests(h.block(0), &most);
  EXPECT_EQ(most, 4u);
  EXPECT_EQ(h.table.resting_pages(), 0u);
  EXPECT_EQ(h.migration.park(h.block(0), Parking::kAll).moved, 1u);
  EXPECT_EQ(h.migration.store(h.block(0), 10, Evictor::kBackground).incompressible, 1u);
  h.machine.clock = h.machine.clock + seconds(8);
  h.migration.end_rests(h.block(0), &most);
  EXPECT_EQ(h.table.resting_pages(), 1u) << "the second rest is longer";
  h.check_books();
}

TEST(Migration, AHugePageOfNoiseIsNotTakenApart) {
  SmallHeap h;
  fill_all(h);
  std::mt19937_64 random(9);
  for (std::uint32_t i = 0; i < 512; ++i) fill_with_noise(h.home(i), random);
  h.machine.huge[h.space.address_of(h.block(0))] = true;
  ASSERT_TRUE(h.migration.manage(h.block(0)).ok());
  ASSERT_EQ(h.migration.park(h.block(0), Parking::kAll).moved, 512u);
  const MoveOutcome out = h.migration.store(h.block(0), 512, Evictor::kBackground);
  EXPECT_EQ(out.moved, 0u);
  EXPECT_EQ(out.incompressible, 512u);
  EXPECT_TRUE(h.table.block(h.block(0)).huge.load());
  EXPECT_EQ(h.table.block(h.block(0)).count(PageState::kResident), 512u);
  EXPECT_EQ(h.table.resting_pages(), 512u);
  EXPECT_EQ(h.stats.huge_split.get(), 0u);
  h.check_books();
}

// A sort of random text under a budget that its text alone exceeds once spent 2 ms a fault looking
// for somebody to evict.
TEST(Reclaim, ABudgetBelowWhatWillNotShrinkCostsNextToNothing) {
  SmallHeap h;
  fill_all(h);
  std::mt19937_64 random(9);
  for (std::uint32_t i = 0; i < 512; ++i) fill_with_noise(h.home(i), random);
  for (std::uint32_t b = 0; b < 2; ++b) ASSERT_TRUE(h.migration.manage(h.block(b)).ok());
  for (int i = 0; i < 2000; ++i) {
    h.core.high_pages.store(16);
    (void)reclaim_for_fault(h.core, h.handler[0]);
    h.core.high_pages.store(UINT64_MAX);  // the throttle would wait for a clock that stands still
    ASSERT_TRUE(h.touch(512 + static_cast<std::uint32_t>(i) % 64, i % 3 == 0));
  }
  EXPECT_EQ(h.table.resting_pages(), 512u);
  EXPECT_EQ(h.stats.store_incompressible.get(), 512u) << "each was tried once, not each time";
  for (std::uint32_t i = 512; i < 1024; ++i) ASSERT_TRUE(h.good(i));
  h.check_books();
}

// As after a fork: nothing can be moved until the child is gone.
TEST(Reclaim, PagesSharedWithAChildAreNotTriedAtEveryFault) {
  SmallHeap h;
  for (std::uint32_t i = 0; i < h.expected.size(); ++i) ASSERT_TRUE(h.write(i, 1000 + i));
  for (std::uint32_t b = 0; b < 2; ++b) ASSERT_TRUE(h.migration.manage(h.block(b)).ok());
  for (std::uint32_t i = 0; i < h.expected.size(); ++i) h.machine.page(h.home(i)).pinned = true;
  h.core.high_pages.store(16);
  for (int i = 0; i < 5000; ++i) {
    EXPECT_EQ(reclaim_for_fault(h.core, h.handler[0]), Reclaimed::kNothing);
    h.machine.clock = h.machine.clock + micros(100);
  }
  // 500 ms: 1, 2, 4, ... 64 ms apart, with at most one span too many each time.
  EXPECT_LE(h.stats.refused_busy.get(), 15u * 128);
  EXPECT_GT(h.stats.refused_busy.get(), 0u);
  for (std::uint32_t i = 0; i < h.expected.size(); ++i) h.machine.page(h.home(i)).pinned = false;
  h.machine.clock = h.machine.clock + millis(64);
  EXPECT_EQ(reclaim_for_fault(h.core, h.handler[0]), Reclaimed::kSome) << "the child is gone";
  h.core.high_pages.store(UINT64_MAX);
  h.check_all();
}

TEST(Migration, ALostCopyPoisonsInsteadOfLying) {
  SmallHeap h;
  fill_all(h);
  ASSERT_TRUE(h.migration.manage(h.block(0)).ok());
  h.migration.park(h.block(0), Parking::kAll);
  h.migration.store(h.block(0), 1000, Evictor::kBackground);
  // A word that names a slot nobody has: the pool finds no seal there.
  const PageWord w = h.table.lock(h.page(5));
  h.table.publish(h.page(5), w, w.with_slot(0x00ffff01));
  EXPECT_FALSE(h.touch(5, false));
  EXPECT_EQ(h.table.peek(h.page(5)).state(), PageState::kPoisoned);
  EXPECT_TRUE(h.machine.page(h.home(5)).poisoned);
}

TEST(Migration, ARawDontNeedReadsAsZeroAfterwards) {
  SmallHeap h;
  fill_all(h);
  ASSERT_TRUE(h.migration.manage(h.block(0)).ok());
  (void)h.machine.advise(h.home(8), kPageSize, 4);  // behind our back
  h.expected[8] = 0;
  h.check_all();
  EXPECT_EQ(h.stats.faults_lost.get(), 1u);
}

TEST(Migration, WhatTheApplicationEmptiedIsNotParked) {
  SmallHeap h;
  fill_all(h);
  ASSERT_TRUE(h.migration.manage(h.block(0)).ok());
  (void)h.machine.advise(h.home(8), 2 * kPageSize, 4);  // behind our back
  h.expected[8] = h.expected[9] = 0;
  EXPECT_EQ(h.migration.park(h.block(0), Parking::kAll).moved, 510u);
  EXPECT_EQ(h.table.peek(h.page(8)).state(), PageState::kUntouched);
  EXPECT_EQ(h.migration.store(h.block(0), 512, Evictor::kBackground).moved, 510u);
  h.check_all();
}

// A device writes while the page is copied: what was fetched once must not leave by its old place
// in the queue.
TEST(Migration, AnOldPlaceInTheQueueDoesNotSkipTheGraceTime) {
  SmallHeap h;
  fill_all(h);
  ASSERT_TRUE(h.migration.manage(h.block(0)).ok());
  h.migration.park(h.block(0), Parking::kAll);
  h.migration.store(h.block(0), 1000, Evictor::kBackground);
  ASSERT_TRUE(h.touch(5, false));  // fetched, queued
  ASSERT_TRUE(h.touch(5, true));   // written: its place is an old one from now on
  std::uint32_t next = 0;
  ASSERT_EQ(h.migration.copy_out(h.block(0), &next, CopyOut::kAll).moved, 1u);
  SmallHeap::fill(h.home(5), 4711);  // no fault: the device's pin is older than the protection
  h.expected[5] = 4711;
  EXPECT_EQ(discard_fetched(h.core, 64, Evictor::kInline), 0u);
  h.machine.clock = h.machine.clock + seconds(5);
  std::size_t left = 0;
  discard_copied(h.core, h.own, 64, Evictor::kBackground, &left);
  EXPECT_EQ(left, 0u);
  h.check_all();
}

TEST(Migration, AFullQueueCostsTheCopyNotThePlace) {
  SmallHeap h;
  fill_all(h);
  for (std::uint32_t b = 0; b < 2; ++b) {
    ASSERT_TRUE(h.migration.manage(h.block(b)).ok());
    h.migration.park(h.block(b), Parking::kAll);
    h.migration.store(h.block(b), 1000, Evictor::kBackground);
  }
  while (h.core.fetched.push(h.page(0), Nanos{})) {
  }
  for (std::uint32_t i = 0; i < 1024; ++i) ASSERT_TRUE(h.good(i));
  EXPECT_EQ(h.in_state(PageState::kClean), 0u) << "a clean page outside of the queue never leaves";
  h.check_books();
}

TEST(Migration, ARangeThatIsPartlyLockedLosesNothing) {
  SmallHeap h;
  fill_all(h);
  ASSERT_TRUE(h.migration.manage(h.block(0)).ok());
  h.migration.park(h.block(0), Parking::kAll);
  h.migration.store(h.block(0), 1000, Evictor::kBackground);
  for (std::uint32_t i = 20; i < 40; ++i) ASSERT_TRUE(h.touch(i, false));
  const std::uint32_t clean = h.in_state(PageState::kClean);
  h.machine.page(h.home(25)).mlocked = true;
  h.machine.page(h.home(33)).mlocked = true;
  EXPECT_EQ(discard_fetched(h.core, 64, Evictor::kInline), clean - 2);
  EXPECT_EQ(h.in_state(PageState::kClean), 2u);
  h.machine.page(h.home(25)).mlocked = false;
  h.machine.page(h.home(33)).mlocked = false;
  EXPECT_EQ(discard_fetched(h.core, 64, Evictor::kInline), 2u) << "still in the queue";
  h.check_all();
}

TEST(Migration, WhatShrinksAfterAllDoesNotRest) {
  SmallHeap h;
  std::mt19937_64 random(9);
  ASSERT_TRUE(h.write(0, 1));
  fill_with_noise(h.home(0), random);
  ASSERT_TRUE(h.migration.manage(h.block(0)).ok());
  h.migration.park(h.block(0), Parking::kAll);
  h.migration.store(h.block(0), 10, Evictor::kBackground);
  ASSERT_TRUE(h.write(0, 77));
  h.machine.clock = h.machine.clock + seconds(8);
  std::uint32_t most = 5;
  h.migration.end_rests(h.block(0), &most);
  h.core.discards.store(12345);
  h.migration.park(h.block(0), Parking::kAll);
  ASSERT_EQ(h.migration.store(h.block(0), 10, Evictor::kBackground).moved, 1u);
  ASSERT_TRUE(h.write(0, 78));
  EXPECT_EQ(h.table.resting_pages(), 0u);
  EXPECT_EQ(h.migration.park(h.block(0), Parking::kAll).moved, 1u);
  h.check_all();
}

// Two halves of a parked huge page are freed one after the other: its frames go too.
TEST(Migration, FramesLeftInTheParkAreGivenBack) {
  SmallHeap h;
  fill_all(h);
  h.machine.huge[h.space.address_of(h.block(0))] = true;
  ASSERT_TRUE(h.migration.manage(h.block(0)).ok());
  ASSERT_EQ(h.migration.park(h.block(0), Parking::kAll).moved, 512u);
  drop_content(h.core, h.home(0), kPageblockSize / 2);
  drop_content(h.core, h.home(256), kPageblockSize / 2);
  h.migration.clear_residue(h.block(0));  // as each look of the loop does
  for (std::uint32_t i = 0; i < 512; ++i) {
    h.expected[i] = 0;
    EXPECT_FALSE(h.machine.page(h.core.park(h.page(i))).present) << i;
  }
  h.check_all();
}

TEST(Migration, AUserOnlyBlockTakesNoRegistrationAlong) {
  SmallHeap h;
  const auto at = reinterpret_cast<std::uintptr_t>(
      h.space.allocate(kPageblockSize, kPageblockSize, Mobility::kMovable, Owner::kUserOnly));
  const BlockIndex b = block_of(h.space.page_at(at));
  for (std::uint32_t i = 0; i < 4; ++i) {
    SmallHeap::fill(at + i * kPageSize, 9);
    h.machine.page(at + i * kPageSize).present = true;
  }
  ASSERT_TRUE(h.migration.manage(b).ok());
  h.migration.park(b, Parking::kAll);
  h.migration.store(b, 100, Evictor::kBackground);
  drop_content(h.core, at, kPageblockSize / 2);
  drop_content(h.core, at + kPageblockSize / 2, kPageblockSize / 2);
  EXPECT_FALSE(h.machine.is_registered(at)) << "the next owner may be one that reads files into it";
  EXPECT_FALSE(h.table.block(b).served());
  // In use again: what the kernel has put there meanwhile is seen.
  SmallHeap::fill(at + 7 * kPageSize, 3);
  h.machine.page(at + 7 * kPageSize).present = true;
  ASSERT_TRUE(h.migration.manage(b).ok());
  EXPECT_TRUE(h.machine.is_registered(at));
  EXPECT_EQ(h.table.block(b).count(PageState::kResident), 1u);
  EXPECT_EQ(h.migration.park(b, Parking::kAll).moved, 1u);
}

// One long story with every kind of step. Returns false when a call failed somewhere in it.
void story(SmallHeap& h) {
  for (std::uint32_t i = 0; i < h.expected.size(); ++i) {
    if (!h.write(i, i % 7 == 0 ? 0 : 1000 + i)) return;
  }
  h.machine.huge[h.space.address_of(h.block(1))] = true;
  for (std::uint32_t b = 0; b < 2; ++b) {
    if (h.migration.manage(h.block(b)).failed()) continue;
    h.migration.park(h.block(b), Parking::kAll);
    h.touch(b * 512 + 20, false);
    h.migration.store(h.block(b), 200, Evictor::kBackground);
    h.touch(b * 512 + 10, true);
    for (std::uint32_t i = 30; i < 60; ++i) h.touch(b * 512 + i, i % 2 == 0);
    h.migration.store(h.block(b), 1000, Evictor::kBackground);
    for (std::uint32_t i = 100; i < 300; i += 2) h.touch(b * 512 + i, false);
    discard_fetched(h.core, 64, Evictor::kInline);
    std::uint32_t next = 0;
    h.migration.copy_out(h.block(b), &next, CopyOut::kAll);
    h.machine.clock = h.machine.clock + kGraceTime + millis(1);
    std::size_t left = 0;
    discard_copied(h.core, h.own, 64, Evictor::kBackground, &left);
    h.migration.park(h.block(b), Parking::kSpared);
    h.migration.unpark(h.block(b));
    h.migration.park_split(h.block(b));
    h.touch(b * 512 + 77, false);
    if (drop_content(h.core, h.home(b * 512 + 440), 40 * kPageSize)) {
      for (std::uint32_t i = 440; i < 480; ++i) h.expected[b * 512 + i] = 0;
    } else {
      return;  // part of it may be gone: the application was told, and does not read it
    }
  }
}

class EveryCallFails : public testing::TestWithParam<int> {};

// For each call of the story in turn: it fails, the rest goes on, and afterwards no byte is lost
// and the books agree.
TEST_P(EveryCallFails, NoByteIsLostAndTheBooksAgree) {
  std::uint64_t calls = 0;
  std::uint64_t setup = 0;
  {
    SmallHeap h;
    setup = h.machine.calls;
    story(h);
    calls = h.machine.calls - setup;
    h.check_all();
  }
  ASSERT_GT(calls, 50u);
  for (std::uint64_t n = 1; n <= calls; ++n) {
    SmallHeap h;
    h.machine.fail_at(n, GetParam());
    story(h);
    h.machine.stop_failing();
    ASSERT_TRUE(h.machine.failed_once()) << "call " << n << " of " << calls;
    SCOPED_TRACE("call " + std::to_string(n) + " failed: " +
                 h.machine.log[std::min<std::size_t>(setup + n - 1, h.machine.log.size() - 1)]);
    for (std::uint32_t i = 0; i < h.expected.size(); ++i) {
      if (i % 512 >= 440 && i % 512 < 480) continue;  // dropped, or refused to be: see story()
      ASSERT_TRUE(h.good(i)) << "page " << i;
    }
    h.check_books();
    if (testing::Test::HasFatalFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Errno, EveryCallFails, testing::Values(ENOMEM, EAGAIN, EBUSY));

}  // namespace
}  // namespace heaptier::test
