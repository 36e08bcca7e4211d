// Size classes and the spans beneath them.
#include "runtime/tiers/span_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <set>
#include <thread>
#include <vector>

#include "runtime/tiers/slot_heap.h"
#include "tests/unit/tiers/fake_memory.h"

namespace heaptier {
namespace {

using testing::FakeMemory;

TEST(SizeClasses, EverySizeHasTheSmallestClassThatHoldsIt) {
  for (std::size_t bytes = 1; bytes <= kLargestObject; ++bytes) {
    const unsigned c = size_class_for(bytes);
    ASSERT_LT(c, kSizeClasses);
    EXPECT_GE(kSizeClassInfo[c].bytes, bytes);
    EXPECT_TRUE(c == 0 || kSizeClassInfo[c - 1].bytes < bytes);
  }
}

TEST(SizeClasses, SpansAreFilled) {
  for (const SizeClassInfo& c : kSizeClassInfo) {
    const std::size_t used = std::size_t{c.objects} * c.bytes;
    EXPECT_LE(used, kSpanBytes);
    // Not one object more, and next to nothing left: the alignment's rounding of each object.
    EXPECT_GT(used + c.bytes, kSpanBytes);
    EXPECT_LT(kSpanBytes - used, std::size_t{c.objects} * kObjectAlign);
    EXPECT_EQ(c.bytes % kObjectAlign, 0u);
  }
}

TEST(SlotIds, HoldEverySpanAndObjectAndAreNeverZero) {
  for (const std::uint32_t span : {0u, 1u, 4095u, (1u << kSpanBits) - 1}) {
    for (std::uint32_t object = 0; object < kMostObjects; ++object) {
      const SlotId id = slot_id(span, object);
      EXPECT_NE(id.v, 0u);
      EXPECT_EQ(span_of(id), span);
      EXPECT_EQ(object_of(id), object);
    }
  }
  EXPECT_EQ(kMaxPoolBytes, std::size_t{256} << 30);
}

TEST(SpanPool, TakesUpToItsCapacity) {
  FakeMemory memory;
  SpanPool pool;
  constexpr std::size_t kCapacity = std::size_t{40} << 20;
  ASSERT_TRUE(pool.init(memory, kCapacity).ok());
  EXPECT_EQ(memory.maps(), 0);  // nothing until it is used
  std::set<std::uint32_t> spans;
  std::set<std::uintptr_t> addresses;
  for (std::uint32_t s = pool.take(); s != kNoSpan; s = pool.take()) {
    EXPECT_TRUE(pool.known(s));
    spans.insert(s);
    addresses.insert(pool.address(s));
    EXPECT_LE(pool.held_spans() * kSpanBytes + pool.metadata_bytes(), kCapacity);
  }
  EXPECT_GE(spans.size() * kSpanBytes, kCapacity - kCapacity / 256);
  EXPECT_EQ(addresses.size(), spans.size());
  EXPECT_TRUE(memory.names_ok());
  EXPECT_EQ(pool.take(), kNoSpan);  // and stays full
  pool.give(*spans.begin());
  EXPECT_EQ(pool.take(), *spans.begin());
}

TEST(SpanPool, GrowsInStepsThatGrow) {
  FakeMemory memory;
  SpanPool pool;
  ASSERT_TRUE(pool.init(memory, std::size_t{64} << 20).ok());
  (void)pool.take();
  EXPECT_EQ(memory.mapped_bytes(), std::size_t{4} << 20);
  while (pool.take() != kNoSpan) {
  }
  EXPECT_LE(memory.maps(), 14);
}

TEST(SpanPool, NeedsRoomForOneSpan) {
  FakeMemory memory;
  SpanPool pool;
  EXPECT_EQ(pool.init(memory, 0), Errno{EINVAL});
  EXPECT_EQ(pool.init(memory, kSpanBytes), Errno{EINVAL});
  ASSERT_TRUE(pool.init(memory, kSpanBytes + 1024).ok());
  EXPECT_EQ(pool.take(), 0u);
  EXPECT_EQ(pool.take(), kNoSpan);
}

TEST(SpanPool, AddressSpaceRefusedEndsGrowthAndIsAskedAgain) {
  FakeMemory memory;
  memory.refuse.map_from = 2;
  SpanPool pool;
  ASSERT_TRUE(pool.init(memory, std::size_t{64} << 20).ok());
  std::vector<std::uint32_t> spans;
  for (std::uint32_t s = pool.take(); s != kNoSpan; s = pool.take()) spans.push_back(s);
  EXPECT_EQ(spans.size(), 64u);  // the first 4 MiB
  pool.give(spans.back());
  EXPECT_EQ(pool.take(), spans.back());
  memory.refuse.map_from = 0;
  EXPECT_NE(pool.take(), kNoSpan);
}

TEST(SpanPool, ASmallerStepIsTakenWhenALargeOneIsRefused) {
  FakeMemory memory;
  SpanPool pool;
  ASSERT_TRUE(pool.init(memory, std::size_t{512} << 20).ok());
  std::size_t taken = 0;
  while (memory.mapped_bytes() < std::size_t{40} << 20) {
    ASSERT_NE(pool.take(), kNoSpan);
    ++taken;
  }
  const std::size_t before = memory.mapped_bytes();
  memory.refuse.map = memory.maps() + 1;
  while (taken * kSpanBytes <= before) {
    ASSERT_NE(pool.take(), kNoSpan);
    ++taken;
  }
  EXPECT_EQ(memory.mapped_bytes() - before, std::size_t{4} << 20);  // 8 MiB were wanted
}

TEST(SpanPool, MemoryRefusedIsNoSpan) {
  FakeMemory memory;
  memory.refuse.populate = 3;
  SpanPool pool;
  ASSERT_TRUE(pool.init(memory, std::size_t{4} << 20).ok());
  EXPECT_NE(pool.take(), kNoSpan);
  EXPECT_NE(pool.take(), kNoSpan);
  EXPECT_EQ(pool.take(), kNoSpan);
  EXPECT_EQ(pool.held_spans(), 2u);
  EXPECT_NE(pool.take(), kNoSpan);  // the refused span, tried again
  EXPECT_EQ(pool.held_spans(), 3u);
}

TEST(SpanPool, WorksWithoutPopulate) {
  FakeMemory memory;
  memory.refuse.old_kernel = true;
  SpanPool pool;
  ASSERT_TRUE(pool.init(memory, std::size_t{8} << 20).ok());
  for (int i = 0; i < 100; ++i) ASSERT_NE(pool.take(), kNoSpan);
  EXPECT_EQ(memory.populates(), 0);
}

class EmptiedSpans : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(pool_.init(memory_, std::size_t{32} << 20).ok());
    for (int i = 0; i < 200; ++i) spans_.push_back(pool_.take());
  }
  void give_all() {
    for (const std::uint32_t s : spans_) pool_.give(s);
  }
  FakeMemory memory_;
  SpanPool pool_;
  std::vector<std::uint32_t> spans_;
};

