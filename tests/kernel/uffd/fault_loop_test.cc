// The handler threads under real faults.
#include "uffd/fault_loop.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/syscall.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "tests/kernel/uffd/fixture.h"
#include "uffd/thread_cpu.h"
#include "uffd/thread_door.h"

namespace heaptier {
namespace {

using testing::exited_with;
using testing::FillingSink;
using testing::in_child;
using testing::Mapping;
using testing::page_is_right;

constexpr std::size_t kStackBytes = 256 * 1024;

// A thread that the handler can follow.
class Follower {
 public:
  Follower() { note_thread_start(); }
  ~Follower() { note_thread_exit(); }
};

class Loop : public ::testing::Test {
 protected:
  void SetUp() override { start(1); }
  void start(unsigned shards, LoopConfig config = {}) {
    HEAPTIER_OPEN_OR_SKIP(port, OpenMode::kHandler, shards, nullptr);
    config.stack_base = stacks.ptr();
    config.stack_bytes = kStackBytes;
    const Errno e = loop.start(port, sink, config);
    ASSERT_TRUE(e.ok()) << e.code;
  }
  void restart(unsigned shards, LoopConfig config = {}) {
    end();
    start(shards, config);
  }
  void end() {
    loop.stop();
    port.close();
  }
  void TearDown() override {
    EXPECT_EQ(sink.errors.load(), 0u);
    EXPECT_EQ(sink.overlaps.load(), 0);
    EXPECT_EQ(sink.inside.load(), 0);
    end();
  }
  // Empties pages again: the next touch faults. (Law of the house: registered before.)
  static void empty(const Mapping& m, std::size_t page, std::size_t pages = 1) {
    ASSERT_EQ(madvise(m.ptr(page), pages * kPageSize, MADV_DONTNEED), 0);
  }

