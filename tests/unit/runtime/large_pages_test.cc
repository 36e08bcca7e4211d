// Huge pages that are not asked for in parts while something holds on to them, and that stay whole
// where small pages have been parked before.
#include "runtime/large_pages.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/fakes/fake_file_tree.h"
#include "tests/unit/runtime/engine_fixture.h"

namespace heaptier::test {
namespace {

const std::string kSizes = "/sys/kernel/mm/transparent_hugepage/hugepages-";

// The files of a kernel that counts, of all pages or of each size, how many it could not split.
class Counting final : public FileTree {
 public:
  explicit Counting(FakeMachine& machine) : machine_(machine) { linux_6_12(); }
  void linux_6_12() {
    clear();
    count_ = kSizes + "2048kB/stats/split_failed";
    for (const char* size : {"16kB", "64kB", "1024kB", "2048kB"}) {
      tree.files[kSizes + size + "/enabled"] = "always inherit madvise [never]\n";
      tree.files[kSizes + size + "/stats/split_failed"] = "3\n";
    }
  }
  void linux_6_8() {
    clear();
    tree.files[kSizes + "64kB/enabled"] = "always inherit madvise [never]\n";
    tree.files[kSizes + "2048kB/enabled"] = "always [inherit] madvise never\n";
    count_ = "/proc/vmstat";
  }
  void none() {
    clear();
    count_.clear();
  }
  void at_first_touch(const char* system, const char* process) {
    tree.files["/sys/kernel/mm/transparent_hugepage/enabled"] = system;
    tree.files["/proc/self/status"] = std::string("Name:\tx\nTHP_enabled:\t") + process + "\n";
  }

  Errno read(const char* path, TextSink& sink) override {
    if (!count_.empty()) {
      const std::string n = std::to_string(machine_.refusals + others);
      tree.files[count_] = count_ == "/proc/vmstat" ? "thp_split_page 7\nthp_split_page_failed " +
                                                          n + "\nthp_split_pmd 9\n"
                                                    : n + "\n";
    }
    others += others_each_read;
    return tree.read(path, sink);
  }
  Errno list(const char* path, TextSink& names) override { return tree.list(path, names); }
  Errno link(const char* path, char* out, std::size_t room) override {
    return tree.link(path, out, room);
  }

  FakeFileTree tree;
  std::uint64_t others = 5;
  std::uint64_t others_each_read = 0;

 private:
  void clear() {
    tree.files.clear();
    at_first_touch("[always] madvise never\n", "1");
  }
  FakeMachine& machine_;
  std::string count_;
};

class LargePagesTest : public testing::Test {
 protected:
  LargePagesTest() {
    for (std::uint32_t i = 0; i < 2 * kPagesPerBlock; ++i) EXPECT_TRUE(heap_.write(i, i + 1));
    heap_.core.large_pages = &large_;
    heap_.own.background = true;
  }
  ~LargePagesTest() override {
    EXPECT_EQ(machine_.hung, 0u);
    machine_.held.clear();
    heap_.check_all();
  }
  // A whole huge page, in one mapping.
  void make_huge(std::uint32_t block) {
    machine_.huge[at(block)] = true;
    EXPECT_TRUE(heap_.migration.manage(heap_.block(block)).ok());
    EXPECT_TRUE(heap_.table.block(heap_.block(block)).huge.load());
  }
  std::uintptr_t at(std::uint32_t block) { return heap_.space.address_of(heap_.block(block)); }
  // As the kernel gathers small pages.
  void gather(std::uint32_t block) {
    machine_.page_tables.erase(at(block));
    machine_.huge[at(block)] = true;
    heap_.table.block(heap_.block(block)).found(true);
  }
  MoveOutcome park(std::uint32_t block, PageSpan span = {}) {
    return heap_.migration.park(heap_.block(block), Parking::kAll, span);
  }
  bool only_small(std::uint32_t block) {
    return heap_.table.block(heap_.block(block)).only_small.load();
  }

