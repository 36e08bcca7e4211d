// jemalloc embedded, on a Space of real memory and with a sink that keeps notes. One process-wide
// heap, as in the library: the tests are written to run in any order.
#include "runtime/heap/jemalloc_heap.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "runtime/arena.h"
#include "runtime/heap/gates.h"
#include "runtime/heap/jemalloc_names.h"
#include "runtime/os/kernel_memory.h"

namespace heaptier {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr int kDontNeed = 4;

class NotingSink final : public ContentSink {
 public:
  bool drop(std::uintptr_t at, std::size_t bytes) override {
    EXPECT_EQ(at % kPageSize, 0u);
    EXPECT_EQ(bytes % kPageSize, 0u);
    dropped += bytes;
    if (refuse) return false;
    return kernel_memory_ops().advise(at, bytes, kDontNeed).ok();
  }
  void carved(std::size_t total) override { seen = total; }

  std::atomic<std::size_t> dropped{0};
  std::atomic<std::size_t> seen{0};
  std::atomic<bool> refuse{false};
};

NotingSink sink;

Space& space() {
  static Space s;
  static const bool started = [] {
    EXPECT_TRUE(s.init(kernel_memory_ops(), {.window_bytes = std::size_t{64} << 30}).ok());
    jemalloc::init(s, sink, kernel_memory_ops());
    return true;
  }();
  EXPECT_TRUE(started);
  return s;
}

BlockIndex block(const void* p) {
  return block_of(space().page_at(reinterpret_cast<std::uintptr_t>(p)));
}

// Every pageblock in use, counted by owner and mobility.
std::size_t blocks_of(Owner owner, Mobility mobility) {
  std::size_t n = 0;
  for (std::uint32_t b = 0; b < space().block_limit(); ++b) {
    n += space().owner_of({b}) == owner && space().mobility_of({b}) == mobility ? 1 : 0;
  }
  return n;
}

TEST(JemallocHeap, OrdinaryMemoryIsMovableFromTheFirstObjectOn) {
  space();
  for (std::size_t n : {1uL, 100uL, 20000uL, 300000uL, 5uL << 20}) {
    for (void* p : {je_malloc(n), je_calloc(1, n), je_memalign(4096, n)}) {
      ASSERT_NE(p, nullptr);
      ASSERT_TRUE(space().contains(p));
      EXPECT_EQ(space().owner_of(block(p)), Owner::kJemalloc);
      EXPECT_EQ(space().mobility_of(block(p)), Mobility::kMovable);
      EXPECT_TRUE(space().in_ordinary_zone(reinterpret_cast<std::uintptr_t>(p)));
      EXPECT_TRUE(gates.short_way_for(p));
      std::memset(p, 1, n);
      je_free(p);
    }
  }
  // Arena 0 as well, whose first extent jemalloc would take before anybody can set its hooks.
  void* p = je_mallocx(100, static_cast<int>(MALLOCX_ARENA(0)) | MALLOCX_TCACHE_NONE);
  EXPECT_EQ(space().mobility_of(block(p)), Mobility::kMovable);
  je_dallocx(p, MALLOCX_TCACHE_NONE);
}

TEST(JemallocHeap, MetadataIsUnmovableAndApart) {
  space();
  je_free(je_malloc(1));
  const jemalloc::Usage u = jemalloc::usage();
  EXPECT_GT(u.metadata, 0u);
  EXPECT_GT(blocks_of(Owner::kAllocatorMetadata, Mobility::kUnmovable), 0u);
  EXPECT_EQ(blocks_of(Owner::kAllocatorMetadata, Mobility::kMovable), 0u);
}

TEST(JemallocHeap, EveryThreadsArenaHasOurHooks) {
  space();
  std::vector<std::thread> threads;
  for (int t = 0; t < 16; ++t) {
    threads.emplace_back([] {
      for (std::size_t n = 1; n < (3u << 20); n *= 3) {
        void* p = je_malloc(n);
        EXPECT_EQ(space().owner_of(block(p)), Owner::kJemalloc);
        EXPECT_EQ(space().mobility_of(block(p)), Mobility::kMovable);
        je_free(p);
      }
    });
  }
  for (std::thread& t : threads) t.join();
}

TEST(JemallocHeap, WhatIsPurgedIsDroppedAndGoesBackToTheSpace) {
  space();
  jemalloc::purge();
  const std::size_t before = space().carved_bytes();
  const std::size_t dropped = sink.dropped;
  std::vector<void*> all;
  for (int i = 0; i < 2000; ++i) {
    all.push_back(je_malloc(50000));
    std::memset(all.back(), 1, 50000);
  }
  EXPECT_GE(space().carved_bytes(), before + 90 * kMiB);
  EXPECT_EQ(sink.seen, space().carved_bytes());
  for (void* p : all) je_free(p);
  jemalloc::purge();
  EXPECT_GE(sink.dropped, dropped + 90 * kMiB);
  EXPECT_LE(space().carved_bytes(), before + 2 * kMiB);
  EXPECT_EQ(jemalloc::usage().retained, 0u);
  // And what comes again reads as zero.
  auto* p = static_cast<unsigned char*>(je_calloc(1, 40 * kMiB));
  for (std::size_t i = 0; i < 40 * kMiB; i += 512) ASSERT_EQ(p[i], 0);
  je_free(p);
}

TEST(JemallocHeap, MemoryThatTheKernelKeepsStaysWithJemalloc) {
  space();
  auto* p = static_cast<unsigned char*>(je_malloc(8 * kMiB));
  std::memset(p, 7, 8 * kMiB);
  sink.refuse = true;  // as mlock would have it
  je_free(p);
  jemalloc::purge();
  EXPECT_EQ(space().owner_of(block(p)), Owner::kJemalloc);
  sink.refuse = false;
  auto* q = static_cast<unsigned char*>(je_calloc(1, 8 * kMiB));
  for (std::size_t i = 0; i < 8 * kMiB; i += 256) ASSERT_EQ(q[i], 0) << "known not to be zero";
  je_free(q);
  jemalloc::purge();
}

TEST(JemallocHeap, LargeObjectsGrowInPlace) {
  space();
  auto* p = static_cast<char*>(je_malloc(4 * kMiB));
  std::memset(p, 3, 4 * kMiB);
  int moved = 0;
  for (std::size_t n = 5; n <= 64; ++n) {
    auto* q = static_cast<char*>(je_realloc(p, n * kMiB));
    ASSERT_NE(q, nullptr);
    moved += q != p ? 1 : 0;
    p = q;
    ASSERT_EQ(p[4 * kMiB - 1], 3);
  }
  EXPECT_LE(moved, 1) << "nothing lies behind the newest object";
  je_free(p);
}

TEST(JemallocHeap, MobilitiesAreKeptApart) {
  space();
  for (const Mobility m : {Mobility::kUnmovable, Mobility::kReclaimable}) {
    std::set<void*> mine;
    for (int round = 0; round < 3; ++round) {
      std::vector<void*> now;
      for (int i = 0; i < 3000; ++i) {
        const std::size_t n = 16 + static_cast<std::size_t>(i) % 3000;
        void* p = jemalloc::allocate(m, n, i % 5 == 0 ? 256 : 0, i % 2 == 0);
        ASSERT_NE(p, nullptr);
        ASSERT_EQ(space().mobility_of(block(p)), m);
        ASSERT_FALSE(gates.short_way_for(p));
        if (i % 2 == 0) {
          for (std::size_t k = 0; k < n; ++k) ASSERT_EQ(static_cast<char*>(p)[k], 0);
        }
        std::memset(p, 0x77, n);
        now.push_back(p);
        mine.insert(p);
      }
      // Ordinary memory of the same sizes meanwhile, and after they are freed.
      for (int i = 0; i < 3000; ++i) {
        void* p = je_malloc(16 + static_cast<std::size_t>(i));
        ASSERT_EQ(mine.count(p), 0u);
        je_free(p);
      }
      for (void* p : now) jemalloc::release(p);
    }
  }
}

TEST(JemallocHeap, AnObjectStaysInItsArenaWhenItGrows) {
  space();
  void* p = jemalloc::allocate(Mobility::kReclaimable, 100, 0, true);
  for (std::size_t n : {1000uL, 20000uL, 3uL << 20, 10uL}) {
    p = jemalloc::reallocate(p, n);
    ASSERT_NE(p, nullptr);
    EXPECT_EQ(space().mobility_of(block(p)), Mobility::kReclaimable);
  }
  jemalloc::release(p);
}

TEST(JemallocHeap, UserOnlyHeapsShareNoPageblock) {
  space();
  const HeapArena a = jemalloc::create_arena(Mobility::kMovable, true);
  ASSERT_NE(a, HeapArena{});
  for (std::size_t n : {10uL, 5000uL, 3uL << 20}) {
    void* p = jemalloc::allocate_in(a, n, 64, false);
    ASSERT_NE(p, nullptr);
    EXPECT_EQ(space().owner_of(block(p)), Owner::kUserOnly);
    EXPECT_EQ(space().mobility_of(block(p)), Mobility::kMovable);
    jemalloc::release(p);
  }
}

TEST(JemallocHeap, SharedArenasFromManyThreads) {
  space();
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([t, &wrong] {
      std::mt19937 random(static_cast<unsigned>(t));
      std::vector<unsigned char*> kept;
      for (int i = 0; i < 20000; ++i) {
        const std::size_t n = 1 + random() % 2000;
        auto* p =
            static_cast<unsigned char*>(jemalloc::allocate(Mobility::kUnmovable, n + 1, 0, false));
        std::memset(p, t + 1, n + 1);
        kept.push_back(p);
        if (kept.size() > 50) {
          std::swap(kept[random() % kept.size()], kept.back());
          if (kept.back()[0] != t + 1) ++wrong;
          jemalloc::release(kept.back());
          kept.pop_back();
        }
      }
      for (auto* p : kept) jemalloc::release(p);
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(wrong, 0);
}

TEST(JemallocHeap, AForkedChildHasAWorkingHeap) {
  space();
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&stop] {
      while (!stop) {
        je_free(je_malloc(100000));
        jemalloc::release(jemalloc::allocate(Mobility::kUnmovable, 100, 0, false));
      }
    });
  }
  for (int i = 0; i < 30; ++i) {
    jemalloc_fork_prepare();
    space().lock_for_fork();
    const pid_t child = fork();
    space().unlock_after_fork();
    if (child == 0) {
      jemalloc_fork_child();
      for (int k = 0; k < 200; ++k) {
        void* p = je_malloc(static_cast<std::size_t>(k) * 1000 + 1);
        void* q = jemalloc::allocate(Mobility::kUnmovable, 200, 0, false);
        if (p == nullptr || q == nullptr) _exit(1);
        jemalloc::release(q);
        je_free(p);
      }
      _exit(0);
    }
    jemalloc_fork_parent();
    int status = -1;
    waitpid(child, &status, 0);
    ASSERT_EQ(status, 0);
  }
  stop = true;
  for (std::thread& t : threads) t.join();
}

}  // namespace
}  // namespace heaptier
