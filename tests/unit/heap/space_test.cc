#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include "runtime/arena.h"
#include "tests/unit/heap/fake_address_space.h"

namespace heaptier {
namespace {

constexpr std::size_t kGiB = std::size_t{1} << 30;
constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr auto kMovable = Mobility::kMovable;
constexpr auto kReclaimable = Mobility::kReclaimable;
constexpr auto kUnmovable = Mobility::kUnmovable;

std::uintptr_t address(const void* p) {
  return reinterpret_cast<std::uintptr_t>(p);
}

class SpaceTest : public testing::Test {
 protected:
  void start(SpaceConfig config) { ASSERT_TRUE(space().init(ops, config).ok()); }
  Space& space() { return *space_; }
  void* pages(std::size_t n, Mobility m, Owner owner = Owner::kJemalloc) {
    return space().allocate(n * kPageSize, kPageSize, m, owner);
  }
  void* blocks(std::size_t n, Mobility m = kMovable, std::size_t align = kPageblockSize) {
    return space().allocate(n * kPageblockSize, align, m, Owner::kJemalloc);
  }
  BlockIndex block(const void* p) { return block_of(space().page_at(address(p))); }
  void TearDown() override { EXPECT_EQ(ops.broken, ""); }

  test::FakeAddressSpace ops;