  SmallHeap heap_;
  FakeMachine& machine_ = heap_.machine;
  Counting files_{machine_};
  LargePages large_{machine_, files_};
};

TEST_F(LargePagesTest, AHeldHugePageIsNotAskedForInParts) {
  make_huge(0);
  machine_.held.insert(at(0));
  const MoveOutcome refused = park(0, PageSpan{8, 8});
  EXPECT_EQ(refused.moved, 0u);
  EXPECT_EQ(refused.busy, 8u);
  EXPECT_TRUE(machine_.huge[at(0)]);
  EXPECT_TRUE(heap_.table.block(heap_.block(0)).huge.load());
  EXPECT_EQ(park(0).moved, kPagesPerBlock) << "as a whole it may go";
  EXPECT_TRUE(heap_.good(3));

  machine_.held.clear();
  EXPECT_EQ(park(0, PageSpan{8, 8}).moved, 8u);
  EXPECT_TRUE(only_small(0));
}

TEST_F(LargePagesTest, AHugePageInTwoMappingsIsAskedForOnlyWhenItHasBeenTakenApart) {
  for (const bool thought_huge : {false, true}) {
    for (int files = 0; files < 2; ++files) {
      SCOPED_TRACE(files);
      files == 0 ? files_.linux_6_12() : files_.linux_6_8();
      EXPECT_TRUE(heap_.migration.manage(heap_.block(0)).ok());
      heap_.table.block(heap_.block(0)).found(thought_huge);
      machine_.huge_in_parts.insert(at(0));
      machine_.held.insert(at(0));
      const MoveOutcome refused = park(0);
      EXPECT_EQ(refused.moved, 0u);
      EXPECT_EQ(refused.busy, kPagesPerBlock);
      EXPECT_FALSE(only_small(0));
      machine_.held.clear();
      EXPECT_EQ(park(0).moved, kPagesPerBlock);
      EXPECT_TRUE(only_small(0));
      for (std::uint32_t i = 0; i < kPagesPerBlock; ++i) EXPECT_TRUE(heap_.good(i));
    }
  }
}

TEST_F(LargePagesTest, IsLookedAtOnce) {
  EXPECT_TRUE(heap_.migration.manage(heap_.block(0)).ok());
  EXPECT_EQ(park(0).moved, kPagesPerBlock);
  (void)heap_.migration.unpark(heap_.block(0));
  const std::uint64_t calls = machine_.calls;
  EXPECT_EQ(park(0).moved, kPagesPerBlock);
  EXPECT_EQ(machine_.calls, calls + 2) << "a look at it and the move";

  // Gathered since, unseen, and held.
  (void)heap_.migration.unpark(heap_.block(0));
  machine_.huge[at(0)] = true;
  machine_.held.insert(at(0));
  EXPECT_EQ(park(0, PageSpan{0, 8}).moved, 0u);
}

TEST_F(LargePagesTest, OnlyTheBackgroundThreadFindsOut) {
  heap_.own.background = false;
  EXPECT_TRUE(heap_.migration.manage(heap_.block(0)).ok());
  const MoveOutcome refused = park(0, PageSpan{0, 8});
  EXPECT_EQ(refused.moved, 0u);
  EXPECT_EQ(refused.busy, 8u);
  EXPECT_EQ(files_.tree.reads, 0);
  heap_.own.background = true;
  EXPECT_EQ(park(0, PageSpan{0, 8}).moved, 8u);
  heap_.own.background = false;
  EXPECT_EQ(park(0, PageSpan{8, 8}).moved, 8u) << "by now it is known";
}

TEST_F(LargePagesTest, WhatWouldBeTakenApartByItsTouchIsTakenApartFirst) {
  const struct {
    const char* system;
    const char* process;
    bool advised;
    bool whole;
  } kCases[] = {{"[always] madvise never\n", "1", false, true},
                {"[always] madvise never\n", "0", false, false},
                {"always [madvise] never\n", "1", false, false},
                {"always [madvise] never\n", "1", true, true},
                {"always madvise [never]\n", "1", true, false}};
  for (const auto& c : kCases) {
    SCOPED_TRACE(std::string(c.system) + c.process);
    LargePages large{machine_, files_};
    large.begin(false, c.advised);
    heap_.core.large_pages = &large;
    files_.at_first_touch(c.system, c.process);
    EXPECT_TRUE(heap_.migration.manage(heap_.block(0)).ok());
    gather(0);
    machine_.held.insert(at(0));
    EXPECT_EQ(park(0).moved, c.whole ? kPagesPerBlock : 0);
    (void)heap_.migration.unpark(heap_.block(0));
    machine_.held.clear();
    EXPECT_EQ(park(0).moved, kPagesPerBlock);
    EXPECT_EQ(machine_.huge[heap_.core.park(heap_.page(0))], c.whole);
    (void)heap_.migration.unpark(heap_.block(0));
    machine_.page_tables.erase(at(0));
    heap_.core.large_pages = &large_;
  }
}

TEST_F(LargePagesTest, NothingIsAskedOfAKernelThatRefusesHeldParts) {
  large_.begin(true, false);
  EXPECT_TRUE(heap_.migration.manage(heap_.block(0)).ok());
  EXPECT_EQ(park(0, PageSpan{0, 8}).moved, 8u);
  EXPECT_EQ(files_.tree.reads, 0);
}

TEST_F(LargePagesTest, AKernelWithoutLargePagesHasNothingToTakeApart) {
  files_.none();
  files_.tree.files.clear();
  files_.tree.files["/sys/kernel/mm/ksm/run"] = "0\n";
  EXPECT_TRUE(large_.take_apart(at(0)).ok());
}

// Linux 6.18: a page that moved after an attempt that failed is not counted, and asked for again.
TEST_F(LargePagesTest, WhatMovedWithoutBeingCountedIsParked) {
  EXPECT_TRUE(heap_.migration.manage(heap_.block(0)).ok());
  machine_.uncounted.insert(heap_.home(40));
  EXPECT_EQ(park(0).moved, kPagesPerBlock);
  EXPECT_EQ(heap_.in_state(PageState::kParked), kPagesPerBlock);
  for (std::uint32_t i = 0; i < kPagesPerBlock; ++i) EXPECT_TRUE(heap_.good(i));
}

TEST_F(LargePagesTest, WhatIsKnownFromTheStartIsNotLookedForByOthers) {
  EXPECT_TRUE(heap_.migration.manage(heap_.block(0)).ok());
  EXPECT_TRUE(only_small(0)) << "looked at when its faults began to come to us";
  heap_.own.background = false;
  EXPECT_EQ(park(0).moved, kPagesPerBlock);
}

TEST_F(LargePagesTest, WhoServesFaultsTakesApartWhatIsHugeInOneMapping) {
  make_huge(0);
  heap_.own.background = false;
  machine_.held.insert(at(0));
  EXPECT_EQ(park(0, PageSpan{0, 64}).moved, 0u);
  machine_.held.clear();
  EXPECT_EQ(park(0, PageSpan{0, 64}).moved, 64u);
  EXPECT_EQ(files_.tree.reads, 0);
}

TEST_F(LargePagesTest, WhatIsNotToldIsNotDone) {
  files_.none();
  EXPECT_TRUE(heap_.migration.manage(heap_.block(0)).ok());
  EXPECT_EQ(large_.take_apart(at(0)).code, ENOTSUP);
  EXPECT_EQ(park(0).moved, 0u);
  files_.linux_6_8();
  files_.tree.files[kSizes + "64kB/enabled"] = "[always] inherit madvise never\n";
  EXPECT_EQ(large_.take_apart(at(0)).code, ENOTSUP) << "6.8 does not count those";
  files_.linux_6_12();
  files_.tree.files[kSizes + "64kB/enabled"] = "[always] inherit madvise never\n";
  EXPECT_TRUE(large_.take_apart(at(0)).ok());
  // A huge page in one mapping tells by itself.
  files_.none();
  make_huge(1);
  machine_.held.insert(at(1));
  EXPECT_EQ(large_.take_apart(at(1)).code, EBUSY);
  machine_.held.clear();
  EXPECT_TRUE(large_.take_apart(at(1)).ok());
}

TEST_F(LargePagesTest, WithOtherSizesInUseEveryPageIsAskedByItself) {
  files_.tree.files[kSizes + "64kB/enabled"] = "always inherit [madvise] never\n";
  const std::uint64_t calls = machine_.calls;
  EXPECT_TRUE(large_.take_apart(at(0)).ok());
  EXPECT_GE(machine_.calls, calls + kPagesPerBlock);
}

TEST_F(LargePagesTest, RefusalsOfOthersAreForAnotherTime) {
  files_.others_each_read = 1;
  EXPECT_EQ(large_.take_apart(at(0)).code, EBUSY);
  files_.others_each_read = 0;
  EXPECT_TRUE(large_.take_apart(at(0)).ok());
}

TEST_F(LargePagesTest, EveryFailureLeavesItAtHome) {
  for (int nth = 0; nth < 12; ++nth) {
    files_.tree.fail_from = nth;
    (void)large_.take_apart(at(0));  // may be known already
  }
  files_.tree.fail_from = -1;
  EXPECT_TRUE(heap_.migration.manage(heap_.block(0)).ok());
  for (std::uint64_t nth = 1; nth < 9; ++nth) {
    heap_.table.block(heap_.block(0)).found(false);
    machine_.huge_in_parts.insert(at(0));
    machine_.held.insert(at(0));
    machine_.fail_at(nth, ENOMEM);
    EXPECT_EQ(park(0).moved, 0u) << nth;
    machine_.stop_failing();
  }
}

TEST_F(LargePagesTest, AHugePageIsParkedWholeWhereSmallOnesHaveBeen) {
  for (const bool careful : {true, false}) {
    heap_.core.large_pages = careful ? &large_ : nullptr;
    EXPECT_TRUE(heap_.migration.manage(heap_.block(0)).ok());
    EXPECT_EQ(park(0).moved, kPagesPerBlock);
    (void)heap_.migration.unpark(heap_.block(0));
    gather(0);
    EXPECT_EQ(park(0).moved, kPagesPerBlock);
    EXPECT_TRUE(machine_.huge[heap_.core.park(heap_.page(0))]) << "still in one piece";
    EXPECT_TRUE(heap_.good(5));
    EXPECT_TRUE(machine_.huge[at(0)]);
    EXPECT_TRUE(machine_.is_registered(heap_.core.park(heap_.page(0))));
    heap_.table.block(heap_.block(0)).found(false);
    machine_.huge[at(0)] = false;
  }
}

TEST_F(LargePagesTest, AParkThatCannotBeRenewedIsNotUsed) {
  EXPECT_TRUE(heap_.migration.manage(heap_.block(0)).ok());
  EXPECT_EQ(park(0).moved, kPagesPerBlock);
  (void)heap_.migration.unpark(heap_.block(0));
  gather(0);
  heap_.core.large_pages = nullptr;
  for (std::uint64_t nth = 1; nth <= 3; ++nth) {
    heap_.table.block(heap_.block(0)).found(true);
    heap_.table.block(heap_.block(0)).park_in_parts.store(true);
    machine_.fail_at(nth, ENOMEM);
    const MoveOutcome outcome = park(0);
    machine_.stop_failing();
    if (nth == 2) {  // that it is not to be dumped
      EXPECT_EQ(outcome.moved, kPagesPerBlock);
      (void)heap_.migration.unpark(heap_.block(0));
      continue;
    }
    EXPECT_EQ(outcome.moved, 0u) << nth;
    EXPECT_TRUE(outcome.failed) << nth;
    EXPECT_TRUE(machine_.huge[at(0)]) << nth;
  }
  EXPECT_EQ(park(0).moved, kPagesPerBlock) << "the next time";
}

}  // namespace
}  // namespace heaptier::test
