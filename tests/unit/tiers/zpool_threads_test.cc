// The compressed tier under many threads: stores, fetches and drops while compaction moves what
// they own and while the process forks.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "runtime/bootstrap_heap.h"
#include "runtime/tiers/zpool.h"
#include "tests/unit/tiers/fake_memory.h"
#include "tests/unit/tiers/page_data.h"

namespace heaptier {
namespace {

using testing::FakeMemory;
using testing::fill_page;
using testing::mixed_kind;
using testing::Rng;

#if defined(__SANITIZE_THREAD__)
constexpr bool kUnderTsan = true;
constexpr int kSteps = 1500;
#else
constexpr bool kUnderTsan = false;
constexpr int kSteps = 8000;
#endif

struct Page {
  SpinLock lock;  // as the lock bit of a page's word
  SlotId slot;
  std::uint64_t seed = 0;
};

// The pages of all threads; compaction finds them by owner.
class Pages final : public SlotMover {
 public:
  explicit Pages(std::uint32_t count) : pages_(count) {}
  Page& operator[](std::size_t i) { return pages_[i]; }
  std::size_t size() const { return pages_.size(); }
  bool relocate(PageIndex owner, SlotId from, SlotId to) override {
    if (owner.v >= pages_.size()) return false;
    Page& page = pages_[owner.v];
    const SpinGuard guard(page.lock);
    if (page.slot != from) return false;
    page.slot = to;
    moved.fetch_add(1, std::memory_order_relaxed);
    return true;
  }
  std::atomic<std::size_t> moved{0};

 private:
  std::vector<Page> pages_;
};

using Bytes = std::array<unsigned char, kPageSize>;

// One random step on one page. false: the page came back wrong.
bool step(ZPool& pool, StoreWorkspace* ws, Pages& pages, std::uint32_t index, Rng& rng) {
  Bytes bytes;
  Bytes out;
  Page& page = pages[index];
  const SpinGuard guard(page.lock);
  if (page.slot.v == 0) {
    page.seed = rng.below(400);
    fill_page(bytes.data(), mixed_kind(page.seed), page.seed);
    SlotId slot;
    if (pool.store(ws, bytes.data(), {index}, &slot) == StoreOutcome::kStored) page.slot = slot;
    return true;
  }
  if (rng.below(3) == 0) {
    pool.drop(page.slot);
    page.slot = {};
    return true;
  }
  fill_page(bytes.data(), mixed_kind(page.seed), page.seed);
  pool.prefetch(page.slot);
  return pool.fetch(ws, page.slot, out.data()) == FetchOutcome::kFetched && out == bytes &&
         pool.checksum(page.slot) == page_checksum(bytes.data());
}

TEST(ZPoolThreads, StoreFetchDropWhileCompacting) {
  constexpr unsigned kThreads = 4;
  FakeMemory memory;
  const std::unique_ptr<ZPool> pool(new ZPool);
  ASSERT_TRUE(pool->init(memory, {.capacity_bytes = std::size_t{6} << 20}).ok());
  Pages pages(4000);  // more than fit: the pool is full at times
  std::atomic<unsigned> running{kThreads};
  std::atomic<std::size_t> wrong{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      StoreWorkspace* ws = pool->make_workspace();
      Rng rng(t + 1);
      for (int i = 0; i < kSteps; ++i) {
        const auto index = static_cast<std::uint32_t>(rng.below(pages.size()));
        if (!step(*pool, ws, pages, index, rng)) ++wrong;
      }
      pool->release_workspace(ws);
      --running;
    });
  }
  // Two compactions at once, and someone who reads the figures.
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&] {
      while (running != 0) {
        (void)pool->compact(pages);
        std::this_thread::yield();
      }
    });
  }
  threads.emplace_back([&] {
    while (running != 0) {
      (void)pool->usage();
      (void)pool->trim();
      const ZPoolFragmentation f = pool->fragmentation();
      if (f.unusable < 0 || f.unusable > 1) ++wrong;
      std::this_thread::yield();
    }
  });
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(wrong, 0u);
  EXPECT_EQ(pool->drops_refused(), 0u);

  std::size_t live = 0;
  StoreWorkspace* ws = pool->make_workspace();
  Bytes bytes;
  Bytes out;
  for (std::size_t i = 0; i < pages.size(); ++i) {
    if (pages[i].slot.v == 0) continue;
    ++live;
    fill_page(bytes.data(), mixed_kind(pages[i].seed), pages[i].seed);
    ASSERT_EQ(pool->fetch(ws, pages[i].slot, out.data()), FetchOutcome::kFetched);
    ASSERT_EQ(out, bytes);
  }
  EXPECT_EQ(pool->usage().slots, live);
  (void)pool->compact(pages);
  EXPECT_EQ(pool->fragmentation().reclaimable, 0u);
  for (std::size_t i = 0; i < pages.size(); ++i) {
    if (pages[i].slot.v != 0) pool->drop(pages[i].slot);
  }
  (void)pool->trim();
  EXPECT_EQ(pool->fragmentation().held, 0u);
  EXPECT_TRUE(memory.untouched());
  pool->release_workspace(ws);
}