 private:
  std::unique_ptr<Space> space_ = std::make_unique<Space>();
};

TEST_F(SpaceTest, WindowFollowsPhysicalMemory) {
  const struct {
    std::size_t physical, window;
  } cases[] = {{kGiB, 64 * kGiB}, {24 * kGiB, 192 * kGiB}, {4096 * kGiB, 1024 * kGiB}};
  for (const auto& c : cases) {
    Space s;
    test::FakeAddressSpace o;
    ASSERT_TRUE(s.init(o, {.physical_bytes = c.physical, .seed = 7}).ok());
    EXPECT_EQ(s.bytes(), c.window);
    EXPECT_EQ(s.base() % kGiB, 0u);
    EXPECT_GE(s.base(), std::uintptr_t{16} << 40);
    EXPECT_LT(s.base(), std::uintptr_t{48} << 40);
    EXPECT_EQ(o.reserve_calls, 1);
    EXPECT_EQ(o.committed, 0u) << "nothing is committed before it is needed";
  }
}

TEST_F(SpaceTest, SeedsGiveDifferentPlaces) {
  std::vector<std::uintptr_t> bases;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    Space s;
    test::FakeAddressSpace o;
    ASSERT_TRUE(s.init(o, {.physical_bytes = kGiB, .seed = seed}).ok());
    bases.push_back(s.base());
  }
  std::sort(bases.begin(), bases.end());
  EXPECT_EQ(std::unique(bases.begin(), bases.end()), bases.end());
}

TEST_F(SpaceTest, AnOccupiedPlaceIsTriedElsewhere) {
  test::FakeAddressSpace probe;
  Space first;
  ASSERT_TRUE(first.init(probe, {.physical_bytes = kGiB, .seed = 3}).ok());
  ops.occupy(first.base() + 5 * kGiB, kPageSize);
  start({.physical_bytes = kGiB, .seed = 3});
  EXPECT_EQ(ops.reserve_calls, 2);
  EXPECT_NE(space().base(), first.base());
}

TEST_F(SpaceTest, WithNoRoomWhereItLooksTheKernelChooses) {
  ops.occupy(std::uintptr_t{16} << 40, std::size_t{33} << 40);
  start({.physical_bytes = kGiB});
  EXPECT_EQ(space().base() % kGiB, 0u);
  EXPECT_EQ(ops.reserved, space().bytes()) << "what was taken to align is given back";
}

TEST_F(SpaceTest, ASmallerWindowIsBetterThanNone) {
  ops.address_limit = 9 * kGiB;
  start({.physical_bytes = kGiB});
  EXPECT_EQ(space().bytes(), 8 * kGiB);
}

TEST_F(SpaceTest, NoAddressSpaceAtAllIsAnError) {
  ops.address_limit = kMiB;
  Space s;
  EXPECT_EQ(s.init(ops, {.physical_bytes = kGiB}).code, ENOMEM);
}

TEST_F(SpaceTest, WhatIsHandedOutIsCommittedAlignedAndInside) {
  start({.physical_bytes = kGiB});
  for (std::size_t align : {kPageSize, 16 * kPageSize, kPageblockSize, 32 * kMiB, kGiB}) {
    for (std::size_t bytes : {kPageSize, 3 * kPageSize, kPageblockSize, 5 * kMiB, 70 * kMiB}) {
      void* p = space().allocate(bytes, align, kMovable, Owner::kJemalloc);
      ASSERT_NE(p, nullptr);
      EXPECT_EQ(address(p) % align, 0u);
      EXPECT_EQ(address(p) % (bytes % kPageblockSize == 0 ? kPageblockSize : kPageSize), 0u);
      EXPECT_TRUE(ops.is_committed(address(p), bytes));
      EXPECT_TRUE(space().contains(p));
      EXPECT_TRUE(space().contains(static_cast<char*>(p) + bytes - 1));
      EXPECT_LE(block(static_cast<char*>(p) + bytes - 1).v, space().block_limit() - 1);
    }
  }
}

TEST_F(SpaceTest, RefusesNonsense) {
  start({.physical_bytes = kGiB});
  EXPECT_EQ(space().allocate(0, kPageSize, kMovable, Owner::kJemalloc), nullptr);
  EXPECT_EQ(space().allocate(SIZE_MAX & ~kPageSize, kPageSize, kMovable, Owner::kJemalloc),
            nullptr);
  EXPECT_EQ(blocks(space().bytes() / kPageblockSize), nullptr);
}

TEST_F(SpaceTest, MobilitiesDoNotShareAPageblock) {
  start({.physical_bytes = kGiB});
  std::map<std::uint32_t, Mobility> seen;
  for (int i = 0; i < 3000; ++i) {
    const Mobility m = i % 3 == 0 ? kMovable : i % 3 == 1 ? kReclaimable : kUnmovable;
    void* p = pages(1 + static_cast<std::size_t>(i) % 5, m);
    ASSERT_NE(p, nullptr);
    const auto [it, fresh] = seen.emplace(block(p).v, m);
    ASSERT_EQ(it->second, m);
    ASSERT_EQ(space().mobility_of(block(p)), m);
    ASSERT_EQ(space().owner_of(block(p)), Owner::kJemalloc);
  }
  EXPECT_EQ(seen.size(), 18u)
      << "1000 requests of 3 pages on average fill 6 pageblocks of each kind";
  EXPECT_EQ(space().usage().fallbacks, 0u);
}

TEST_F(SpaceTest, OwnersDoNotShareAPageblock) {
  start({.physical_bytes = kGiB});
  void* a = pages(1, kUnmovable, Owner::kJemalloc);
  void* b = pages(1, kUnmovable, Owner::kAllocatorMetadata);
  void* c = pages(1, kUnmovable, Owner::kUserOnly);
  EXPECT_NE(block(a), block(b));
  EXPECT_NE(block(b), block(c));
}

TEST_F(SpaceTest, OrdinaryMemoryHasAZoneOfItsOwn) {
  start({.physical_bytes = kGiB});
  const AddressRange zone = space().ordinary_zone();
  EXPECT_EQ(zone.end(), space().base() + space().bytes());
  EXPECT_EQ(zone.start % (32 * kMiB), 0u);
  EXPECT_TRUE(space().in_ordinary_zone(address(pages(1, kMovable))));
  EXPECT_TRUE(space().in_ordinary_zone(address(pages(1, kMovable, Owner::kMimalloc))));
  EXPECT_FALSE(space().in_ordinary_zone(address(pages(1, kUnmovable))));
  EXPECT_FALSE(space().in_ordinary_zone(address(pages(1, kReclaimable))));
  EXPECT_FALSE(space().in_ordinary_zone(address(pages(1, kMovable, Owner::kUserOnly))));
}

TEST_F(SpaceTest, AFullZoneOverflowsIntoTheOther) {
  start({.window_bytes = 4 * kGiB});
  std::size_t outside = 0;
  std::size_t all = 0;
  while (void* p = blocks(16, kUnmovable)) {
    ++all;
    outside += space().in_ordinary_zone(address(p)) ? 1 : 0;
  }
  EXPECT_EQ(all, 4 * kGiB / (32 * kMiB));
  EXPECT_EQ(outside, 3 * kGiB / (32 * kMiB));
  EXPECT_EQ(space().usage().refusals, 1u);
}

TEST_F(SpaceTest, AnEmptiedPageblockTakesAnyKind) {
  start({.physical_bytes = kGiB});
  void* p = blocks(1, kUnmovable);
  space().release(p, kPageblockSize);
  EXPECT_EQ(space().owner_of(block(p)), Owner::kNone);
  EXPECT_EQ(space().pages_used(block(p)), 0u);
  EXPECT_EQ(blocks(1, kReclaimable), p);
  EXPECT_EQ(space().mobility_of(block(p)), kReclaimable);
  EXPECT_EQ(space().usage().blocks[static_cast<int>(kUnmovable)], 0u);
  EXPECT_EQ(space().usage().blocks[static_cast<int>(kReclaimable)], 1u);
}

TEST_F(SpaceTest, LowAddressesAreUsedFirst) {
  start({.physical_bytes = kGiB});
  std::vector<void*> p;
  for (int i = 0; i < 10; ++i) p.push_back(blocks(1));
  for (int i : {7, 2, 5}) space().release(p[static_cast<std::size_t>(i)], kPageblockSize);
  EXPECT_EQ(blocks(1), p[2]);
  EXPECT_EQ(blocks(1), p[5]);
  EXPECT_EQ(blocks(1), p[7]);
  EXPECT_GT(blocks(1), p[9]);
}

TEST_F(SpaceTest, AFreeTailBelowTheFrontierIsTheBeginningOfALargerRun) {
  start({.physical_bytes = kGiB});
  blocks(3);
  void* tail = blocks(2);
  space().release(tail, 2 * kPageblockSize);
  EXPECT_EQ(blocks(5), tail);
}

TEST_F(SpaceTest, TheRestOfAnUnevenRunServesPages) {
  start({.physical_bytes = kGiB});
  void* run = space().allocate(3 * kMiB, kPageSize, kMovable, Owner::kJemalloc);
  void* rest = pages(256, kMovable);
  EXPECT_EQ(address(rest), address(run) + 3 * kMiB);
  EXPECT_EQ(space().pages_used(block(rest)), 512u);
}

TEST_F(SpaceTest, LargeRunsFollowOneAnother) {
  for (const std::size_t bytes : {kMiB / 4 * 5, kMiB / 4 * 7, kMiB / 2 * 5, 3 * kMiB, 7 * kMiB}) {
    Space s;
    test::FakeAddressSpace o;
    ASSERT_TRUE(s.init(o, {.physical_bytes = kGiB}).ok());
    std::vector<void*> p;
    for (std::size_t i = 0; i < 80; ++i) {
      p.push_back(s.allocate(bytes, kPageSize, kMovable, Owner::kJemalloc));
      ASSERT_NE(p.back(), nullptr);
      ASSERT_EQ(address(p.back()), address(p.front()) + i * bytes);
    }
    EXPECT_EQ(s.block_limit() - block_of(s.page_at(address(p.front()))).v,
              (80 * bytes + kPageblockSize - 1) / kPageblockSize);
    EXPECT_EQ(s.usage().carved_bytes, 80 * bytes);
    for (void* run : p) s.release(run, bytes);
    EXPECT_EQ(s.usage().carved_bytes, 0u);
    EXPECT_EQ(s.usage().blocks[static_cast<int>(kMovable)], 0u);
  }
}

TEST_F(SpaceTest, WhatFillsPageblocksSharesNone) {
  start({.physical_bytes = kGiB});
  for (int i = 0; i < 20; ++i) {
    void* uneven = pages(640, kMovable);
    void* even = blocks(1 + static_cast<std::size_t>(i) % 3);
    ASSERT_NE(uneven, nullptr);
    ASSERT_EQ(address(even) % kPageblockSize, 0u);
    ASSERT_EQ(space().pages_used(block(even)), 512u);
  }
}

TEST_F(SpaceTest, AHoleAcrossPageblocksIsUsedAgain) {
  start({.physical_bytes = kGiB});
  std::vector<void*> p;
  for (int i = 0; i < 40; ++i) p.push_back(pages(320, kMovable));
  const std::uint32_t limit = space().block_limit();
  for (const std::size_t i : {1u, 4u, 20u}) {
    ASSERT_NE(block(p[i]), block(static_cast<char*>(p[i]) + 319 * kPageSize)) << "lies across two";
    space().release(p[i], 320 * kPageSize);
    void* other = pages(320, kUnmovable);
    EXPECT_NE(other, p[i]) << "mobilities do not share";
    EXPECT_EQ(pages(320, kMovable), p[i]);
  }
  EXPECT_EQ(space().block_limit(), limit);
}

TEST_F(SpaceTest, RunsAcrossPageblocksAreAligned) {
  start({.physical_bytes = kGiB});
  for (std::size_t i = 0; i < 30; ++i) {
    (void)pages(1 + i, kMovable);
    void* p = space().allocate(300 * kPageSize, 64 * kPageSize, kMovable, Owner::kJemalloc);
    ASSERT_EQ(address(p) % (64 * kPageSize), 0u);
    ASSERT_TRUE(ops.is_committed(address(p), 300 * kPageSize));
  }
}

TEST_F(SpaceTest, PartsOfARunComeBackInAnyOrder) {
  start({.physical_bytes = kGiB});
  char* run = static_cast<char*>(blocks(4));
  space().release(run + kPageblockSize - kPageSize, 2 * kPageSize);  // across a boundary
  EXPECT_EQ(space().pages_used(block(run)), 511u);
  EXPECT_EQ(space().pages_used(block(run + kPageblockSize)), 511u);
  space().release(run + 3 * kPageblockSize, kPageblockSize);
  space().release(run, kPageblockSize - kPageSize);
  space().release(run + kPageblockSize + kPageSize, 2 * kPageblockSize - kPageSize);
  EXPECT_EQ(space().usage().carved_bytes, 0u);
  EXPECT_EQ(blocks(4), run) << "four free pageblocks make one run again";
}

TEST_F(SpaceTest, GrowsInPlaceWhileNothingIsInTheWay) {
  start({.physical_bytes = kGiB});
  char* p = static_cast<char*>(pages(10, kMovable));
  const auto grow = [&](char* at, std::size_t n) {
    return space().extend(at, n * kPageSize, kMovable, Owner::kJemalloc);
  };
  EXPECT_TRUE(grow(p + 10 * kPageSize, 5));
  EXPECT_EQ(space().pages_used(block(p)), 15u);
  EXPECT_TRUE(grow(p + 15 * kPageSize, 512))
      << "over the end of the pageblock, beyond the frontier";
  EXPECT_EQ(space().pages_used(block(p)), 512u);
  EXPECT_EQ(space().pages_used(block(p + kPageblockSize)), 15u);
  EXPECT_TRUE(ops.is_committed(address(p), 527 * kPageSize));
  EXPECT_TRUE(grow(p + 527 * kPageSize, 100 * 512 - 15)) << "a hundred pageblocks more";
  EXPECT_TRUE(ops.is_committed(address(p), 100 * 512 * kPageSize));
  EXPECT_EQ(space().usage().carved_bytes, (527 + 100 * 512 - 15) * kPageSize);
  EXPECT_EQ(space().block_limit(), block(p).v + 101u);
}

TEST_F(SpaceTest, DoesNotGrowOverAnythingElse) {
  start({.physical_bytes = kGiB});
  char* p = static_cast<char*>(blocks(3));
  char* next = static_cast<char*>(blocks(1, kMovable));
  ASSERT_EQ(next, p + 3 * kPageblockSize);
  const std::size_t carved = space().usage().carved_bytes;
  EXPECT_FALSE(space().extend(next, kPageSize, kMovable, Owner::kJemalloc)) << "in use";
  space().release(next + kMiB, kMiB);
  space().release(p + 2 * kPageblockSize, kPageblockSize);
  EXPECT_FALSE(space().extend(p + 2 * kPageblockSize, kPageblockSize + kPageSize, kMovable,
                              Owner::kJemalloc));
  EXPECT_EQ(space().pages_used(block(p + 2 * kPageblockSize)), 0u)
      << "a refusal leaves all as it was";
  EXPECT_FALSE(space().extend(next + kMiB, kPageSize, kUnmovable, Owner::kJemalloc));
  EXPECT_FALSE(space().extend(next + kMiB, kPageSize, kMovable, Owner::kMimalloc));
  EXPECT_TRUE(space().extend(next + kMiB, kPageSize, kMovable, Owner::kJemalloc));
  EXPECT_FALSE(space().extend(next + 10 * kPageblockSize, kPageSize, kMovable, Owner::kJemalloc));
  EXPECT_FALSE(space().extend(p, space().bytes(), kMovable, Owner::kJemalloc));
  EXPECT_EQ(space().usage().carved_bytes, carved - kMiB - kPageblockSize + kPageSize);
  // Whole free pageblocks between, and the beginning of one in use behind them.
  space().release(next, kMiB / 2);
  EXPECT_TRUE(space().extend(p + 2 * kPageblockSize, kPageblockSize + kMiB / 2, kMovable,
                             Owner::kJemalloc));
}

TEST_F(SpaceTest, GrowthThatCannotBeCommittedIsRefused) {
  ops.commit_limit = 32 * kMiB;
  start({.physical_bytes = kGiB});
  char* p = static_cast<char*>(blocks(16));
  EXPECT_FALSE(space().extend(p + 32 * kMiB, kPageSize, kMovable, Owner::kJemalloc));
  EXPECT_EQ(space().usage().carved_bytes, 32 * kMiB);
}

// Uses the window up with whole pageblocks of one kind, except for one page at the end of `holes`
// of them.
class FallbackTest : public SpaceTest {
 protected:
  void fill(Mobility m) {
    start({.window_bytes = 4 * kGiB});
    while (void* p = blocks(1, m)) last = static_cast<char*>(p);
    hole = last + 100 * kPageSize;
    space().release(hole, 4 * kPageSize);
  }
  char* last = nullptr;
  char* hole = nullptr;
};

TEST_F(FallbackTest, SharesAPageblockRatherThanFail) {
  fill(kMovable);
  EXPECT_EQ(pages(2, kUnmovable), hole);
  EXPECT_EQ(space().usage().fallbacks, 1u);
  EXPECT_EQ(space().mobility_of(block(hole)), kUnmovable)
      << "the stricter of the two holds for all";
  EXPECT_EQ(space().usage().blocks[static_cast<int>(kUnmovable)], 1u);
  EXPECT_EQ(pages(2, kMovable), hole + 2 * kPageSize);
  EXPECT_EQ(space().usage().fallbacks, 2u);
  EXPECT_EQ(space().mobility_of(block(hole)), kUnmovable);
  EXPECT_EQ(pages(1, kMovable), nullptr);
}

TEST_F(FallbackTest, ReclaimableMemoryIsNeverMadeOfOther) {
  fill(kReclaimable);
  EXPECT_EQ(pages(1, kMovable), hole);
  EXPECT_EQ(space().mobility_of(block(hole)), kMovable) << "nothing in it may be discarded now";
  EXPECT_EQ(pages(1, kReclaimable), hole + kPageSize);
  EXPECT_EQ(space().mobility_of(block(hole)), kMovable);
}

TEST_F(FallbackTest, NotWithAnotherOwner) {
  fill(kMovable);
  EXPECT_EQ(pages(1, kMovable, Owner::kMimalloc), nullptr);
  EXPECT_EQ(pages(1, kMovable, Owner::kUserOnly), nullptr);
  EXPECT_EQ(space().usage().fallbacks, 0u);
}

TEST_F(SpaceTest, UnderALimitOnDataOnlyWhatIsUsedIsWritable) {
  ops.commit_limit = 100 * kMiB;
  start({.data_limited = true, .physical_bytes = kGiB});
  std::vector<void*> p;
  while (void* more = blocks(1)) p.push_back(more);
  EXPECT_EQ(p.size(), 50u) << "all that the limit allows";
  for (const std::size_t i : {3u, 4u, 7u, 49u}) space().release(p[i], kPageblockSize);
  EXPECT_EQ(ops.committed, 92 * kMiB);
  char* uneven = static_cast<char*>(pages(1000, kMovable));
  EXPECT_EQ(uneven, p[3]);
  EXPECT_EQ(ops.committed, 96 * kMiB);
  EXPECT_TRUE(ops.is_committed(address(uneven), 1000 * kPageSize));
  EXPECT_EQ(blocks(1), p[7]);
  char* last = static_cast<char*>(p[48]) + kPageblockSize;
  EXPECT_TRUE(space().extend(last, kPageSize, kMovable, Owner::kJemalloc));
  EXPECT_TRUE(ops.is_committed(address(last), kPageSize));
  EXPECT_EQ(ops.committed, 100 * kMiB);
  EXPECT_EQ(blocks(1), nullptr);
}

TEST_F(SpaceTest, ARefusalUnderALimitOnDataLeavesAllAsItWas) {
  start({.data_limited = true, .physical_bytes = kGiB});
  std::vector<void*> p;
  for (int i = 0; i < 4; ++i) p.push_back(blocks(1));
  space().release(p[1], kPageblockSize);
  space().release(p[2], kPageblockSize);
  ops.commit_limit = 4 * kMiB;
  EXPECT_EQ(blocks(2), nullptr);
  EXPECT_EQ(pages(512 + 1, kMovable), nullptr);
  ops.commit_limit = 8 * kMiB;
  EXPECT_EQ(blocks(2), p[1]);
}

TEST_F(SpaceTest, UnderALimitAddressSpaceIsClaimedInSteps) {
  ops.address_limit = 200 * kMiB;
  start({.address_limit = 200 * kMiB, .physical_bytes = 24 * kGiB});
  EXPECT_EQ(ops.reserved, 0u) << "nothing up front";
  std::vector<void*> p;
  p.push_back(pages(1, kUnmovable));
  EXPECT_EQ(ops.reserved, 32 * kMiB);
  while (void* more = blocks(1)) p.push_back(more);
  EXPECT_EQ(ops.reserved, 200 * kMiB) << "the last step is as small as it must be";
  EXPECT_EQ(p.size(), 1 + (200 - 32) / 2 + 15u) << "and the other zone's rest is used, too";
  EXPECT_EQ(space().usage().refusals, 1u);
  space().release(p[3], kPageblockSize);
  EXPECT_EQ(blocks(1), p[3]) << "what comes back can be had again";
}

TEST_F(SpaceTest, ALimitTooSmallForAStepStillServes) {
  ops.address_limit = 5 * kMiB;
  start({.address_limit = 5 * kMiB, .physical_bytes = kGiB});
  EXPECT_NE(pages(1, kMovable), nullptr);
  EXPECT_NE(pages(1, kUnmovable), nullptr);
  EXPECT_EQ(blocks(1), nullptr);
  EXPECT_NE(pages(1, kMovable), nullptr);
}

TEST_F(SpaceTest, AForeignMappingInTheWayIsSteppedOver) {
  start({.address_limit = 1 * kGiB, .physical_bytes = kGiB});
  const AddressRange zone = space().ordinary_zone();
  ops.occupy(zone.start + 40 * kMiB, kPageSize);
  std::vector<std::uintptr_t> got;
  for (int i = 0; i < 40; ++i) got.push_back(address(blocks(1)));
  for (std::uintptr_t at : got) {
    EXPECT_TRUE(ops.is_committed(at, kPageblockSize));
    EXPECT_TRUE(at + kPageblockSize <= zone.start + 40 * kMiB || at >= zone.start + 41 * kMiB);
  }
  std::sort(got.begin(), got.end());
  EXPECT_EQ(std::unique(got.begin(), got.end()), got.end());
  void* run = blocks(20);
  ASSERT_NE(run, nullptr);
  EXPECT_TRUE(ops.is_committed(address(run), 20 * kPageblockSize));
  EXPECT_EQ(space().usage().committed_bytes, ops.committed);
}

TEST_F(SpaceTest, StrictOvercommitGivesLessAtATimeThenNothing) {
  ops.commit_limit = 50 * kMiB;
  start({.physical_bytes = kGiB});
  int n = 0;
  while (blocks(1) != nullptr) ++n;
  EXPECT_EQ(n, 25);
  EXPECT_EQ(space().usage().committed_bytes, 50 * kMiB);
  EXPECT_EQ(pages(1, kUnmovable), nullptr);
}

TEST_F(SpaceTest, AnyCallMayFailAndTheNextOneIsWhole) {
  for (int nth = 1; nth < 12; ++nth) {
    for (const bool limited : {false, true}) {
      test::FakeAddressSpace o;
      Space s;
      ASSERT_TRUE(s.init(o, {.address_limit = limited ? kGiB : 0, .physical_bytes = kGiB}).ok());
      o.fail_nth = nth;
      std::vector<std::pair<std::uintptr_t, std::size_t>> live;
      std::size_t carved = 0;
      for (int i = 0; i < 60; ++i) {
        const std::size_t bytes = (1 + static_cast<std::size_t>(i) % 7) * kMiB;
        const Mobility m = i % 4 == 0 ? kUnmovable : kMovable;
        void* p = s.allocate(bytes, kPageSize, m, Owner::kJemalloc);
        if (p == nullptr) continue;
        ASSERT_TRUE(o.is_committed(address(p), bytes));
        for (const auto& [at, length] : live) {
          ASSERT_TRUE(address(p) >= at + length || address(p) + bytes <= at);
        }
        live.emplace_back(address(p), bytes);
        carved += bytes;
      }
      EXPECT_GE(live.size(), 59u);
      EXPECT_EQ(s.usage().carved_bytes, carved);
      EXPECT_EQ(s.usage().committed_bytes, o.committed);
      EXPECT_EQ(o.broken, "") << "failing call " << nth;
    }
  }
}

// 100,000 pageblocks with every other one free: requests for two together must not look at all the
// holes, each time. Quadratic, this test would take minutes.
TEST_F(SpaceTest, AHundredThousandHolesCostNothing) {
  start({.window_bytes = 1024 * kGiB});
  std::vector<void*> p;
  for (int i = 0; i < 100000; ++i) p.push_back(blocks(1));
  for (std::size_t i = 0; i < p.size(); i += 2) space().release(p[i], kPageblockSize);
  const void* top = p.back();
  for (int i = 0; i < 100000; ++i) ASSERT_GT(blocks(2), top);
  for (int i = 0; i < 50000; ++i) ASSERT_LT(blocks(1), top);
  EXPECT_EQ(space().usage().carved_bytes, 300000 * kPageblockSize);
}

TEST_F(SpaceTest, AgreesWithAModel) {
  start({.window_bytes = 8 * kGiB});
  std::mt19937 random(42);
  struct Run {
    std::size_t bytes;
    Mobility mobility;
    Owner owner;
  };
  std::map<std::uintptr_t, Run> live;
  std::size_t carved = 0;
  for (int round = 0; round < 30000; ++round) {
    if (live.size() < 400 && random() % 5 < 3) {
      const std::size_t bytes =
          random() % 4 == 0 ? (1 + random() % 2000) * kPageSize : (1 + random() % 60) * kPageSize;
      const std::size_t align = kPageSize << (random() % 12);
      const Run run{bytes, static_cast<Mobility>(random() % 3),
                    static_cast<Owner>(1 + random() % (kOwners - 1))};
      void* p = space().allocate(bytes, align, run.mobility, run.owner);
      ASSERT_NE(p, nullptr);
      ASSERT_EQ(address(p) % align, 0u);
      auto next = live.lower_bound(address(p));
      ASSERT_TRUE(next == live.end() || address(p) + bytes <= next->first);
      if (next != live.begin()) {
        ASSERT_LE(std::prev(next)->first + std::prev(next)->second.bytes, address(p));
      }
      live[address(p)] = run;
      carved += bytes;
    } else if (!live.empty() && random() % 8 == 0) {
      auto it = std::next(live.begin(), static_cast<long>(random() % live.size()));
      auto& [at, run] = *it;
      const std::size_t more = (1 + random() % 700) * kPageSize;
      void* end = reinterpret_cast<void*>(at + run.bytes);
      if (space().extend(end, more, run.mobility, run.owner)) {
        run.bytes += more;
        carved += more;
        ASSERT_TRUE(std::next(it) == live.end() || at + run.bytes <= std::next(it)->first);
        ASSERT_TRUE(ops.is_committed(at, run.bytes));
      }
    } else if (!live.empty()) {
      auto it = std::next(live.begin(), static_cast<long>(random() % live.size()));
      auto [at, run] = *it;
      // Whole, or a part at either end.
      std::size_t part =
          random() % 3 == 0 ? kPageSize * (1 + random() % (run.bytes / kPageSize)) : run.bytes;
      const bool front = random() % 2 == 0;
      const std::uintptr_t from = front ? at : at + run.bytes - part;
      space().release(reinterpret_cast<void*>(from), part);
      live.erase(it);
      if (part < run.bytes) {
        live[front ? at + part : at] = {run.bytes - part, run.mobility, run.owner};
      }
      carved -= part;
    }
    if (round % 1000 == 0) {
      std::map<std::uint32_t, std::uint32_t> used;
      for (const auto& [at, run] : live) {
        for (std::uintptr_t a = at; a < at + run.bytes; a += kPageSize) {
          const BlockIndex b = block_of(space().page_at(a));
          ++used[b.v];
          ASSERT_EQ(space().owner_of(b), run.owner);
          ASSERT_EQ(space().mobility_of(b), run.mobility);
        }
      }
      for (std::uint32_t b = 0; b < space().block_limit(); ++b) {
        ASSERT_EQ(space().pages_used({b}), used.count(b) != 0 ? used[b] : 0);
      }
      ASSERT_EQ(space().usage().carved_bytes, carved);
    }
  }
  for (const auto& [at, run] : live) space().release(reinterpret_cast<void*>(at), run.bytes);
  const SpaceUsage u = space().usage();
  EXPECT_EQ(u.carved_bytes, 0u);
  for (std::size_t n : u.blocks) EXPECT_EQ(n, 0u);
}

}  // namespace
}  // namespace heaptier