  Mapping stacks{FaultLoop::kMaxWorkers * kStackBytes};
  ShardedPort port;
  FillingSink sink{port};
  FaultLoop loop;
};

TEST_F(Loop, ServesMissingPages) {
  const Follower follower;
  const Mapping m(64 * kPageSize);
  ASSERT_TRUE(port.register_range(m.at(), m.bytes()).ok());
  for (std::size_t i = 0; i < m.pages(); ++i) ASSERT_TRUE(page_is_right(m.at(i))) << i;
  EXPECT_EQ(sink.missing_faults.load(), 64u);
  EXPECT_EQ(sink.last_tid.load(), door::thread_id());
  EXPECT_LT(sink.last_worker.load(), loop.workers());
  const LoopStats s = loop.stats();
  EXPECT_EQ(s.faults, 64u);
  EXPECT_LE(s.reads, 64u);
  EXPECT_EQ(s.service.total(), 64u);
  EXPECT_GT(s.service.percentile(50), 0u);
  EXPECT_GT(s.cpu_time.v, 0);
  EXPECT_EQ(s.other_events, 0u);
  EXPECT_FALSE(loop.is_worker_thread(door::thread_id()));
}

TEST_F(Loop, ServesWritesToProtectedPages) {
  const Mapping m(8 * kPageSize);
  ASSERT_TRUE(port.register_range(m.at(), m.bytes()).ok());
  for (std::size_t i = 0; i < 8; ++i) ASSERT_TRUE(page_is_right(m.at(i)));
  ASSERT_TRUE(port.write_protect(m.at(), m.bytes(), true, false).ok());
  for (std::size_t i = 0; i < 8; ++i) ASSERT_TRUE(page_is_right(m.at(i)));  // reading is no fault
  EXPECT_EQ(sink.wp_faults.load(), 0u);
  for (std::size_t i = 0; i < 8; i += 2) *m.ptr(i) = 1;
  EXPECT_EQ(sink.wp_faults.load(), 4u);
  *m.ptr(0) = 2;
  EXPECT_EQ(sink.wp_faults.load(), 4u);
}

TEST_F(Loop, ServesFaultsInsideSystemCalls) {
  const Mapping m(32 * kPageSize);
  ASSERT_TRUE(port.register_range(m.at(), m.bytes()).ok());
  const int zeros = open("/dev/zero", O_RDONLY);
  EXPECT_EQ(read(zeros, m.ptr(1), kPageSize / 2), static_cast<ssize_t>(kPageSize / 2));
  ::close(zeros);
  EXPECT_EQ(*m.ptr(1), 0);
  std::uint64_t tail = 0;
  std::memcpy(&tail, m.ptr(1) + kPageSize - 8, 8);
  EXPECT_EQ(tail, (m.at(1) + kPageSize - 8) * 0x9e3779b97f4a7c15);
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  EXPECT_EQ(write(fds[1], m.ptr(4), 2 * kPageSize), static_cast<ssize_t>(2 * kPageSize));
  ::close(fds[0]);
  ::close(fds[1]);
  EXPECT_EQ(sink.missing_faults.load(), 3u);
}

TEST_F(Loop, AsksAgainWhenThePageIsBusyAndReadsOnMeanwhile) {
  const Mapping m(16 * kPageSize);
  ASSERT_TRUE(port.register_range(m.at(), m.bytes()).ok());
  sink.busy_left.store(1000);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < 16; ++i) {
    threads.emplace_back([&m, i] { EXPECT_TRUE(page_is_right(m.at(i))); });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(loop.stats().busy_retries, 1000u);
  EXPECT_EQ(sink.missing_faults.load(), 16u);
}

TEST_F(Loop, ManyThreadsOnManyShardsFindEveryPageRight) {
  restart(4);
  const Mapping m(4 * kStripBytes, 4 * kStripBytes);
  ASSERT_TRUE(port.register_range(m.at(), m.bytes()).ok());
  std::atomic<std::uint64_t> wrong{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      const Follower follower;
      std::mt19937 random(t);
      for (int i = 0; i < 3000; ++i) {
        // 32 pages of each strip, so that threads meet.
        const std::size_t page = (random() % 4) * (kStripBytes / kPageSize) + random() % 32;
        if (random() % 4 == 0) empty(m, page);
        if (!page_is_right(m.at(page))) {
          // Emptied by another while we compared: zeros never, but a mixture of reads is all right
          // content.
          wrong.fetch_add(1);
        }
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(wrong.load(), 0u);
  EXPECT_GT(sink.missing_faults.load(), 1000u);
}

TEST_F(Loop, FollowsTheFaulterFromCpuToCpu) {
  const Follower follower;
  if (cpu_of(door::thread_id()) < 0) GTEST_SKIP() << "this libc registers no rseq area";
  CpuSet all;
  ASSERT_TRUE(door::get_affinity(&all).ok());
  const Mapping m(1024 * kPageSize);
  ASSERT_TRUE(port.register_range(m.at(), m.bytes()).ok());
  std::size_t page = 0;
  std::uint64_t moves = 0;
  for (int cpu = 0; cpu < 1024 && page + 4 <= m.pages(); ++cpu) {
    if (!all.has(cpu)) continue;
    CpuSet only;
    only.add(cpu);
    ASSERT_TRUE(door::set_affinity(only).ok());
    for (int i = 0; i < 4; ++i) ASSERT_TRUE(page_is_right(m.at(page++)));
    EXPECT_EQ(loop.stats().repins, ++moves) << "cpu " << cpu;
  }
  ASSERT_TRUE(door::set_affinity(all).ok());
}

TEST_F(Loop, FloatsForThreadsItDoesNotKnow) {
  note_thread_exit();
  const Mapping m(8 * kPageSize);
  ASSERT_TRUE(port.register_range(m.at(), m.bytes()).ok());
  for (std::size_t i = 0; i < 8; ++i) ASSERT_TRUE(page_is_right(m.at(i)));
  EXPECT_EQ(loop.stats().repins, 0u);
}

TEST_F(Loop, NeverLeavesTheAllowedCpus) {
  CpuSet all;
  ASSERT_TRUE(door::get_affinity(&all).ok());
  CpuSet first;
  for (int cpu = 0; cpu < 1024 && first.empty(); ++cpu) {
    if (all.has(cpu)) first.add(cpu);
  }
  if (std::memcmp(&all, &first, sizeof all) == 0) GTEST_SKIP() << "only one CPU";
  LoopConfig config;
  config.allowed = first;
  restart(1, config);
  const Mapping m(64 * kPageSize);
  ASSERT_TRUE(port.register_range(m.at(), m.bytes()).ok());
  const Follower follower;
  std::size_t page = 0;
  for (int cpu = 0; cpu < 1024 && page + 2 <= m.pages(); ++cpu) {
    if (!all.has(cpu)) continue;
    CpuSet only;
    only.add(cpu);
    ASSERT_TRUE(door::set_affinity(only).ok());
    for (int i = 0; i < 2; ++i) ASSERT_TRUE(page_is_right(m.at(page++)));
    unsigned workers = 0;
    for (int tries = 0; workers < loop.workers() && tries < 1000; ++tries) {
      if (tries > 0) usleep(1000);  // a worker that has not begun yet
      workers = 0;
      for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
        const auto tid = static_cast<std::uint32_t>(std::stoul(task.path().filename()));
        if (!loop.is_worker_thread(tid)) continue;
        ++workers;
        CpuSet theirs;
        ASSERT_GE(syscall(SYS_sched_getaffinity, tid, sizeof theirs.words, theirs.words), 0);
        EXPECT_EQ(std::memcmp(&theirs, &first, sizeof theirs), 0);
      }
    }
    EXPECT_EQ(workers, loop.workers());
  }
  ASSERT_TRUE(door::set_affinity(all).ok());
}

// A program that pins its first thread and lets the others run elsewhere: the handler goes there
// all the same.
TEST_F(Loop, GoesWhereFaultersRunAlsoOutsideOfTheStartersCpus) {
  CpuSet all;
  ASSERT_TRUE(door::get_affinity(&all).ok());
  int first = -1;
  int last = -1;
  for (int cpu = 0; cpu < 1024; ++cpu) {
    if (!all.has(cpu)) continue;
    if (first < 0) first = cpu;
    last = cpu;
  }
  if (first == last) GTEST_SKIP() << "only one CPU";
  CpuSet only;
  only.add(first);
  ASSERT_TRUE(door::set_affinity(only).ok());
  restart(1);
  only = {};
  only.add(last);
  ASSERT_TRUE(door::set_affinity(only).ok());
  const Follower follower;
  if (cpu_of(door::thread_id()) < 0) GTEST_SKIP() << "this libc registers no rseq area";
  const Mapping m(4 * kPageSize);
  ASSERT_TRUE(port.register_range(m.at(), m.bytes()).ok());
  for (std::size_t i = 0; i < 4; ++i) ASSERT_TRUE(page_is_right(m.at(i)));
  EXPECT_EQ(loop.stats().repins, 1u);
  ASSERT_TRUE(door::set_affinity(all).ok());
}

// --- Lanes -------------------------------------------------------------------------------------

// A shard with two lanes on a machine with two CPUs.
class Lanes : public Loop {
 protected:
  void SetUp() override {
    ASSERT_TRUE(door::get_affinity(&all).ok());
    for (int cpu = 0; cpu < CpuSet::kMost && second < 0; ++cpu) {
      if (all.has(cpu)) (first < 0 ? first : second) = cpu;
    }
    LoopConfig config;
    config.lanes = 2;
    start(1, config);
    if (IsSkipped()) return;
    const Follower known;
    if (second < 0) GTEST_SKIP() << "only one CPU";
    if (cpu_of(door::thread_id()) < 0) GTEST_SKIP() << "this libc registers no rseq area";
  }
  void TearDown() override {
    EXPECT_TRUE(door::set_affinity(all).ok());
    Loop::TearDown();
  }
  static void go_to(int cpu) {
    CpuSet only;
    only.add(cpu);
    ASSERT_TRUE(door::set_affinity(only).ok());
  }

  CpuSet all;
  int first = -1;
  int second = -1;
};

TEST_F(Lanes, AThreadThatGoesToAndFroFindsOneAtEitherCpu) {
  const Follower follower;
  const Mapping m(256 * kPageSize);
  ASSERT_TRUE(port.register_range(m.at(), m.bytes()).ok());
  for (std::size_t i = 0; i < m.pages(); ++i) {
    go_to(i % 2 == 0 ? first : second);
    ASSERT_TRUE(page_is_right(m.at(i)));
  }
  // Each lane moved once, to its CPU.
  EXPECT_EQ(loop.stats().repins, 2u);
  EXPECT_EQ(loop.stats().faults, 256u);
}

TEST_F(Lanes, ServeWhereNoOtherLaneIsLeft) {
  const Follower follower;
  const Mapping m(4096 * kPageSize);
  ASSERT_TRUE(port.register_range(m.at(), m.bytes()).ok());
  std::size_t page = 0;
  for (int stay = 0; stay < 8; ++stay) {
    go_to(stay % 2 == 0 ? first : second);
    // Long enough for the other lane to step off.
    for (int i = 0; i < 512; ++i) ASSERT_TRUE(page_is_right(m.at(page++)));
  }
  EXPECT_EQ(loop.stats().faults, 4096u);
}

// The lane in use is on the CPU of a thread that never faults again; whoever faults elsewhere is
// served all the same, as soon as somebody looks.
TEST_F(Lanes, AreCalledWhenTheOneInUseIsBuried) {
  const Mapping m(64 * kPageSize);
  ASSERT_TRUE(port.register_range(m.at(), m.bytes()).ok());
  std::atomic<bool> stop{false};
  std::atomic<bool> faulted{false};
  std::thread burier([&] {
    const Follower follower;
    go_to(first);
    EXPECT_TRUE(page_is_right(m.at(0)));
    faulted.store(true);
    while (!stop.load()) {
    }
  });
  std::atomic<bool> done{false};
  std::thread other([&] {
    const Follower follower;
    go_to(second);
    while (!faulted.load()) usleep(100);
    for (std::size_t i = 1; i < 64; ++i) EXPECT_TRUE(page_is_right(m.at(i)));
    done.store(true);
  });
  while (!done.load()) {
    usleep(1000);
    loop.supervise(door::now());
  }
  stop.store(true);
  burier.join();
  other.join();
  EXPECT_EQ(loop.stats().faults, 64u);
}

TEST_F(Lanes, ManyThreadsFindEveryPageRightWhileItPauses) {
  const Mapping m(256 * kPageSize);
  ASSERT_TRUE(port.register_range(m.at(), m.bytes()).ok());
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> wrong{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      const Follower follower;
      std::mt19937 random(t);
      while (!stop.load()) {
        const std::size_t page = random() % 256;
        if (random() % 64 == 0) go_to(random() % 2 == 0 ? first : second);
        if (random() % 4 == 0) empty(m, page);
        if (!page_is_right(m.at(page))) wrong.fetch_add(1);
      }
    });
  }
  for (int i = 0; i < 300 || (sink.missing_faults.load() <= 300 && i < 60000); ++i) {
    usleep(1000);
    loop.supervise(door::now());
    loop.give_way();
    if (i % 3 != 0) continue;
    loop.pause();
    EXPECT_EQ(sink.inside.load(), 0);
    loop.resume();
  }
  stop.store(true);
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(wrong.load(), 0u);
  EXPECT_GT(sink.missing_faults.load(), 300u);
}

// None takes a second message while another lane could.
TEST_F(Lanes, TakeOneMessageAtATime) {
  LoopConfig config;
  config.lanes = 2;
  config.adaptive_class = false;
  restart(1, config);
  const Mapping m(1024 * kPageSize);
  ASSERT_TRUE(port.register_range(m.at(), m.bytes()).ok());
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      const Follower follower;
      for (std::size_t i = t; i < m.pages(); i += 8) EXPECT_TRUE(page_is_right(m.at(i)));
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(loop.stats().faults, m.pages());
  EXPECT_EQ(loop.stats().reads, m.pages());
}

// In a child one lane is made at first, the other one when it is missed.
TEST_F(Lanes, AreMadeInAChildWhenTheyAreMissed) {
  const Mapping m(256 * kPageSize);
  loop.pause();
  const int status = in_child([&] {
    ShardedPort fresh;
    port.close();
    note_fork_in_child();
    if (fresh.open(OpenMode::kHandler, 1, nullptr).failed()) return 1;
    if (fresh.register_range(m.at(), m.bytes()).failed()) return 2;
    sink.use(fresh);
    if (loop.restart_in_child(fresh, stacks.ptr()).failed()) return 3;
    for (std::size_t i = 0; i < m.pages(); ++i) {
      go_to(i % 2 == 0 ? first : second);
      if (!page_is_right(m.at(i))) return 4;
      if (i % 16 == 0) loop.supervise(door::now());
    }
    return loop.stats().faults == m.pages() && loop.stats().repins >= 2 ? 0 : 5;
  });
  loop.resume();
  EXPECT_TRUE(exited_with(status, 0)) << status;
}

TEST_F(Loop, PausesUnderFire) {
  const Mapping m(64 * kPageSize);
  ASSERT_TRUE(port.register_range(m.at(), m.bytes()).ok());
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> wrong{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      const Follower follower;
      std::mt19937 random(t);
      while (!stop.load()) {
        const std::size_t page = random() % 64;
        madvise(m.ptr(page), kPageSize, MADV_DONTNEED);
        if (!page_is_right(m.at(page))) wrong.fetch_add(1);
      }
    });
  }
  std::vector<std::int64_t> waits;
  for (int round = 0; round < 300; ++round) {
    const Nanos before = door::now();
    loop.pause();
    waits.push_back((door::now() - before).v);
    const std::uint64_t served = sink.missing_faults.load();
    EXPECT_EQ(sink.inside.load(), 0);
    usleep(200);
    EXPECT_EQ(sink.inside.load(), 0);
    EXPECT_EQ(sink.missing_faults.load(), served);
    loop.supervise(door::now());  // a pause is not starvation
    loop.resume();
    usleep(500);
  }
  stop.store(true);
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(wrong.load(), 0u);
  std::sort(waits.begin(), waits.end());
  RecordProperty("pause_ns_median", std::to_string(waits[waits.size() / 2]));
  RecordProperty("pause_ns_p99", std::to_string(waits[waits.size() * 99 / 100]));
  std::printf("pause: median %ld ns, p99 %ld ns\n", waits[waits.size() / 2],
              waits[waits.size() * 99 / 100]);
  EXPECT_EQ(loop.stats().class_switches, 0u);
}

