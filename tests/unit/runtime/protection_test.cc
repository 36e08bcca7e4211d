// Hidden pages: what the application may touch, what the words say, and how many mappings it takes.
#include "runtime/protection.h"

#include <gtest/gtest.h>

#include "runtime/hidden_pages.h"
#include "tests/unit/runtime/engine_fixture.h"

namespace heaptier::test {
namespace {

constexpr std::uint32_t kPages = SmallHeap::kBlocks * 512;

class Hidden : public testing::Test {
 protected:
  // As Background::use_protection. 16384 mappings in all: 2048 runs are ours.
  void SetUp() override { use(16384); }
  void use(std::uint64_t mappings) {
    ASSERT_TRUE(protection.init(mappings).ok());
    heap.core.port = nullptr;
    heap.core.store = nullptr;
    heap.core.protection = &protection;
    heap.core.park_base = heap.space.base();
    for (std::uint32_t i = 0; i < kPages; ++i) ASSERT_TRUE(heap.write(i, i + 1));
  }
  bool denied(std::uint32_t i) { return heap.machine.page(heap.home(i)).denied; }
  FaultVerdict touch(std::uint32_t i, bool write = false) {
    FaultEvent event{heap.home(i), write, false, 1};
    event.denied = true;
    return heap.service.on_fault(event, 0).verdict;
  }
  // What is denied is parked by its word, and the other way round; no byte is lost.
  void check() {
    for (std::uint32_t i = 0; i < kPages; ++i) {
      const bool managed = heap.table.managed(heap.page(i));
      const PageState s = managed ? heap.table.peek(heap.page(i)).state() : PageState::kUntouched;
      ASSERT_EQ(denied(i), s == PageState::kParked) << "page " << i << " is " << to_string(s);
      ASSERT_TRUE(SmallHeap::holds(heap.home(i), heap.expected[i])) << "page " << i;
    }
    ASSERT_EQ(heap.table.refused(), 0u);
  }
  PageState state(std::uint32_t i) { return heap.table.peek(heap.page(i)).state(); }

