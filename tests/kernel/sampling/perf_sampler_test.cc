// Accesses of this process' threads, sampled by the real kernel. The event is one that every host
// has: a page fault, all of which come with their addresses. Where the processor tells of accesses
// themselves that is tried as well.
#include "runtime/sampling/perf_sampler.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/perf_event.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "runtime/os/kernel_events.h"
#include "runtime/os/kernel_files.h"

namespace heaptier {
namespace {

constexpr unsigned kOnePercent = 100;

AccessEvents page_faults() {
  AccessEvents what;
  what.count = 1;
  what.of[0].type = PERF_TYPE_SOFTWARE;
  what.of[0].config[0] = PERF_COUNT_SW_PAGE_FAULTS;
  return what;
}

// Memory that nobody has touched.
class Fresh {
 public:
  explicit Fresh(std::size_t pages) : bytes_(pages * kPageSize) {
    at_ = static_cast<char*>(mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    madvise(at_, bytes_, MADV_NOHUGEPAGE);
  }
  ~Fresh() { munmap(at_, bytes_); }
  Fresh(const Fresh&) = delete;
  Fresh& operator=(const Fresh&) = delete;
  char* page(std::size_t i) const { return at_ + i * kPageSize; }
  std::size_t pages() const { return bytes_ / kPageSize; }
  void touch(std::size_t first, std::size_t count) const {
    for (std::size_t i = first; i < first + count; ++i) *static_cast<volatile char*>(page(i)) = 1;
  }
  bool holds(std::uintptr_t at) const {
    return at - reinterpret_cast<std::uintptr_t>(at_) < bytes_;
  }

 private:
  char* at_;
  std::size_t bytes_;
};

// A thread that does what it is told, and otherwise touches nothing.
class Hand {
 public:
  Hand() : thread_([this] { serve(); }) {}
  ~Hand() {
    what_ = nullptr;
    step_.store(kGo);
    step_.notify_all();
    thread_.join();
  }
  Hand(const Hand&) = delete;
  Hand& operator=(const Hand&) = delete;
  void run(std::function<void()> what) {
    what_ = std::move(what);
    step_.store(kGo);
    step_.notify_all();
    step_.wait(kGo);
  }

