// Moving by hand in the default chain: one tier of memory nodes, and the store. What asks for more
// than one node gives is tests/vm/hand_test.cc.
#include <liburing.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <heaptier/heaptier.hpp>
#include <random>
#include <string>
#include <thread>

#include "tests/support/managed.h"
#include "tests/support/process.h"

namespace heaptier::test {
namespace {

constexpr int kDram = 0;
constexpr int kStore = 1;

Bytes bytes(const Area& area) {
  return {reinterpret_cast<const std::byte*>(area.data()), area.size()};
}

std::vector<void*> pages_in(const Area& area) {
  std::vector<void*> list;
  for (std::size_t at = 0; at < area.size(); at += kPage) list.push_back(area.at(at) + at % 4000);
  return list;
}

std::vector<int> move_all(const std::vector<void*>& pages, int tier) {
  const std::vector<int> tiers(pages.size(), tier);
  std::vector<int> status(pages.size(), 12345);
  EXPECT_GE(heaptier::move(pages, tiers, status), 0);
  return status;
}

std::size_t count_of(const std::vector<int>& list, int value) {
  return static_cast<std::size_t>(std::count(list.begin(), list.end(), value));
}

std::vector<int> where_are(const std::vector<void*>& pages) {
  std::vector<int> status(pages.size(), 12345);
  EXPECT_EQ(heaptier::where(std::span<void* const>(pages), status), static_cast<int>(pages.size()));
  return status;
}

// Random bytes: nothing for a store.
void fill_with_noise(unsigned char* at, std::size_t size) {
  std::mt19937_64 random(5);
  for (std::size_t i = 0; i < size; i += 8) {
    const std::uint64_t word = random();
    std::memcpy(at + i, &word, 8);
  }
}

#define TIERED_ONLY() \
  if (!tiered()) GTEST_SKIP() << "not under heaptier"

TEST(Hand, NamesItsTiers) {
  if (!preloaded()) {
    EXPECT_EQ(heaptier::tiers(), -ENOTSUP);
    EXPECT_EQ(heaptier::tier_named("dram"), -ENOTSUP);
    return;
  }
  EXPECT_EQ(heaptier::tiers(), 2);
  EXPECT_EQ(heaptier::tier_named("dram"), kDram);
  EXPECT_EQ(heaptier::tier_named("zpool"), kStore);
  EXPECT_EQ(heaptier::tier_named("moon"), -EINVAL);
  const auto* const api = detail::api();
  char text[8] = "untouch";
  EXPECT_EQ(api->tier_name(1, nullptr, 0), 5);
  EXPECT_EQ(api->tier_name(1, text, 3), 5);
  EXPECT_STREQ(text, "zp");
  EXPECT_EQ(api->tier_name(1, nullptr, 3), -EINVAL);
  for (const int none : {-1, 2, INT_MAX, INT_MIN}) {
    EXPECT_EQ(api->tier_name(none, text, sizeof text), -EINVAL) << none;
  }
}

TEST(Hand, ToTheStoreAndBack) {
  TIERED_ONLY();
  Area area(4 * kPageblock, 41);
  const auto list = pages_in(area);
  for (int round = 0; round < 3; ++round) {
    EXPECT_EQ(count_of(move_all(list, kStore), kStore), list.size());
    EXPECT_EQ(count_of(where_are(list), kStore), list.size());
    EXPECT_EQ(count_of(move_all(list, kDram), kDram), list.size());
    EXPECT_TRUE(area.holds());
  }
  note_away(static_cast<long>(list.size()));
}

TEST(Hand, EveryPageHasAStatusOfItsOwn) {
  TIERED_ONLY();
  Area area(kPageblock, 42);
  Area held(kPageblock, 43);
  Area locked(kPageblock, 44);
  Area noise(kPageblock, 45);
  Area lent(kPageblock, 46);
  fill_with_noise(noise.data(), noise.size());
  ASSERT_EQ(mlock(locked.data(), kPage), 0);
  const Pin pin(bytes(held));
  ASSERT_TRUE(pin);
  auto* const untouched = static_cast<unsigned char*>(std::aligned_alloc(kPageblock, kPageblock));
  ASSERT_EQ(madvise(untouched, kPageblock, MADV_DONTNEED), 0);
  std::memset(area.at(7 * kPage), 0, kPage);
  io_uring ring{};
  const iovec registered{lent.at(kPage), kPage};
  const bool ring_made = io_uring_queue_init(4, &ring, 0) == 0;
  const bool lends = ring_made && io_uring_register_buffers(&ring, &registered, 1) == 0;
  int local = 0;
  Heap unmovable(HEAPTIER_HEAP_UNMOVABLE);
  void* const fixed = unmovable.allocate(100);
  std::memset(fixed, 1, 100);
  const std::vector<void*> list = {area.at(0),     area.at(7 * kPage), held.at(0), locked.at(0),
                                   noise.at(100),  untouched,          &local,     nullptr,
                                   area.at(kPage), lent.at(kPage),     area.at(0), fixed};
  EXPECT_EQ(move_all(list, kStore),
            (std::vector<int>{kStore, kStore, -EPERM, -EPERM, -EFBIG, -ENOENT, -EINVAL, -EINVAL,
                              kStore, lends ? -EBUSY : kStore, kStore, -EINVAL}));
  for (const int none : {-1, 2, 1000, INT_MIN}) {
    EXPECT_EQ(count_of(move_all({area.at(0), area.at(3 * kPage)}, none), -EINVAL), 2u);
  }
  std::vector<int> status(list.size());
  EXPECT_EQ(heaptier::where(std::span<void* const>(list), status), 8);
  EXPECT_EQ(status[2], kDram);
  EXPECT_EQ(status[4], kDram);
  EXPECT_EQ(status[5], -ENOENT);
  EXPECT_EQ(status[6], -EINVAL);
  EXPECT_EQ(move_all({held.at(0), locked.at(0), area.at(0)}, kDram), std::vector<int>(3, kDram));
  EXPECT_EQ(first_nonzero(area.at(7 * kPage), kPage), kPage);
  EXPECT_TRUE(area.holds_outside(7 * kPage, 8 * kPage));
  for (const Area* each : {&held, &locked, &lent}) EXPECT_TRUE(each->holds());
  if (ring_made) io_uring_queue_exit(&ring);
  munlock(locked.data(), kPage);
  std::free(untouched);
  Heap::release(fixed);
  note_away(3);
}

TEST(Hand, BatchesInAnyOrderWithRepeats) {
  TIERED_ONLY();
  Area area(3 * kPageblock, 47);
  std::mt19937 random(9);
  for (int round = 0; round < 20; ++round) {
    std::vector<void*> list(1 + random() % 900);
    std::vector<int> tiers(list.size());
    for (std::size_t i = 0; i < list.size(); ++i) {
      list[i] = area.at(random() % area.size());
      tiers[i] = static_cast<int>(random() % 2);
    }
    std::vector<int> status(list.size(), 12345);
    EXPECT_GT(heaptier::move(list, tiers, status), 0);
    // Each was there when its turn was over; the last word on a page is where it is.
    for (std::size_t i = 0; i < list.size(); ++i) ASSERT_EQ(status[i], tiers[i]) << i;
  }
  EXPECT_TRUE(area.holds());
  note_away(1);
}

// The caller's own arrays lie in the memory that is moved.
TEST(Hand, ArraysThatAreAwayThemselves) {
  TIERED_ONLY();
  constexpr std::size_t kCount = 1500;
  Area area(kPageblock, 48);
  auto* const arrays = static_cast<unsigned char*>(std::aligned_alloc(kPageblock, kPageblock));
  auto** const pages = reinterpret_cast<void**>(arrays);
  auto* const tiers = reinterpret_cast<int*>(arrays + 64 * kPage);
  auto* const status = reinterpret_cast<int*>(arrays + 128 * kPage);
  for (std::size_t i = 0; i < kCount; ++i) {
    unsigned char* const base = i % 3 == 0 ? arrays : area.data();
    pages[i] = base + i * 7919 % 512 * kPage;
    tiers[i] = kStore;
    status[i] = 12345;
  }
  std::memset(arrays + 200 * kPage, 1, kPageblock - 200 * kPage);
  shove(arrays, kPageblock);
  const int n = detail::api()->move(pages, tiers, status, kCount, 0);
  EXPECT_GT(n, static_cast<int>(kCount / 3));
  for (std::size_t i = 0; i < kCount; ++i) {
    ASSERT_EQ(tiers[i], kStore) << i;
    ASSERT_TRUE(status[i] == kStore || status[i] == -ENOENT || status[i] == -EAGAIN)
        << i << ": " << status[i];
  }
  EXPECT_TRUE(area.holds());
  std::free(arrays);
}

TEST(Hand, NonsenseIsRefusedAndDoesNothing) {
  TIERED_ONLY();
  const auto& api = *detail::api();
  Area area(kPageblock, 49);
  void* pages[] = {area.data()};
  const int tiers[] = {kStore};
  int status[] = {12345};
  errno = 77;
  EXPECT_EQ(api.move(nullptr, nullptr, nullptr, 0, 0), 0);
  EXPECT_EQ(api.move(nullptr, tiers, status, 1, 0), -EINVAL);
  EXPECT_EQ(api.move(pages, tiers, nullptr, 1, 0), -EINVAL);
  EXPECT_EQ(api.move(pages, tiers, status, 1, 2), -EINVAL);
  EXPECT_EQ(api.move(pages, tiers, status, 1, ~0u), -EINVAL);
  EXPECT_EQ(api.move(pages, tiers, status, ~std::size_t{0}, 0), -EINVAL);
  EXPECT_EQ(api.move(pages, tiers, status, std::size_t{1} << 31, 0), -EINVAL);
  EXPECT_EQ(status[0], 12345);
  auto* const top = reinterpret_cast<void*>(~std::uintptr_t{0});
  int nodes[4];
  for (void* const p : {top, static_cast<void*>(nullptr), static_cast<void*>(nodes)}) {
    for (const std::size_t size : {std::size_t{1}, std::size_t{5000}, ~std::size_t{0}}) {
      EXPECT_EQ(api.move_lazy(p, size, 0), -EINVAL);
      EXPECT_EQ(api.advise(p, size, HEAPTIER_COLD), -EINVAL);
      EXPECT_EQ(api.advise(p, size, HEAPTIER_HOT), -EINVAL);
    }
  }
  EXPECT_EQ(api.move_lazy(area.data(), ~std::size_t{0}, 0), -EINVAL);
  EXPECT_EQ(api.move_lazy(area.data(), std::size_t{1} << 60, 0), -EINVAL);
  for (const int none : {-1, 1, 2, INT_MAX}) {
    EXPECT_EQ(api.move_lazy(area.data(), kPageblock, none), -EINVAL) << none;
  }
  EXPECT_EQ(api.move_lazy(area.data(), 0, 0), 0);
  EXPECT_EQ(api.move_lazy(area.at(1), 4094, 0), 0) << "no whole page";
  EXPECT_EQ(api.move_lazy(area.data(), kPageblock, 0), 0) << "there is nowhere else";
  EXPECT_EQ(api.nodes(top, 1, nodes), -EINVAL);
  EXPECT_EQ(api.nodes(area.data(), ~std::size_t{0}, nodes), -EINVAL);
  EXPECT_EQ(api.nodes(area.data(), 10, nullptr), -EINVAL);
  EXPECT_EQ(api.nodes(nullptr, 0, nullptr), 0);
  EXPECT_EQ(api.nodes(nodes, 1, nodes), 1);
  EXPECT_EQ(nodes[0], -EINVAL);
  EXPECT_EQ(api.advise(area.data(), 0, HEAPTIER_PIN), 0);
  EXPECT_EQ(api.advise(area.data(), 10, 99), -EINVAL);
  EXPECT_EQ(errno, 77);
  EXPECT_TRUE(area.holds());
}

TEST(Hand, NodesOfPages) {
  TIERED_ONLY();
  Area area(kPageblock, 50);
  std::vector<int> nodes(513, 12345);
  ASSERT_EQ(heaptier::nodes(bytes(area), nodes), 512);
  for (std::size_t i = 0; i < 512; ++i) ASSERT_TRUE(nodes[i] >= 0 && nodes[i] < 64) << nodes[i];
  EXPECT_EQ(nodes[512], 12345);
  const Bytes middle{reinterpret_cast<const std::byte*>(area.at(kPage - 1)), kPage + 2};
  EXPECT_EQ(pages_spanned(middle), 3u);
  EXPECT_EQ(heaptier::nodes(middle, nodes), 3);
  ASSERT_TRUE(put_at(area.at(4 * kPage), kPage, Place::kStored));
  ASSERT_EQ(heaptier::nodes(bytes(area), nodes), 512);
  EXPECT_EQ(nodes[4], HEAPTIER_NODE_STORED);
  EXPECT_EQ(heaptier::nodes(bytes(area), std::span(nodes).first(511)), -EINVAL) << "no room";
  EXPECT_TRUE(area.holds());
}

TEST(Hand, ColdAndHot) {
  TIERED_ONLY();
  Area area(kPageblock, 51);
  EXPECT_EQ(heaptier::advise(bytes(area), HEAPTIER_COLD), 512);
  EXPECT_EQ(places_of(area.data(), area.size()), std::string(512, 's'));
  EXPECT_EQ(heaptier::advise(bytes(area), HEAPTIER_HOT), 512);
  EXPECT_TRUE(area.holds());
  note_away(512);
}

TEST(Hand, ThreadsAskWhileOthersWriteFreeAndFork) {
  TIERED_ONLY();
  constexpr std::size_t kWriters = 4;
  std::atomic<bool> stop{false};
  std::atomic<unsigned char*> shown[kWriters] = {};
  std::atomic<long> moved{0};
  std::vector<std::thread> threads;
  for (std::size_t w = 0; w < kWriters; ++w) {
    threads.emplace_back([&, w] {
      for (std::uint64_t round = 0; !stop; ++round) {
        Area own(kPageblock, 1000 * w + round);
        shown[w] = own.data();
        for (int i = 0; i < 8 && !stop; ++i) {
          ASSERT_TRUE(own.holds()) << "writer " << w << " round " << round;
          fill(own.at(17 * kPage), kPage, own.seed(), 17 * kPage);
        }
        ASSERT_TRUE(own.holds());
      }
    });
  }
  for (unsigned m = 0; m < 8; ++m) {
    threads.emplace_back([&, m] {
      std::minstd_rand random(m);
      std::vector<void*> list(300);
      std::vector<int> tiers(list.size());
      std::vector<int> status(list.size());
      std::vector<int> nodes(600);
      while (!stop) {
        auto* const base = shown[random() % kWriters].load();
        if (base == nullptr) continue;
        const Bytes part{reinterpret_cast<std::byte*>(base), kPageblock};
        for (std::size_t i = 0; i < list.size(); ++i) {
          list[i] = base + random() % kPageblock;
          tiers[i] = static_cast<int>(random() % 2);
        }
        moved += heaptier::move(list, tiers, status);
        for (const int s : status) {
          ASSERT_TRUE(s == kDram || s == kStore || s == -EAGAIN || s == -ENOENT || s == -EBUSY ||
                      s == -ENOMEM || s == -EINVAL || s == -EFBIG)
              << s;
        }
        ASSERT_EQ(heaptier::nodes(part, nodes), 512);
        ASSERT_EQ(heaptier::move_lazy(part, kDram), 0);
      }
    });
  }
  for (int i = 0; i < 12; ++i) {
    Area own(kPageblock, 5000);
    (void)move_all({own.at(0), own.at(9 * kPage)}, kStore);
    const Ended child = in_child(
        [&] {
          // The engine is up again in the child, and serves.
          void* page = own.at(20 * kPage);
          const int tier = kStore;
          int status = 0;
          if (detail::api()->move(&page, &tier, &status, 1, 0) < 0) return 1;
          return first_wrong(own.data(), own.size(), own.seed()) == own.size() ? 0 : 2;
        },
        60);
    EXPECT_TRUE(exited(child, 0)) << i;
    EXPECT_TRUE(own.holds());
  }
  for (int ms = 0; moved <= 1000 && ms < 60000; ++ms) usleep(1000);
  stop = true;
  for (std::thread& t : threads) t.join();
  EXPECT_GT(moved.load(), 1000);
  note_away(moved.load());
}

// Asked as late as a program can ask: from a destructor at exit.
struct AsksAtExit {
  Area* area = nullptr;
  ~AsksAtExit() {
    if (area == nullptr) return;
    void* page = area->at(5 * kPage);
    int tier = kStore;
    int status = 0;
    int node = 0;
    const int n = detail::api()->move(&page, &tier, &status, 1, 0);
    const bool there = n == 1 && status == kStore && detail::api()->nodes(page, 1, &node) == 1;
    const bool right = area->holds(0, area->size());
    _exit(there && right ? 0 : 1);
  }
};

HEAPTIER_ROLE(asks_at_exit) {
  if (wake() != 0) return 1;
  static AsksAtExit late;
  late.area = new Area(kPageblock, 52);
  return 3;  // unless the destructor says otherwise
}

// Before anything has woken the engine, and with none to wake.
HEAPTIER_ROLE(asks_while_dormant) {
  Area area(kPageblock, 53);
  if (heaptier::state() != 0) return 1;
  std::vector<int> nodes(512);
  if (heaptier::nodes(bytes(area), nodes) != 512 || nodes[3] < 0) return 2;
  if (heaptier::state() != 0) return 3;
  const auto list = pages_in(area);
  if (count_of(where_are(list), kDram) != list.size()) return 4;
  if (count_of(move_all(list, kStore), kStore) != list.size()) return 5;
  if (heaptier::state() != 1) return 6;
  return area.holds() ? 0 : 7;
}

HEAPTIER_ROLE(asks_for_nothing) {
  Area area(kPageblock, 54);
  void* page = area.data();
  const int tier = 0;
  int status = 12345;
  int node = 0;
  const auto& api = *detail::api();
  for (const int answer :
       {api.tiers(), api.tier_name(0, nullptr, 0), api.move(&page, &tier, &status, 1, 0),
        api.move(&page, nullptr, &status, 1, 0), api.move_lazy(page, kPageblock, 0),
        api.nodes(page, 1, &node)}) {
    if (answer != -ENOTSUP) return 1;
  }
  (void)api.advise(page, kPageblock, HEAPTIER_COLD);
  (void)api.advise(page, kPageblock, HEAPTIER_HOT);
  return status == 12345 && area.holds() ? 0 : 2;
}

// All that it takes it takes at once, and never asks again.
HEAPTIER_ROLE(one_allocation) {
  const std::string how = argv[1];
  constexpr std::size_t kBytes = 96 * kMiB;
  void* memory = nullptr;
  if (counter("wakeups") != 0) return 3;
  if (how == "malloc") memory = std::malloc(kBytes);
  if (how == "calloc") memory = std::calloc(kBytes / 8, 8);
  if (how == "realloc") memory = std::realloc(nullptr, kBytes);
  if (how == "aligned") memory = std::aligned_alloc(kPage, kBytes);
  if (how == "memalign" && posix_memalign(&memory, kPage, kBytes) != 0) return 4;
  if (how == "new") memory = ::operator new(kBytes);
  if (how == "new_aligned") memory = ::operator new (kBytes, std::align_val_t{256});
  return memory != nullptr && counter("wakeups") == 1 ? 0 : 1;
}

TEST(Hand, OneLargeAllocationWakes) {
  TIERED_ONLY();
  for (const char* how :
       {"malloc", "calloc", "realloc", "aligned", "memalign", "new", "new_aligned"}) {
    EXPECT_TRUE(exited(run_role("one_allocation", {how}, {"HEAPTIER_WAKE=64M"}), 0)) << how;
  }
}

TEST(Hand, AsLateAndAsEarlyAsCanBe) {
  TIERED_ONLY();
  EXPECT_TRUE(exited(run_role("asks_at_exit", {}, {}), 0));
  EXPECT_TRUE(exited(run_role("asks_while_dormant", {}, {"HEAPTIER_WAKE=1G"}), 0));
  EXPECT_TRUE(exited(run_role("asks_for_nothing", {}, {"HEAPTIER_POLICY=none"}), 0));
  EXPECT_TRUE(exited(run_role("asks_for_nothing", {}, {"HEAPTIER_DISABLE=1"}), 0));
}

}  // namespace
}  // namespace heaptier::test