  SmallHeap heap;
  Protection protection{heap.space, heap.machine};
};

TEST_F(Hidden, ATouchShowsOnePageAndAHugePageWhole) {
  ASSERT_TRUE(heap.migration.manage(heap.block(0)).ok());
  EXPECT_EQ(heap.migration.park(heap.block(0), Parking::kAll, {0, 100}).moved, 100u);
  check();
  EXPECT_EQ(touch(7), FaultVerdict::kWake);
  EXPECT_FALSE(denied(7));
  EXPECT_TRUE(denied(8));
  check();
  heap.machine.huge[heap.home(512)] = true;
  ASSERT_TRUE(heap.migration.manage(heap.block(1)).ok());
  EXPECT_EQ(heap.migration.park(heap.block(1), Parking::kAll).moved, 512u);
  check();
  EXPECT_EQ(touch(700, true), FaultVerdict::kWake);
  EXPECT_EQ(heap.table.block(heap.block(1)).count(PageState::kResident), 512u);
  check();
  EXPECT_EQ(heap.migration.unpark(heap.block(0)).moved, 99u);
  check();
  EXPECT_EQ(protection.mappings(), 0u);
}

TEST_F(Hidden, WhatWasNotTakenByUsIsTheApplicationsOwn) {
  EXPECT_EQ(touch(3), FaultVerdict::kLost) << "not managed";
  ASSERT_TRUE(heap.migration.manage(heap.block(0)).ok());
  EXPECT_EQ(touch(3), FaultVerdict::kWake) << "another thread was quicker";
  heap.machine.page(heap.home(3)).denied = true;
  EXPECT_EQ(touch(3), FaultVerdict::kLost) << "the application's mprotect";
  EXPECT_FALSE(heap.table.peek(heap.page(3)).locked());
}

TEST_F(Hidden, MappingsAreBounded) {
  ASSERT_TRUE(heap.migration.manage(heap.block(0)).ok());
  ASSERT_TRUE(heap.migration.manage(heap.block(1)).ok());
  Protection few{heap.space, heap.machine};
  ASSERT_TRUE(few.init(8 * 600).ok());  // 600 runs
  heap.core.protection = &few;
  EXPECT_EQ(heap.migration.park(heap.block(0), Parking::kAll).moved, 512u);
  EXPECT_EQ(few.mappings(), 2u * 512) << "small pages may come to be a run each";
  EXPECT_EQ(heap.migration.park(heap.block(1), Parking::kAll, {0, 100}).moved, 0u);
  EXPECT_EQ(heap.stats.hints_over_mappings.get(), 1u);
  EXPECT_EQ(heap.migration.park(heap.block(1), Parking::kAll, {0, 88}).moved, 88u);
  EXPECT_EQ(touch(100), FaultVerdict::kWake);
  EXPECT_EQ(few.mappings(), 2u * 599);
  check();
  EXPECT_EQ(heap.migration.unpark(heap.block(0)).moved, 511u);
  EXPECT_EQ(heap.migration.unpark(heap.block(1)).moved, 88u);
  EXPECT_EQ(few.mappings(), 0u);
  heap.machine.huge[heap.home(512)] = true;
  ASSERT_TRUE(heap.migration.manage(heap.block(1)).ok());
  EXPECT_EQ(heap.migration.park(heap.block(1), Parking::kAll).moved, 512u);
  EXPECT_EQ(few.mappings(), 2u) << "a huge page is one run";
  EXPECT_TRUE(drop_content(heap.core, heap.home(512 + 10), 20 * kPageSize));
  EXPECT_EQ(few.mappings(), 2u * 492) << "until a part of it is shown";
  for (std::uint32_t i = 10; i < 30; ++i) ASSERT_TRUE(heap.write(512 + i, 0));
  check();
}

TEST_F(Hidden, NoMappingLeftToShowAPartOpensAllAround) {
  ASSERT_TRUE(heap.migration.manage(heap.block(0)).ok());
  EXPECT_EQ(heap.migration.park(heap.block(0), Parking::kAll, {0, 64}).moved, 64u);
  heap.machine.fail_at(1, ENOMEM);
  EXPECT_EQ(touch(20), FaultVerdict::kWake);
  EXPECT_TRUE(heap.machine.failed_once());
  for (std::uint32_t i = 0; i < 64; ++i) EXPECT_FALSE(denied(i)) << i;
  EXPECT_EQ(state(20), PageState::kResident);
  EXPECT_EQ(state(21), PageState::kParked);
  EXPECT_EQ(heap.migration.unpark(heap.block(0)).moved, 63u);
  check();
}

TEST_F(Hidden, EveryCallMayFail) {
  ASSERT_TRUE(heap.migration.manage(heap.block(0)).ok());
  for (std::uint64_t n = 1; n < 40; ++n) {
    heap.machine.fail_at(n, ENOMEM);
    (void)heap.migration.park(heap.block(0), Parking::kAll, {0, 200});
    for (std::uint32_t i = 0; i < 200; i += 9) {
      for (int tries = 0; tries < 8 && denied(i); ++tries) (void)touch(i);
      ASSERT_FALSE(denied(i)) << "page " << i << ", call " << n;
    }
    (void)heap.migration.unpark(heap.block(0));
    heap.machine.stop_failing();
    (void)heap.migration.unpark(heap.block(0));
    check();
  }
}

TEST_F(Hidden, FreedMemoryCanBeTouched) {
  ASSERT_TRUE(heap.migration.manage(heap.block(0)).ok());
  EXPECT_EQ(heap.migration.park(heap.block(0), Parking::kAll).moved, 512u);
  EXPECT_TRUE(drop_content(heap.core, heap.home(10), 20 * kPageSize));
  for (std::uint32_t i = 10; i < 30; ++i) {
    EXPECT_FALSE(denied(i)) << i;
    EXPECT_EQ(state(i), PageState::kUntouched) << i;
    ASSERT_TRUE(heap.write(i, 0));  // the kernel's zeros
  }
  check();
}

// The kernel fills fresh pages by itself, and nobody is told.
TEST_F(Hidden, PagesThatHaveComeSinceAreFound) {
  ASSERT_TRUE(heap.migration.manage(heap.block(0)).ok());
  EXPECT_TRUE(drop_content(heap.core, heap.home(10), 20 * kPageSize));
  for (std::uint32_t i = 10; i < 30; ++i) ASSERT_TRUE(heap.write(i, 1000 + i));
  EXPECT_EQ(state(10), PageState::kUntouched);
  ASSERT_TRUE(heap.migration.manage(heap.block(0)).ok());
  EXPECT_EQ(heap.table.block(heap.block(0)).count(PageState::kResident), 512u);
  check();
}

TEST_F(Hidden, WhatASystemCallNeedsIsShown) {
  ASSERT_TRUE(heap.migration.manage(heap.block(0)).ok());
  ASSERT_TRUE(heap.migration.manage(heap.block(1)).ok());
  EXPECT_EQ(heap.migration.park(heap.block(0), Parking::kAll).moved, 512u);
  EXPECT_EQ(heap.migration.park(heap.block(1), Parking::kAll).moved, 512u);
  OperationGate gate;
  EXPECT_EQ(show_hidden(heap.core, gate, heap.home(510), 4 * kPageSize), 4);
  for (std::uint32_t i = 0; i < kPages; ++i) EXPECT_FALSE(denied(i)) << i;
  check();
}

TEST_F(Hidden, NothingIsStoredAndNothingDiscarded) {
  ASSERT_TRUE(heap.migration.manage(heap.block(0)).ok());
  EXPECT_EQ(heap.migration.park(heap.block(0), Parking::kAll).moved, 512u);
  heap.core.store = &heap.pool;
  EXPECT_TRUE(heap.migration.store(heap.block(0), 512, Evictor::kAsked).store_full);
  heap.migration.clear_residue(heap.block(0));
  check();
}

}  // namespace
}  // namespace heaptier::test
