#include "uffd/thread_cpu.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "uffd/thread_door.h"

namespace heaptier {
namespace {

using thread_cpu_internal::Table;

TEST(ThreadTable, FindsWhatWasEnteredAndNothingElse) {
  auto table = std::make_unique<Table>();
  const std::int32_t cpu[3] = {5, 0, -1};
  EXPECT_EQ(table->lookup(100), -1);
  EXPECT_TRUE(table->insert(100, &cpu[0]));
  EXPECT_TRUE(table->insert(101, &cpu[1]));
  EXPECT_TRUE(table->insert(102, &cpu[2]));
  EXPECT_EQ(table->lookup(100), 5);
  EXPECT_EQ(table->lookup(101), 0);
  EXPECT_EQ(table->lookup(102), -1);  // glibc did not register this thread
  EXPECT_EQ(table->lookup(103), -1);
  table->erase(100);
  EXPECT_EQ(table->lookup(100), -1);
  EXPECT_EQ(table->lookup(101), 0);
  table->erase(100);  // not there: harmless
}

TEST(ThreadTable, IdsThatCollideLiveSideBySide) {
  auto table = std::make_unique<Table>();
  std::int32_t cpu[Table::kProbes + 1];
  for (std::size_t i = 0; i <= Table::kProbes; ++i) {
    cpu[i] = static_cast<std::int32_t>(i);
    const auto tid = static_cast<std::uint32_t>(7 + i * Table::kEntries);
    EXPECT_EQ(table->insert(tid, &cpu[i]), i < Table::kProbes) << i;
  }
  for (std::size_t i = 0; i < Table::kProbes; ++i) {
    EXPECT_EQ(table->lookup(static_cast<std::uint32_t>(7 + i * Table::kEntries)), cpu[i]);
  }
  // A gap in the middle does not hide those behind it, and is used again.
  table->erase(static_cast<std::uint32_t>(7 + 10 * Table::kEntries));
  EXPECT_EQ(table->lookup(static_cast<std::uint32_t>(7 + 11 * Table::kEntries)), 11);
  EXPECT_TRUE(table->insert(static_cast<std::uint32_t>(7 + 99 * Table::kEntries), &cpu[3]));
  EXPECT_EQ(table->lookup(static_cast<std::uint32_t>(7 + 99 * Table::kEntries)), 3);
}

TEST(ThreadTable, AReusedIdGetsTheNewAddress) {
  auto table = std::make_unique<Table>();
  const std::int32_t first = 1;
  const std::int32_t second = 2;
  EXPECT_TRUE(table->insert(55, &first));  // this thread ends without a word
  EXPECT_TRUE(table->insert(55, &second));
  EXPECT_EQ(table->lookup(55), 2);
  table->erase(55);
  EXPECT_EQ(table->lookup(55), -1);
}

TEST(ThreadTable, ForgetsAllAtOnceAndIsUsableAgain) {
  auto table = std::make_unique<Table>();
  const std::int32_t cpu = 3;
  for (std::uint32_t tid = 1; tid <= Table::kEntries; ++tid) ASSERT_TRUE(table->insert(tid, &cpu));
  EXPECT_FALSE(table->insert(Table::kEntries + 1, &cpu));  // full
  table->forget_all();
  for (std::uint32_t tid = 1; tid <= Table::kEntries; ++tid) ASSERT_EQ(table->lookup(tid), -1);
  for (std::uint32_t tid = 1; tid <= Table::kEntries; ++tid) ASSERT_TRUE(table->insert(tid, &cpu));
  EXPECT_EQ(table->lookup(77), 3);
}

// Under the sanitizers this is the proof that nobody reads an entry's target after erase()
// returned.
TEST(ThreadTable, EraseWaitsForReaders) {
  auto table = std::make_unique<Table>();
  std::atomic<bool> stop{false};
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&] {
      while (!stop.load(std::memory_order_relaxed)) {
        const int cpu = table->lookup(9);
        ASSERT_TRUE(cpu == -1 || cpu == 4) << cpu;
      }
    });
  }
  for (int i = 0; i < 20000; ++i) {
    auto cpu = std::make_unique<std::int32_t>(4);
    ASSERT_TRUE(table->insert(9, cpu.get()));
    table->erase(9);
    *cpu = 1000;
  }
  stop.store(true);
  for (std::thread& t : readers) t.join();
}

TEST(ThreadCpu, KnowsWhereALiveThreadRuns) {
  note_thread_start();
  const std::uint32_t tid = door::thread_id();
  if (cpu_of(tid) < 0) GTEST_SKIP() << "this libc registers no rseq area";
  CpuSet allowed;
  ASSERT_TRUE(door::get_affinity(&allowed).ok());
  for (int cpu = 0; cpu < 1024; ++cpu) {
    if (!allowed.has(cpu)) continue;
    CpuSet only;
    only.add(cpu);
    ASSERT_TRUE(door::set_affinity(only).ok());
    EXPECT_EQ(cpu_of(tid), cpu);
    EXPECT_EQ(sched_getcpu(), cpu);
  }
  ASSERT_TRUE(door::set_affinity(allowed).ok());
  note_thread_start();
  EXPECT_GE(cpu_of(tid), 0);
  note_thread_exit();
  EXPECT_EQ(cpu_of(tid), -1);
  EXPECT_EQ(cpu_of(0), -1);
}

TEST(ThreadCpu, ThreadsComeAndGo) {
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&wrong] {
      for (int round = 0; round < 200; ++round) {
        note_thread_start();
        const int cpu = cpu_of(door::thread_id());
        if (cpu < -1 || cpu > 1023) ++wrong;
        note_thread_exit();
        if (cpu_of(door::thread_id()) != -1) ++wrong;
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(wrong.load(), 0);
}

}  // namespace
}  // namespace heaptier
