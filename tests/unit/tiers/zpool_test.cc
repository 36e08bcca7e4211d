// The compressed tier as one thread sees it: what is stored comes back, what is damaged is noticed,
// what is empty is given back, and refusals of memory are answers.
#include "runtime/tiers/zpool.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "tests/unit/tiers/zpool_fixture.h"

namespace heaptier {
namespace {

using testing::FakeMemory;
using testing::fill_page;
using testing::kMiB;
using testing::mixed_page;
using testing::Page;
using testing::page_of_entropy;
using testing::PageKind;
using testing::Pool;
using testing::Rng;

class ZPoolByCodec : public ::testing::TestWithParam<CodecKind> {};

TEST_P(ZPoolByCodec, EveryKindOfPageComesBack) {
  Pool pool({.capacity_bytes = 64 * kMiB, .codec = GetParam()});
  std::vector<std::pair<SlotId, Page>> stored;
  for (std::uint64_t i = 0; i < 1000; ++i) {
    const Page page = mixed_page(i);
    stored.emplace_back(pool.store(page), page);
  }
  for (auto& [slot, page] : stored) {
    pool.zpool->prefetch(slot);
    EXPECT_TRUE(pool.holds(slot, page));
    EXPECT_TRUE(pool.holds(slot, page));  // fetching keeps the slot
    EXPECT_EQ(pool.zpool->checksum(slot), page_checksum(page.data()));
  }
}

TEST_P(ZPoolByCodec, ContentMadeToHurt) {
  Pool pool({.capacity_bytes = 64 * kMiB, .codec = GetParam(), .max_ratio_percent = 100});
  std::vector<Page> pages;
  pages.emplace_back();  // zeros
  pages.emplace_back().bytes.fill(0xff);
  for (std::size_t period = 2; period < 300; ++period) {  // every match offset
    Page& page = pages.emplace_back(page_of_entropy(period, period));
    for (std::size_t i = period; i < kPageSize; ++i) page.bytes[i] = page.bytes[i - period];
  }
  for (std::size_t at = 0; at < kPageSize; at += 97) pages.emplace_back().bytes[at] = 1;
  for (std::size_t text = 0; text < 3900; text += 61) pages.push_back(page_of_entropy(text, text));
  for (std::size_t tail = 1; tail < 64;
       ++tail) {  // entropy at the very end, where codecs end matches
    Page& page = pages.emplace_back();
    const Page noise = page_of_entropy(tail, tail);
    std::memcpy(page.data() + kPageSize - tail, noise.bytes.data(), tail);
  }
  for (Page& page : pages) {
    SlotId slot;
    const StoreOutcome outcome = pool.zpool->store(pool.ws, page.data(), {1}, &slot);
    ASSERT_EQ(outcome, StoreOutcome::kStored) << "page " << &page - pages.data();
    ASSERT_TRUE(pool.holds(slot, page)) << "page " << &page - pages.data();
  }
}

TEST_P(ZPoolByCodec, EveryClassAndItsBoundaries) {
  Pool pool({.capacity_bytes = 64 * kMiB, .codec = GetParam(), .max_ratio_percent = 100});
  std::set<unsigned> classes;
  std::vector<std::pair<SlotId, Page>> stored;
  std::size_t before = 0;
  for (std::size_t text = 0; text < kPageSize - 16; text += 3) {
    const Page page = page_of_entropy(text, text + 1);
    SlotId slot;
    Page copy = page;
    if (pool.zpool->store(pool.ws, copy.data(), {1}, &slot) != StoreOutcome::kStored) continue;
    stored.emplace_back(slot, page);
    const std::size_t payload = pool.zpool->usage().payload_bytes;
    classes.insert(size_class_for(payload - before + kObjectHeaderBytes));
    before = payload;
  }
  EXPECT_GE(classes.size(), kSizeClasses - 1);
  for (const auto& [slot, page] : stored) EXPECT_TRUE(pool.holds(slot, page));
}

TEST_P(ZPoolByCodec, IncompressiblePagesAreNotKept) {
  Pool pool({.capacity_bytes = 64 * kMiB, .codec = GetParam()});
  Page random;
  fill_page(random.data(), PageKind::kRandom, 1);
  SlotId slot{99};
  EXPECT_EQ(pool.zpool->store(pool.ws, random.data(), {1}, &slot), StoreOutcome::kIncompressible);
  EXPECT_EQ(slot.v, 99u);
  // The limit is 75 %: 3072 bytes.
  Page page = page_of_entropy(3200, 1);
  EXPECT_EQ(pool.zpool->store(pool.ws, page.data(), {1}, &slot), StoreOutcome::kIncompressible);
  page = page_of_entropy(2900, 1);
  EXPECT_EQ(pool.zpool->store(pool.ws, page.data(), {1}, &slot), StoreOutcome::kStored);
  EXPECT_LE(pool.zpool->usage().payload_bytes, 3072u);
  EXPECT_EQ(pool.zpool->usage().slots, 1u);
}

// Flips bits of each byte of the object in turn. Some flips do no harm (a match found at another
// place that reads the same, a bit of the last token that the codec ignores), but wrong content is
// never returned.
TEST_P(ZPoolByCodec, DamageAnywhereIsNoticed) {
  for (const PageKind kind : {PageKind::kText, PageKind::kJson, PageKind::kIntegers}) {
    Pool pool({.capacity_bytes = 8 * kMiB, .codec = GetParam()});
    Page page;
    fill_page(page.data(), kind, 4);
    const SlotId slot = pool.store(page, 0x12345);
    ASSERT_EQ(slot, slot_id(0, 0));
    char* object = pool.memory.first_mapping();
    const std::size_t bytes = kObjectHeaderBytes + pool.zpool->usage().payload_bytes;
    std::size_t noticed = 0;
    for (std::size_t i = 0; i < bytes; ++i) {
      for (const int mask : {0x01, 0x80, 0xff}) {
        const char original = object[i];
        object[i] = static_cast<char>(object[i] ^ mask);
        Page out;
        if (pool.zpool->fetch(pool.ws, slot, out.data()) == FetchOutcome::kFetched) {
          ASSERT_EQ(out, page) << "byte " << i;
          ASSERT_GE(i, kObjectHeaderBytes) << "the header is sealed";
        } else {
          ++noticed;
        }
        object[i] = original;
      }
    }
    EXPECT_GT(noticed, 3 * bytes * 9 / 10);
    EXPECT_TRUE(pool.holds(slot, page));
  }
}

TEST_P(ZPoolByCodec, GarbageInThePlaceOfAnObject) {
  Pool pool({.capacity_bytes = 8 * kMiB, .codec = GetParam()});
  const SlotId slot = pool.store(mixed_page(1));
  char* object = pool.memory.first_mapping();
  const std::size_t bytes = kObjectHeaderBytes + pool.zpool->usage().payload_bytes;
  Rng rng(1);
  Page out;
  for (int round = 0; round < 2000; ++round) {
    // Sealed garbage too: the bounds alone must keep the codec inside the object.
    for (std::size_t i = 0; i < bytes; ++i) object[i] = static_cast<char>(rng.next());
    if (round % 2 == 0) {
      ObjectHeader header;
      std::memcpy(&header, object, sizeof header);
      header.set_seal(slot);
      std::memcpy(object, &header, sizeof header);
    }
    ASSERT_EQ(pool.zpool->fetch(pool.ws, slot, out.data()), FetchOutcome::kCorrupt);
  }
  pool.zpool->drop(slot);  // what its header says of its length does not matter
  EXPECT_EQ(pool.zpool->usage().slots, 0u);
  EXPECT_EQ(pool.zpool->usage().payload_bytes, 0u);
}

INSTANTIATE_TEST_SUITE_P(Codecs, ZPoolByCodec, ::testing::Values(CodecKind::kLz4, CodecKind::kZstd),
                         [](const auto& info) { return std::string(codec(info.param).name()); });

TEST(ZPool, RefusesConfigurationsItCannotHonour) {
  FakeMemory memory;
  const auto init = [&memory](const ZPoolConfig& config) {
    const std::unique_ptr<ZPool> pool(new ZPool);
    return pool->init(memory, config);
  };
  EXPECT_EQ(init({.capacity_bytes = 0}), Errno{EINVAL});
  EXPECT_EQ(init({.capacity_bytes = kSpanBytes}), Errno{EINVAL});
  EXPECT_EQ(init({.capacity_bytes = kMiB, .level = 1}), Errno{EINVAL});
  EXPECT_EQ(init({.capacity_bytes = kMiB, .codec = CodecKind::kZstd, .level = 23}), Errno{EINVAL});
  EXPECT_EQ(init({.capacity_bytes = kMiB, .max_ratio_percent = 0}), Errno{EINVAL});
  EXPECT_EQ(init({.capacity_bytes = kMiB, .max_ratio_percent = 101}), Errno{EINVAL});
  EXPECT_EQ(init({.capacity_bytes = kMiB}), kOk);
  EXPECT_EQ(memory.maps(), 0);
}

TEST(ZPool, ReachesAQuarterOfATebibyte) {
  FakeMemory memory;
  const std::unique_ptr<ZPool> pool(new ZPool);
  ASSERT_TRUE(pool->init(memory, {.capacity_bytes = std::size_t{1} << 50}).ok());
  EXPECT_EQ(pool->usage().capacity_bytes, std::size_t{256} << 30);
  EXPECT_LT(pool->usage().resident_bytes, kMiB);
}

TEST(ZPool, SlotsAreUniqueAndNeverZero) {
  Pool pool({.capacity_bytes = 64 * kMiB});
  std::set<std::uint32_t> seen;
  for (std::uint64_t i = 0; i < 5000; ++i) {
    const SlotId slot = pool.store(mixed_page(i % 300));
    EXPECT_NE(slot.v, 0u);
    EXPECT_TRUE(seen.insert(slot.v).second);
  }
  EXPECT_EQ(pool.zpool->usage().slots, 5000u);
}

TEST(ZPool, ForeignSlotsAreCorruptAndRefused) {
  Pool pool({.capacity_bytes = 8 * kMiB});
  const Page page = mixed_page(1);
  const SlotId slot = pool.store(page);
  Page out;
  std::uint64_t refused = 0;
  for (const SlotId bad : {SlotId{0}, SlotId{slot.v + 1}, SlotId{1024}, SlotId{1025}, SlotId{1023},
                           slot_id(63, 0), slot_id(100'000, 3), SlotId{UINT32_MAX}}) {
    EXPECT_EQ(pool.zpool->fetch(pool.ws, bad, out.data()), FetchOutcome::kCorrupt) << bad.v;
    pool.zpool->prefetch(bad);
    (void)pool.zpool->checksum(bad);
    pool.zpool->drop(bad);
    EXPECT_EQ(pool.zpool->drops_refused(), ++refused) << bad.v;
  }
  EXPECT_TRUE(pool.holds(slot, page));
  pool.zpool->drop(slot);
  pool.zpool->drop(slot);  // twice
  EXPECT_EQ(pool.zpool->drops_refused(), ++refused);
  EXPECT_EQ(pool.zpool->usage().slots, 0u);
}

TEST(ZPool, UsageAddsUp) {
  Pool pool({.capacity_bytes = 64 * kMiB});
  const std::size_t empty = pool.zpool->usage().resident_bytes;
  std::vector<SlotId> slots;
  for (std::uint64_t i = 0; i < 3000; ++i) slots.push_back(pool.store(mixed_page(i)));
  const StoreUsage full = pool.zpool->usage();
  EXPECT_EQ(full.slots, 3000u);
  EXPECT_EQ(full.capacity_bytes, 64 * kMiB);
  EXPECT_GT(full.resident_bytes, full.payload_bytes);
  const ZPoolFragmentation f = pool.zpool->fragmentation();
  EXPECT_EQ(f.used % kObjectAlign, 0u);
  EXPECT_GE(f.used, full.payload_bytes + 3000 * kObjectHeaderBytes);
  EXPECT_LE(f.used, f.held);
  EXPECT_EQ(f.reclaimable, 0u);
  EXPECT_LE(f.held, full.resident_bytes);
  for (const SlotId slot : slots) pool.zpool->drop(slot);
  const StoreUsage dropped = pool.zpool->usage();
  EXPECT_EQ(dropped.slots, 0u);
  EXPECT_EQ(dropped.payload_bytes, 0u);
  EXPECT_LE(dropped.resident_bytes,
            empty + (SpanPool::kReserveSpans + SpanPool::kBatchSpans) * (kSpanBytes + 256));
  EXPECT_GT(pool.zpool->trim(), 0u);
  EXPECT_EQ(pool.zpool->fragmentation().held, 0u);
  EXPECT_LE(pool.zpool->usage().resident_bytes, empty + 100'000);  // bookkeeping stays
  EXPECT_TRUE(pool.memory.untouched());
}

// Slack, tails, headers and partly filled spans of a pool of realistic pages.
TEST(ZPool, OverheadIsSmall) {
  Pool pool({.capacity_bytes = 256 * kMiB});
  for (std::uint64_t i = 0; i < 20'000; ++i) (void)pool.store(mixed_page(i));
  const StoreUsage u = pool.zpool->usage();
  // Beside what grows with the content, one partly filled span for each of some 40 classes in use.
  EXPECT_LT(static_cast<double>(u.resident_bytes),
            1.03 * static_cast<double>(u.payload_bytes) + kSizeClasses / 2 * kSpanBytes);
}

TEST(ZPool, FullThenRoomAgain) {
  constexpr std::size_t kCapacity = 16 * kMiB;
  Pool pool({.capacity_bytes = kCapacity});
  const std::size_t workspace =
      pool.zpool->usage().resident_bytes - sizeof(ZPool);  // of one thread, outside the capacity
  std::vector<std::pair<SlotId, Page>> stored;
  std::size_t full = 0;
  for (std::uint64_t i = 0; full < 50; ++i) {
    Page page = mixed_page(i);
    SlotId slot;
    switch (pool.zpool->store(pool.ws, page.data(), {1}, &slot)) {
      case StoreOutcome::kStored:
        stored.emplace_back(slot, page);
        break;
      case StoreOutcome::kFull:
        ++full;
        break;
      case StoreOutcome::kIncompressible:
        FAIL();
    }
    EXPECT_LE(pool.zpool->usage().resident_bytes, kCapacity + workspace);
  }
  // A full pool is full because its places are taken: of the last span of each class some are not.
  EXPECT_GT(static_cast<double>(pool.zpool->fragmentation().used), 0.88 * kCapacity);
  for (const auto& [slot, page] : stored) ASSERT_TRUE(pool.holds(slot, page));
  for (std::size_t i = 0; i < stored.size(); i += 2) pool.zpool->drop(stored[i].first);
  for (std::size_t i = 0; i < stored.size(); i += 2) {
    SlotId slot;
    if (pool.zpool->store(pool.ws, stored[i].second.data(), {1}, &slot) == StoreOutcome::kStored) {
      stored[i].first = slot;
    } else {
      stored[i].first = {};
    }
  }
  for (const auto& [slot, page] : stored) {
    ASSERT_TRUE(slot.v == 0 || pool.holds(slot, page));
  }
}

TEST(ZPool, EveryRefusalOfMemoryLeavesWhatIsStored) {
  enum Kind { kMap, kPopulate, kDiscard, kKinds };
  std::vector<Page>
      pages;  // 21 fit a span: 1500 of them need 72, more than the first step of growth
  for (std::uint64_t i = 0; i < 20; ++i) pages.push_back(page_of_entropy(2950, i));
  for (int kind = 0; kind < kKinds; ++kind) {
    bool refused = true;
    for (int nth = 1; refused; ++nth) {
      ASSERT_LT(nth, 400);
      Pool pool({.capacity_bytes = 8 * kMiB});
      if (kind == kMap) pool.memory.refuse.map = nth;
      if (kind == kPopulate) pool.memory.refuse.populate = nth;
      if (kind == kDiscard) pool.memory.refuse.discard = nth;
      std::vector<std::pair<SlotId, std::uint64_t>> stored;
      std::size_t full = 0;
      for (std::uint64_t i = 0; i < 1500; ++i) {
        Page page = pages[i % pages.size()];
        SlotId slot;
        const StoreOutcome outcome = pool.zpool->store(pool.ws, page.data(), {1}, &slot);
        ASSERT_NE(outcome, StoreOutcome::kIncompressible);
        full += outcome == StoreOutcome::kFull;
        if (outcome == StoreOutcome::kStored) stored.emplace_back(slot, i % pages.size());
      }
      ASSERT_LE(full, 2u);  // a refusal costs at most the page that met it
      ASSERT_EQ(pool.zpool->usage().slots, stored.size());
      for (const auto& [slot, i] : stored) {
        ASSERT_TRUE(pool.holds(slot, pages[i]));
      }
      for (const auto& [slot, i] : stored) pool.zpool->drop(slot);
      ASSERT_EQ(pool.zpool->usage().slots, 0u);
      (void)pool.zpool->trim();
      (void)pool.zpool->trim();
      ASSERT_EQ(pool.zpool->fragmentation().held, 0u);
      ASSERT_TRUE(pool.memory.untouched());
      refused = (kind == kMap        ? pool.memory.maps()
                 : kind == kPopulate ? pool.memory.populates()
                                     : pool.memory.discards()) >= nth;
    }
  }
}

}  // namespace
}  // namespace heaptier
