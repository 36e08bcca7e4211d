// Threads that come and go by the thousand while pages move, memory that one thread makes and
// another frees, cancellation in a fault, and libc's ways of talking to all threads at once.
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>

#include "tests/support/managed.h"

namespace heaptier::test {
namespace {

struct Counted {
  explicit Counted(std::uint64_t seed) : seed_(seed) { fill(content_, sizeof content_, seed); }
  ~Counted() {
    if (first_wrong(content_, sizeof content_, seed_) != sizeof content_) wrong.fetch_add(1);
    gone.fetch_add(1);
  }
  std::uint64_t seed_;
  unsigned char content_[9000];
  static std::atomic<long> wrong;
  static std::atomic<long> gone;
};
std::atomic<long> Counted::wrong{0};
std::atomic<long> Counted::gone{0};

thread_local std::unique_ptr<Counted> t_own;

TEST(Threads, StormOfShortLives) {
  Area shared(2 * kPageblock, 81);
  const Evictor evictor({{shared.data(), shared.size()}});
  constexpr std::size_t kRounds = 40;
  constexpr std::size_t kThreads = 25;
  std::atomic<long> wrong{0};
  for (std::size_t round = 0; round < kRounds; ++round) {
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        t_own = std::make_unique<Counted>(round * kThreads + t);  // freed by the thread's end
        shove(t_own.get(), sizeof(Counted));
        const std::size_t from = (round * 131 + t * 17) % 1000 * kPage;
        wrong += !shared.holds(from, from + 4 * kPage);
      });
    }
    for (auto& thread : threads) thread.join();
  }
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(Counted::wrong, 0);
  EXPECT_EQ(Counted::gone, static_cast<long>(kRounds * kThreads));
}

TEST(Threads, DetachedThreadsThatEndOnTheirOwn) {
  Area shared(kPageblock, 82);
  const Evictor evictor({{shared.data(), shared.size()}});
  static std::atomic<long> live;
  std::atomic<long> wrong{0};
  for (int i = 0; i < 400; ++i) {
    ++live;
    std::thread([&, i] {
      const std::size_t from = static_cast<std::size_t>(i * 37 % 500) * kPage;
      wrong += !shared.holds(from, from + 3 * kPage);
      void* const p = std::malloc(100000);
      std::memset(p, i, 100000);
      std::free(p);
      --live;
    }).detach();
    while (live > 32) usleep(100);
  }
  while (live > 0) usleep(100);
  EXPECT_EQ(wrong, 0);
}

TEST(Threads, MadeHereFreedThere) {
  struct Parcel {
    unsigned char* content = nullptr;
    std::size_t bytes = 0;
    std::uint64_t seed = 0;
  };
  std::mutex mutex;
  std::vector<Parcel> belt;
  std::atomic<int> makers{2};
  std::atomic<long> wrong{0};
  std::atomic<long> seen{0};
  std::vector<std::thread> threads;
  for (std::uint64_t m = 0; m < 2; ++m) {
    threads.emplace_back([&, m] {
      for (std::uint64_t i = 0; i < 1500; ++i) {
        const std::size_t bytes = 1 + mix(i * 2 + m) % (i % 50 == 0 ? 300000 : 9000);
        auto* const p = static_cast<unsigned char*>(std::malloc(bytes));
        fill(p, bytes, i);
        shove(p, bytes);
        const std::lock_guard lock(mutex);
        belt.push_back({p, bytes, i});
      }
      --makers;
    });
  }
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&] {
      for (;;) {
        Parcel parcel;
        {
          const std::lock_guard lock(mutex);
          if (belt.empty() && makers == 0) return;
          if (!belt.empty()) {
            parcel = belt.back();
            belt.pop_back();
          }
        }
        if (parcel.content == nullptr) {
          std::this_thread::yield();
          continue;
        }
        if (parcel.seed % 3 != 0) {
          wrong += first_wrong(parcel.content, parcel.bytes, parcel.seed) != parcel.bytes;
        }
        std::free(parcel.content);
        ++seen;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(seen, 3000);
}

TEST(Threads, CancelledWhileFaulting) {
  Area shared(kPageblock, 83);
  const Evictor evictor({{shared.data(), shared.size()}});
  for (int i = 0; i < 60; ++i) {
    pthread_t thread;
    ASSERT_EQ(pthread_create(
                  &thread, nullptr,
                  [](void* area) -> void* {
                    // Reading memory is the one thing that asynchronous cancellation allows.
                    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, nullptr);
                    const auto* const bytes = static_cast<const volatile unsigned char*>(
                        static_cast<Area*>(area)->data());
                    for (std::size_t at = 0;; at = (at + kPage) % kPageblock) {
                      static_cast<void>(bytes[at]);
                    }
                  },
                  &shared),
              0);
    usleep(300);
    ASSERT_EQ(pthread_cancel(thread), 0);
    void* result = nullptr;
    ASSERT_EQ(pthread_join(thread, &result), 0);
    EXPECT_EQ(result, PTHREAD_CANCELED);
  }
  EXPECT_TRUE(shared.holds());
}

TEST(Threads, IdentityChangesReachAllThreads) {
  // setresuid and setgroups signal every thread that libc knows, and wait for each: a thread of
  // heaptier's that blocked that signal would hang the caller.
  Area shared(kPageblock, 84);
  const Evictor evictor({{shared.data(), shared.size()}});
  evictor.await_round();
  for (int i = 0; i < 20; ++i) {
    ASSERT_EQ(setresuid(getuid(), geteuid(), static_cast<uid_t>(-1)), 0) << strerror(errno);
    ASSERT_EQ(setresgid(getgid(), getegid(), static_cast<gid_t>(-1)), 0) << strerror(errno);
    EXPECT_TRUE(shared.holds(0, 32 * kPage));
  }
}

TEST(Threads, DescriptorsOfTheApplicationAreItsOwn) {
  // Programs close every descriptor that they do not know (daemons, shells), and expect the lowest
  // numbers free.
  Area shared(kPageblock, 85);
  ASSERT_TRUE(shared.put_at(Place::kStored));
  const int low = open("/dev/null", O_RDONLY | O_CLOEXEC);
  EXPECT_LT(low, 16) << "heaptier's descriptors should be out of the way";
  close(low);
  for (int fd = 3; fd < 64; ++fd) close(fd);
  EXPECT_TRUE(shared.holds());
  ASSERT_TRUE(shared.put_at(Place::kStored));
  EXPECT_TRUE(shared.holds());
  // close_range does the same to all of them: above 3, everything.
  if (close_range(3, ~0u, 0) != 0) GTEST_SKIP() << "no close_range: " << strerror(errno);
  EXPECT_TRUE(shared.holds());
  ASSERT_TRUE(shared.put_at(Place::kStored));
  EXPECT_TRUE(shared.holds());
}

}  // namespace
}  // namespace heaptier::test