 private:
  enum : int { kIdle, kGo };
  void serve() {
    for (;;) {
      step_.wait(kIdle);
      if (what_ == nullptr) return;
      what_();
      step_.store(kIdle);
      step_.notify_all();
    }
  }
  std::atomic<int> step_{kIdle};
  std::function<void()> what_;
  std::thread thread_;
};

class Listener final : public HeatSink {
 public:
  void told(std::uintptr_t, std::uintptr_t, std::uint32_t, std::uint32_t, Nanos) override {
    FAIL();
  }
  void used(std::uintptr_t address, std::uint64_t times) override { all[address] += times; }
  void counted(Nanos) override {}
  std::size_t of(const Fresh& memory) const {
    std::size_t n = 0;
    for (const auto& [at, times] : all) n += memory.holds(at) ? times : 0;
    return n;
  }
  std::map<std::uintptr_t, std::uint64_t> all;
};

std::size_t descriptors() {
  std::size_t n = 0;
  for ([[maybe_unused]] const auto& e : std::filesystem::directory_iterator("/proc/self/fd")) ++n;
  return n;
}

class Faults : public testing::Test {
 protected:
  void SetUp() override {
    EventRing ring;
    const Errno e = events_.open(page_faults().of[0], {0, 1}, 0, kPageSize, &ring);
    if (e.failed()) GTEST_SKIP() << "perf_event_open: error " << e.code;
    events_.close(&ring);
    ASSERT_TRUE(sampler_.begin(page_faults(), 1, kOnePercent, now_).ok());
  }
  void TearDown() override { sampler_.stop(); }
  void rounds(int n) {
    for (int i = 0; i < n; ++i) {
      now_ = now_ + millis(200);
      sampler_.round({0, bits_, 1}, now_, sink_);
    }
  }
  // A thread that was joined is listed for a moment longer.
  std::uint64_t settle_at(std::uint64_t expected) {
    for (int tries = 0; tries < 6000; ++tries) {
      rounds(1);
      if (stats().sampler_threads == expected) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return stats().sampler_threads;
  }
  StatsSnapshot stats() {
    StatsSnapshot s{};
    stats_.read(&s);
    sampler_.read(&s);
    return s;
  }

  KernelThreadEvents events_;
  Stats stats_;
  PerfSampler sampler_{kernel_files(), events_, stats_};
  Listener sink_;
  std::uint64_t bits_[1] = {1};
  Nanos now_ = seconds(1);
};

TEST_F(Faults, ComeWithTheAddressesThatWereTouched) {
  Hand hand;
  const Fresh memory(64);
  const Fresh other(8);
  ASSERT_EQ(settle_at(1), 1U);
  hand.run([&] { memory.touch(0, 64); });
  other.touch(0, 8);  // by the thread that reads
  rounds(1);
  for (std::size_t i = 0; i < 64; ++i) {
    EXPECT_EQ(sink_.all[reinterpret_cast<std::uintptr_t>(memory.page(i))], 1U) << i;
  }
  EXPECT_EQ(sink_.of(other), 0U) << "our own is left out";
  EXPECT_EQ(stats().sampler_threads, 1U);
  EXPECT_EQ(stats().sampler_lost, 0U);
}

TEST_F(Faults, OfTheKernelAreLeftOut) {
  Hand hand;
  const Fresh memory(32);
  rounds(1);
  hand.run([&] {
    const int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    if (zero < 0 || read(zero, memory.page(0), 16 * kPageSize) < 0) return;
    close(zero);
    memory.touch(16, 16);
  });
  rounds(1);
  EXPECT_EQ(sink_.of(memory), 16U);
  for (std::size_t i = 0; i < 16; ++i) {
    EXPECT_FALSE(sink_.all.contains(reinterpret_cast<std::uintptr_t>(memory.page(i)))) << i;
  }
}

TEST_F(Faults, OfNewThreadsAndNotOfEndedOnes) {
  const std::size_t before = descriptors();
  const Fresh memory(4096);
  for (std::size_t i = 0; i < 20; ++i) {
    ASSERT_EQ(settle_at(0), 0U) << "those before";
    Hand first;
    Hand second;
    ASSERT_EQ(settle_at(2), 2U);
    first.run([&] { memory.touch(i * 32, 16); });
    second.run([&] { memory.touch(i * 32 + 16, 16); });
    rounds(1);
    EXPECT_EQ(sink_.of(memory), (i + 1) * 32);
  }
  EXPECT_EQ(settle_at(0), 0U);
  EXPECT_EQ(descriptors(), before) << "nothing that an application could close";
}

TEST_F(Faults, AreCountedWhereTheRingHadNoRoom) {
  Hand hand;
  constexpr std::size_t kMany = 100000;
  const Fresh memory(kMany + 1);
  rounds(1);
  hand.run([&] { memory.touch(0, kMany); });
  rounds(1);
  EXPECT_GT(sink_.of(memory), 100U);
  EXPECT_LT(sink_.of(memory), kMany);
  hand.run([&] { memory.touch(kMany, 1); });  // with it comes how many were lost
  rounds(1);
  EXPECT_GE(sink_.of(memory) + stats().sampler_lost, kMany + 1);
  EXPECT_GT(stats().sampler_lost, 1000U);
}

TEST_F(Faults, OfManyThreads) {
  constexpr std::size_t kThreads = 300;
  const Fresh memory(kThreads * 16);
  std::vector<std::unique_ptr<Hand>> hands;
  ASSERT_EQ(settle_at(0), 0U);
  for (std::size_t i = 0; i < kThreads; ++i) hands.push_back(std::make_unique<Hand>());
  rounds(30);
  const std::uint64_t sampled = stats().sampler_threads;
  EXPECT_GE(sampled, 4U) << "what everybody may lock";
  EXPECT_LE(sampled, PerfSampler::kMostThreads);
  EXPECT_EQ(sampled + stats().sampler_left_out, kThreads);
  for (std::size_t i = 0; i < kThreads; ++i) hands[i]->run([&] { memory.touch(i * 16, 16); });
  rounds(1);
  EXPECT_EQ(sink_.of(memory), sampled * 16);
  hands.clear();
  EXPECT_EQ(settle_at(0), 0U);
}

TEST_F(Faults, AChildHasItsOwn) {
  Hand hand;
  rounds(1);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    sampler_.forget();
    Listener sink;
    Hand own;
    const Fresh memory(16);
    const std::uint64_t bits[1] = {1};
    sampler_.round({0, bits, 1}, now_ + seconds(1), sink);
    own.run([&] { memory.touch(0, 16); });
    sampler_.round({0, bits, 1}, now_ + seconds(2), sink);
    _exit(sink.of(memory) == 16 ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  const Fresh memory(16);
  hand.run([&] { memory.touch(0, 16); });
  rounds(1);
  EXPECT_EQ(sink_.of(memory), 16U) << "and the parent goes on";
}

// What a processor tells: addresses of the memory that is really used.
TEST(Accesses, AreSampledWhereTheProcessorTells) {
  KernelThreadEvents events;
  Stats stats;
  PerfSampler sampler(kernel_files(), events, stats);
  if (sampler.begin(10 * kOnePercent, seconds(1)).failed()) {
    EXPECT_NE(sampler.why_not()[0], '\0');
    GTEST_SKIP() << sampler.why_not();
  }
  Hand hand;
  const Fresh memory(std::size_t{256} << 8);  // 256 MiB, more than near caches hold
  hand.run([&] { memory.touch(0, memory.pages()); });
  Listener sink;
  const std::uint64_t bits[1] = {1};
  Nanos now = seconds(1);
  for (int i = 0; i < 20; ++i) {
    now = now + millis(100);
    sampler.round({0, bits, 1}, now, sink);
    hand.run([&] {
      for (std::size_t p = 0; p + 5 < memory.pages(); p += 7) {
        *memory.page(p) = *memory.page(p + p / 3 % 5);
      }
    });
  }
  sampler.round({0, bits, 1}, now + millis(100), sink);
  EXPECT_GT(sink.of(memory), 0U);
  sampler.stop();
}

}  // namespace
}  // namespace heaptier