TEST_F(Loop, PauseWaitsForABusyPageToBeLetGo) {
  const Mapping m(kPageSize);
  ASSERT_TRUE(port.register_range(m.at(), m.bytes()).ok());
  sink.busy_left.store(1 << 30);
  std::thread toucher([&m] { EXPECT_TRUE(page_is_right(m.at())); });
  while (loop.stats().busy_retries == 0) usleep(100);
  std::thread unlocker([this] {
    usleep(20000);
    sink.busy_left.store(0);
  });
  loop.pause();
  EXPECT_EQ(sink.missing_faults.load(), 1u);
  loop.resume();
  toucher.join();
  unlocker.join();
}

TEST_F(Loop, ForkedChildrenServeThemselves) {
  restart(2);
  const Mapping m(2 * kStripBytes, 2 * kStripBytes);
  ASSERT_TRUE(port.register_range(m.at(), m.bytes()).ok());
  std::atomic<bool> stop{false};
  std::thread busy([&] {  // faults are in flight while we fork
    std::mt19937 random(1);
    while (!stop.load()) {
      const std::size_t page = random() % 16;
      madvise(m.ptr(page), kPageSize, MADV_DONTNEED);
      EXPECT_TRUE(page_is_right(m.at(page)));
    }
  });
  const std::size_t far = kStripBytes / kPageSize;
  for (int round = 0; round < 10; ++round) {
    loop.pause();
    const int status = in_child([&] {
      ShardedPort fresh;
      port.close();
      note_fork_in_child();
      if (fresh.open(OpenMode::kHandler, 2, nullptr).failed()) return 1;
      if (fresh.register_range(m.at(), m.bytes()).failed()) return 2;
      sink.use(fresh);
      if (loop.restart_in_child(fresh, stacks.ptr()).failed()) return 3;
      if (loop.stats().faults != 0) return 4;
      for (std::size_t i = 100; i < 110; ++i) {
        if (!page_is_right(m.at(i)) || !page_is_right(m.at(far + i))) return 5;
      }
      if (loop.stats().faults != 20) return 6;
      if (cpu_of(door::thread_id()) >= 0 && loop.stats().repins == 0) return 9;
      // and the children of children
      loop.pause();
      const int grandchild = in_child([&] {
        ShardedPort fresher;
        fresh.close();
        note_fork_in_child();
        if (fresher.open(OpenMode::kHandler, 2, nullptr).failed()) return 1;
        if (fresher.register_range(m.at(), m.bytes()).failed()) return 2;
        sink.use(fresher);
        if (loop.restart_in_child(fresher, stacks.ptr()).failed()) return 3;
        return page_is_right(m.at(far + 200)) ? 0 : 4;
      });
      loop.resume();
      if (!exited_with(grandchild, 0)) return 7;
      return page_is_right(m.at(300)) ? 0 : 8;
    });
    loop.resume();
    EXPECT_TRUE(exited_with(status, 0)) << status;
    ASSERT_TRUE(page_is_right(m.at(far + 400 + static_cast<std::size_t>(round))));
  }
  stop.store(true);
  busy.join();
}

