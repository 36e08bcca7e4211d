// Calls that wait on, or run on, memory that is away: futexes, signal stacks, thread stacks in the
// heap, robust lists, condition variables shared by many threads.
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <ctime>
#include <mutex>
#include <new>
#include <thread>

#include "tests/support/managed.h"

namespace heaptier::test {
namespace {

long futex(void* word, int operation, unsigned value, const timespec* limit = nullptr) {
  return syscall(SYS_futex, word, operation, value, limit, nullptr, 0);
}

class Waiting : public testing::TestWithParam<Place> {
 protected:
  Area area_{kPageblock, 11};
};

TEST_P(Waiting, FutexWordAwayOnBothSides) {
  auto* const word = new (area_.at(17 * kPage + 40)) std::atomic<unsigned>(1);
  for (const int flag : {FUTEX_PRIVATE_FLAG, 0}) {
    word->store(1);
    std::atomic<long> waited{-99};
    std::atomic<bool> waiting{false};
    ASSERT_TRUE(area_.put_at(GetParam()));
    std::thread waiter([&] {
      const timespec limit{40, 0};
      waiting = true;
      long r;
      do {
        r = futex(word, FUTEX_WAIT | flag, 1, &limit);
      } while (r < 0 && errno == EINTR);
      waited = r < 0 ? -errno : r;
    });
    while (!waiting) std::this_thread::yield();
    // Give it time to sleep, move its word away under it, and wake it there. A waiter that came
    // late sees the value changed (EAGAIN): as good.
    usleep(20000);
    const auto away = area_.put_at(GetParam());
    // A shared futex is keyed by its page; the wait holds a reference only while it looks: moving
    // is allowed.
    EXPECT_TRUE(away);
    std::atomic_ref<unsigned>(*reinterpret_cast<unsigned*>(word)).store(2);
    EXPECT_TRUE(area_.put_at(GetParam()));
    long woken = 0;
    for (int i = 0; i < 2000 && woken == 0 && waited == -99; ++i) {
      woken = futex(word, FUTEX_WAKE | flag, 1);
      ASSERT_GE(woken, 0) << strerror(errno);
      if (woken == 0) usleep(1000);
    }
    waiter.join();
    EXPECT_TRUE(waited == 0 || waited == -EAGAIN) << waited;
  }
  EXPECT_TRUE(area_.holds_outside(17 * kPage + 40, 17 * kPage + 48));
}

TEST_P(Waiting, FutexThatMismatches) {
  auto* const word = new (area_.at(3 * kPage)) unsigned(5);
  ASSERT_TRUE(area_.put_at(GetParam()));
  EXPECT_EQ(futex(word, FUTEX_WAIT_PRIVATE, 6), -1);
  EXPECT_EQ(errno, EAGAIN);
}

TEST_P(Waiting, MutexAndConditionAway) {
  struct Meeting {
    std::mutex mutex;
    std::condition_variable changed;
    long turn = 0;
  };
  auto* const meeting = new (area_.at(33 * kPage - 64)) Meeting;
  const Evictor evictor({{area_.data(), area_.size()}});
  constexpr long kTurns = 400;
  const auto play = [&](long mine) {
    for (;;) {
      std::unique_lock lock(meeting->mutex);
      meeting->changed.wait(lock,
                            [&] { return meeting->turn % 2 == mine || meeting->turn >= kTurns; });
      if (meeting->turn >= kTurns) return;
      ++meeting->turn;
      meeting->changed.notify_all();
    }
  };
  std::thread other(play, 1);
  play(0);
  other.join();
  EXPECT_EQ(meeting->turn, kTurns);
  meeting->~Meeting();
}

// What pthread_mutex_lock says when the owner died with the lock held, and the lock's page away at
// that moment: the kernel walks the dead thread's robust list into it.
TEST_P(Waiting, OwnerDiesWithARobustMutexAway) {
  auto* const mutex = reinterpret_cast<pthread_mutex_t*>(area_.at(48 * kPage - 16));
  pthread_mutexattr_t kind;
  pthread_mutexattr_init(&kind);
  pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST);
  ASSERT_EQ(pthread_mutex_init(mutex, &kind), 0);
  std::thread([&] {
    EXPECT_EQ(pthread_mutex_lock(mutex), 0);
    try_put(area_.data(), area_.size(),
            GetParam());  // its page, or its pageblock, may refuse: as good
  }).join();
  const timespec limit{time(nullptr) + 5, 0};
  ASSERT_EQ(pthread_mutex_timedlock(mutex, &limit), EOWNERDEAD);
  EXPECT_EQ(pthread_mutex_consistent(mutex), 0);
  EXPECT_EQ(pthread_mutex_unlock(mutex), 0);
  pthread_mutex_destroy(mutex);
}

TEST_P(Waiting, PriorityInheritingMutex) {
  auto* const mutex = reinterpret_cast<pthread_mutex_t*>(area_.at(44 * kPage - 16));
  pthread_mutexattr_t kind;
  pthread_mutexattr_init(&kind);
  pthread_mutexattr_setprotocol(&kind, PTHREAD_PRIO_INHERIT);
  ASSERT_EQ(pthread_mutex_init(mutex, &kind), 0);
  ASSERT_TRUE(area_.put_at(GetParam()));
  ASSERT_EQ(pthread_mutex_lock(mutex), 0);
  std::atomic<int> got{-1};
  std::thread contender([&] {
    got = pthread_mutex_lock(mutex);
    try_put(area_.data(), area_.size(), GetParam());
    if (got == 0) got = pthread_mutex_unlock(mutex);
  });
  usleep(10000);
  try_put(area_.data(), area_.size(), GetParam());
  EXPECT_EQ(pthread_mutex_unlock(mutex), 0);
  contender.join();
  EXPECT_EQ(got, 0);
  EXPECT_EQ(pthread_mutex_lock(mutex), 0);
  EXPECT_EQ(pthread_mutex_unlock(mutex), 0);
  pthread_mutex_destroy(mutex);
}

// The handler's frame is written by the kernel, onto a stack that is away.
volatile sig_atomic_t g_on_stack;
unsigned char* g_stack;
void on_signal(int) {
  unsigned char local[3000];
  fill(local, sizeof local, 99);
  const bool inside = local >= g_stack && local < g_stack + 256 * kKiB;
  g_on_stack = inside && first_wrong(local, sizeof local, 99) == sizeof local;
}

TEST_P(Waiting, SignalStackAway) {
  g_stack = area_.at(64 * kKiB);
  stack_t stack{};
  stack.ss_sp = g_stack;
  stack.ss_size = 256 * kKiB;
  stack_t old{};
  ASSERT_EQ(sigaltstack(&stack, &old), 0);
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_ONSTACK;
  struct sigaction before {};
  ASSERT_EQ(sigaction(SIGUSR1, &action, &before), 0);
  for (int i = 0; i < 20; ++i) {
    g_on_stack = 0;
    ASSERT_TRUE(area_.put_at(GetParam()));
    ASSERT_EQ(raise(SIGUSR1), 0);
    ASSERT_EQ(g_on_stack, 1);
  }
  sigaction(SIGUSR1, &before, nullptr);
  old.ss_flags = SS_DISABLE;
  sigaltstack(&old, nullptr);
  EXPECT_TRUE(area_.holds_outside(64 * kKiB, 320 * kKiB));
}

void* run_on_heap_stack(void* work) {
  // The thread's own stack is what is evicted while it runs on it.
  volatile unsigned char local[32 * 1024];
  for (std::size_t i = 0; i < sizeof local; ++i) local[i] = pattern_byte(5, i);
  const auto* const area = static_cast<Area*>(work);
  const Evictor evictor({{area->data(), area->size()}});
  for (int round = 0; round < 20; ++round) {
    evictor.await_round();
    for (std::size_t i = 0; i < sizeof local; ++i) {
      if (local[i] != pattern_byte(5, i)) return reinterpret_cast<void*>(1);
    }
  }
  return nullptr;
}

TEST_P(Waiting, ThreadStackInTheHeap) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  ASSERT_EQ(pthread_attr_setstack(&attributes, area_.at(256 * kKiB), kMiB), 0);
  ASSERT_TRUE(area_.put_at(GetParam()));
  pthread_t thread;
  ASSERT_EQ(pthread_create(&thread, &attributes, run_on_heap_stack, &area_), 0);
  void* result = nullptr;
  ASSERT_EQ(pthread_join(thread, &result), 0);
  EXPECT_EQ(result, nullptr);
  EXPECT_TRUE(area_.holds_outside(256 * kKiB, 256 * kKiB + kMiB));
}

INSTANTIATE_TEST_SUITE_P(At, Waiting, testing::ValuesIn(kPlaces), place_name);

}  // namespace
}  // namespace heaptier::test