TEST_F(EmptiedSpans, AreGivenBackInBatches) {
  for (std::uint32_t i = 0; i < SpanPool::kReserveSpans + SpanPool::kBatchSpans - 1; ++i) {
    pool_.give(spans_[i]);
  }
  EXPECT_EQ(memory_.discards(), 0);
  EXPECT_EQ(pool_.held_spans(), 200u);  // empty, but they still have memory: counted
  pool_.give(spans_[100]);
  EXPECT_EQ(memory_.discards(), 1);
  EXPECT_EQ(memory_.discarded_bytes(), SpanPool::kBatchSpans * kSpanBytes);
  EXPECT_EQ(pool_.warm_spans(), SpanPool::kReserveSpans);
  EXPECT_EQ(pool_.held_spans(), 200u - SpanPool::kBatchSpans);
  EXPECT_TRUE(memory_.untouched());
}

TEST_F(EmptiedSpans, TheReserveIsTakenFirstThenTheCold) {
  give_all();
  const int populated = memory_.populates();
  const std::size_t warm = pool_.warm_spans();
  for (std::size_t i = 0; i < warm; ++i) EXPECT_NE(pool_.take(), kNoSpan);
  EXPECT_EQ(memory_.populates(), populated);  // they had memory
  const std::size_t mapped = memory_.mapped_bytes();
  for (std::size_t i = warm; i < 200; ++i) EXPECT_LT(pool_.take(), 200u);
  EXPECT_EQ(memory_.mapped_bytes(), mapped);  // no new address space
  EXPECT_TRUE(memory_.untouched());
}