// Threads that keep every CPU busy.
class Hogs {
 public:
  explicit Hogs(unsigned count) {
    for (unsigned i = 0; i < count; ++i) {
      threads_.emplace_back([this] {
        while (!stop_.load(std::memory_order_relaxed)) {
        }
      });
    }
  }
  ~Hogs() {
    stop_.store(true);
    for (std::thread& t : threads_) t.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

TEST_F(Loop, LeavesTheIdleClassUnderLoadAndComesBack) {
  const Mapping m(64 * kPageSize);
  ASSERT_TRUE(port.register_range(m.at(), m.bytes()).ok());
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> touched{0};
  std::thread toucher([&] {
    const Follower follower;
    for (std::size_t i = 0; !stop.load(); i = (i + 1) % 64) {
      madvise(m.ptr(i), kPageSize, MADV_DONTNEED);
      EXPECT_TRUE(page_is_right(m.at(i)));
      touched.fetch_add(1);
      usleep(100);
    }
  });
  const auto supervise_until = [&](HandlerClass wanted, int limit_ms) {
    for (int ms = 0; ms < limit_ms && loop.stats().handler_class != wanted; ++ms) {
      usleep(1000);
      loop.supervise(door::now());
    }
    return loop.stats().handler_class == wanted;
  };
  {
    const Hogs hogs(2 * std::thread::hardware_concurrency());
    EXPECT_TRUE(supervise_until(HandlerClass::kNormal, 20000));
    const std::uint64_t before = touched.load();
    for (int i = 0; i < 200; ++i) {
      usleep(1000);
      loop.supervise(door::now());
    }
    EXPECT_GT(touched.load(), before);
  }
  EXPECT_TRUE(supervise_until(HandlerClass::kIdle, 90000));
  const std::uint64_t before = touched.load();
  while (touched.load() < before + 10) usleep(1000);
  EXPECT_GE(loop.stats().class_switches, 2u);
  stop.store(true);
  toucher.join();
}

// An idle-class worker that got no CPU with a message in its hands is raised, where that is
// allowed, or finishes later.
TEST_F(Loop, ClassesCanBeForced) {
  for (const HandlerClass c : {HandlerClass::kNormal, HandlerClass::kIdle}) {
    LoopConfig config;
    config.adaptive_class = false;
    config.fixed_class = c;
    restart(1, config);
    const Mapping m(4 * kPageSize);
    ASSERT_TRUE(port.register_range(m.at(), m.bytes()).ok());
    for (std::size_t i = 0; i < 4; ++i) ASSERT_TRUE(page_is_right(m.at(i)));
    loop.supervise(door::now());
    EXPECT_EQ(loop.stats().handler_class, c);
    EXPECT_EQ(sink.last_worker.load(), static_cast<unsigned>(c));
  }
}

TEST_F(Loop, ALostDescriptorIsReportedAndDoesNotSpin) {
  ASSERT_EQ(::close(port.shard(0).fd()), 0);
  // The poll that is under way holds the file; the next one notices.
  const Mapping m(kPageSize);
  usleep(20000);
  loop.pause();
  loop.resume();
  loop.supervise(door::now());
  EXPECT_EQ(loop.stats().lost_shards, 1u);
  const Nanos before = loop.stats().cpu_time;
  usleep(100000);
  EXPECT_LT((loop.stats().cpu_time - before).v, millis(20).v);
}

TEST_F(Loop, StopsAndStartsAgain) {
  const Mapping m(64 * kPageSize);
  for (int round = 0; round < 20; ++round) {
    restart(1u << (round % 3));
    ASSERT_TRUE(port.register_range(m.at(), m.bytes()).ok());
    const std::size_t page = static_cast<std::size_t>(round);
    empty(m, page);
    ASSERT_TRUE(page_is_right(m.at(page)));
  }
  EXPECT_TRUE(loop.running());
  loop.stop();
  loop.stop();
  EXPECT_FALSE(loop.running());
}

TEST_F(Loop, RefusesWhatCannotWork) {
  LoopConfig config;
  FaultLoop other;
  EXPECT_EQ(other.start(port, sink, config), Errno{EINVAL});
  config.stack_base = stacks.ptr();
  config.stack_bytes = 4096;
  EXPECT_EQ(other.start(port, sink, config), Errno{EINVAL});
  config.stack_bytes = kStackBytes;
  EXPECT_EQ(loop.start(port, sink, config), Errno{EBUSY});
  config.create_thread = [](pthread_t*, const pthread_attr_t*, void* (*)(void*), void*) {
    return EAGAIN;
  };
  EXPECT_EQ(other.start(port, sink, config), Errno{EAGAIN});
  EXPECT_FALSE(other.running());
}

// The second of two threads cannot be had: the first one is ended again.
TEST_F(Loop, FailsAsAWholeWhenAThreadCannotBeHad) {
  static std::atomic<int> left;
  for (int n = 0; n < 4; ++n) {
    left.store(n);
    end();
    HEAPTIER_OPEN_OR_SKIP(port, OpenMode::kHandler, 2, nullptr);
    LoopConfig config;
    config.stack_base = stacks.ptr();
    config.stack_bytes = kStackBytes;
    config.create_thread = [](pthread_t* t, const pthread_attr_t* a, void* (*f)(void*), void* arg) {
      return left.fetch_sub(1) > 0 ? pthread_create(t, a, f, arg) : EAGAIN;
    };
    EXPECT_EQ(loop.start(port, sink, config), Errno{EAGAIN}) << n;
    EXPECT_FALSE(loop.running());
  }
}

}  // namespace
}  // namespace heaptier