// Slots of one page of content all over: one class, every thread on the same lock.
TEST(ZPoolThreads, OneClassContended) {
  constexpr unsigned kThreads = 4;
  FakeMemory memory;
  const std::unique_ptr<ZPool> pool(new ZPool);
  ASSERT_TRUE(pool->init(memory, {.capacity_bytes = std::size_t{64} << 20}).ok());
  std::vector<std::vector<SlotId>> slots(kThreads);
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      StoreWorkspace* ws = pool->make_workspace();
      Bytes bytes;
      fill_page(bytes.data(), testing::PageKind::kSparse, 3);
      for (int i = 0; i < kSteps; ++i) {
        SlotId slot;
        if (pool->store(ws, bytes.data(), {t}, &slot) == StoreOutcome::kStored) {
          slots[t].push_back(slot);
        }
        if (i % 3 == 2) {
          pool->drop(slots[t].front());
          slots[t].erase(slots[t].begin());
        }
      }
    });
  }
  for (std::thread& t : threads) t.join();
  std::vector<std::uint32_t> all;
  for (const auto& mine : slots) {
    for (const SlotId s : mine) all.push_back(s.v);
  }
  EXPECT_EQ(pool->usage().slots, all.size());
  std::sort(all.begin(), all.end());
  EXPECT_EQ(std::adjacent_find(all.begin(), all.end()), all.end());
  EXPECT_EQ(pool->drops_refused(), 0u);
}

// What the child checks: everything its own thread had stored is there, and every class works.
int child_verdict(ZPool& pool, StoreWorkspace* ws, Pages& pages, std::uint32_t first) {
  Bytes bytes;
  Bytes out;
  for (std::uint32_t i = first; i < pages.size(); ++i) {
    fill_page(bytes.data(), mixed_kind(pages[i].seed), pages[i].seed);
    if (pool.fetch(ws, pages[i].slot, out.data()) != FetchOutcome::kFetched) return 1;
    if (out != bytes) return 2;
  }
  for (std::uint32_t i = first; i < pages.size(); ++i) {
    SlotId slot;
    fill_page(bytes.data(), mixed_kind(pages[i].seed), pages[i].seed);
    if (pool.store(ws, bytes.data(), {i}, &slot) != StoreOutcome::kStored) return 3;
    pool.drop(pages[i].slot);
    if (pool.fetch(ws, slot, out.data()) != FetchOutcome::kFetched || out != bytes) return 4;
    pages[i].slot = slot;
  }
  if (pool.drops_refused() != 0) return 5;
  return 0;
}

TEST(ZPoolThreads, ForkWhileOthersStoreAndCompact) {
  if (kUnderTsan) GTEST_SKIP() << "ThreadSanitizer cannot follow a fork of a threaded program";
  constexpr unsigned kThreads = 3;
  constexpr std::uint32_t kOwn = 300;  // pages of the forking thread, after those of the others
  FakeMemory memory;
  const std::unique_ptr<ZPool> pool(new ZPool);
  ASSERT_TRUE(pool->init(memory, {.capacity_bytes = std::size_t{64} << 20}).ok());
  Pages pages(3000 + kOwn);
  StoreWorkspace* ws = pool->make_workspace();
  Bytes bytes;
  for (std::uint32_t i = 3000; i < pages.size(); ++i) {
    pages[i].seed = i % 19;  // none of the random ones
    fill_page(bytes.data(), mixed_kind(pages[i].seed), pages[i].seed);
    ASSERT_EQ(pool->store(ws, bytes.data(), {i}, &pages[i].slot), StoreOutcome::kStored);
  }
  std::atomic<bool> stop{false};
  std::atomic<std::size_t> wrong{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      StoreWorkspace* own = pool->make_workspace();
      Rng rng(t + 1);
      while (!stop) {
        if (!step(*pool, own, pages, static_cast<std::uint32_t>(rng.below(3000)), rng)) ++wrong;
      }
    });
  }
  // Moves only what it may: the pages above 3000 are read by the child without their locks.
  class OthersOnly final : public SlotMover {
   public:
    explicit OthersOnly(Pages& pages) : pages_(pages) {}
    bool relocate(PageIndex owner, SlotId from, SlotId to) override {
      return owner.v < 3000 && pages_.relocate(owner, from, to);
    }

   private:
    Pages& pages_;
  };
  OthersOnly mover(pages);
  threads.emplace_back([&] {
    while (!stop) {
      (void)pool->compact(mover);
      (void)pool->trim();
    }
  });
  for (int round = 0; round < 30; ++round) {
    pool->fork_prepare();
    memory.lock_for_fork();
    bootstrap::lock_for_fork();
    const pid_t child = fork();
    bootstrap::unlock_after_fork();
    memory.unlock_after_fork();
    pool->fork_done(child == 0);
    if (child == 0) {
      alarm(60);
      _exit(child_verdict(*pool, ws, pages, 3000));
    }
    ASSERT_GT(child, 0);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status) << " in round " << round;
    ASSERT_EQ(WEXITSTATUS(status), 0) << "in round " << round;
  }
  stop = true;
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(wrong, 0u);
  EXPECT_EQ(child_verdict(*pool, ws, pages, 3000), 0);
}

}  // namespace
}  // namespace heaptier