TEST_F(EmptiedSpans, TrimKeepsWhatItIsTold) {
  give_all();
  (void)pool_.trim(5);
  EXPECT_EQ(pool_.held_spans(), 5u);
  EXPECT_EQ(pool_.trim(0), 5 * kSpanBytes);
  EXPECT_EQ(pool_.trim(0), 0u);
  EXPECT_EQ(pool_.held_spans(), 0u);
  EXPECT_EQ(memory_.discarded_bytes(), 200 * kSpanBytes);
  EXPECT_TRUE(memory_.untouched());
}

TEST_F(EmptiedSpans, ARefusedDiscardKeepsThemAndIsNotRepeatedAtOnce) {
  memory_.refuse.discard = 1;
  for (std::uint32_t i = 0; i < SpanPool::kReserveSpans + SpanPool::kBatchSpans; ++i) {
    pool_.give(spans_[2 * i]);  // no two adjacent: as many ranges as spans
  }
  EXPECT_EQ(memory_.discards(), 1);
  EXPECT_EQ(memory_.discarded_bytes(), SpanPool::kBatchSpans / 2 * kSpanBytes);
  EXPECT_EQ(pool_.held_spans(), 200u - SpanPool::kBatchSpans / 2);
  pool_.give(spans_[1]);
  EXPECT_EQ(memory_.discards(), 1);
  for (std::uint32_t i = 1; i < SpanPool::kBatchSpans; ++i) pool_.give(spans_[2 * i + 1]);
  EXPECT_EQ(memory_.discards(), 2);
  EXPECT_TRUE(memory_.untouched());
}

// A place that is being written to: nobody may copy it, or clone its memory, before commit().
class PlaceInFlight : public ::testing::Test {
 protected:
  static constexpr unsigned kClass = 40;
  void SetUp() override {
    ASSERT_TRUE(spans_.init(memory_, std::size_t{8} << 20).ok());
    // Two spans and one place in the third; then most of the first two are free again.
    const std::uint32_t objects = kSizeClassInfo[kClass].objects;
    std::vector<SlotId> slots;
    for (std::uint32_t i = 0; i < 2 * objects; ++i) {
      slots.push_back(heap_.reserve(kClass, 100));
      heap_.commit(slots.back());
    }
    for (std::uint32_t i = 0; i < 2 * objects; i += i % objects == 0 ? 2 : 1) {
      ASSERT_TRUE(heap_.release(slots[i], 100));
    }
    in_flight_ = heap_.reserve(kClass, 100);
    ASSERT_NE(in_flight_.v, 0u);
  }
  FakeMemory memory_;
  SpanPool spans_;
  SlotHeap heap_{spans_};
  SlotId in_flight_;
};

TEST_F(PlaceInFlight, KeepsCompactionOut) {
  ASSERT_EQ(heap_.reclaimable_spans(), 1u);
  EXPECT_EQ(heap_.isolate_sparsest(kClass), kNoSpan);
  heap_.commit(in_flight_);
  const std::uint32_t span = heap_.isolate_sparsest(kClass);
  ASSERT_NE(span, kNoSpan);
  EXPECT_FALSE(heap_.settle(span));
}

TEST_F(PlaceInFlight, KeepsForkWaiting) {
  std::atomic<int> progress{0};
  std::thread forker([&] {
    progress = 1;
    heap_.fork_prepare();
    progress = 2;
    heap_.fork_done(false);
  });
  while (progress == 0) std::this_thread::yield();
  for (int i = 0; i < 2000; ++i) std::this_thread::yield();
  EXPECT_EQ(progress, 1);
  heap_.commit(in_flight_);
  forker.join();
  EXPECT_EQ(progress, 2);
}

}  // namespace
}  // namespace heaptier
