// Whose accesses are sampled, at what rate, and what becomes of the samples.
#include "runtime/sampling/perf_sampler.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "runtime/os/thread.h"
#include "tests/fakes/fake_accesses.h"
#include "tests/fakes/fake_file_tree.h"

namespace heaptier {
namespace {

constexpr unsigned kOnePercent = 100;
constexpr std::uintptr_t kBase = std::uintptr_t{1} << 40;

TEST(PerfPace, AsManySamplesAsTheBudgetPays) {
  EXPECT_EQ(samples_wanted(kOnePercent), 5000U);
  EXPECT_EQ(samples_wanted(1), 50U);
  PerfPace pace;
  pace.begin(5000, 2, 100000);
  EXPECT_EQ(pace.rate, 2500U);
  pace.begin(5000, 4096, 100000);
  EXPECT_EQ(pace.rate, PerfPace::kLeast);
  pace.begin(5000, 1, 700);
  EXPECT_EQ(pace.rate, 700U) << "what the kernel allows";
  pace.begin(5000, 1, 0);
  EXPECT_EQ(pace.rate, 1U);
  pace.begin(0, 0, 0);
  EXPECT_EQ(pace.rate, 1U);
}

TEST(PerfPace, FollowsWhatCame) {
  PerfPace pace;
  pace.begin(5000, 8, 100000);
  EXPECT_EQ(pace.rate, 625U);
  pace.adjust(5000, 10000, seconds(2), false);
  EXPECT_EQ(pace.rate, 625U) << "as many as were wanted";
  pace.adjust(5000, 1000, seconds(2), false);
  EXPECT_EQ(pace.rate, 1250U) << "they sleep: twice at most";
  pace.adjust(5000, 0, seconds(2), false);
  EXPECT_EQ(pace.rate, 1250U) << "nothing runs at all";
  pace.adjust(5000, 160000, seconds(2), false);
  EXPECT_EQ(pace.rate, 78U) << "at once, where it is too much";
  pace.adjust(5000, 10000, seconds(2), true);
  EXPECT_EQ(pace.rate, 39U);
  for (int i = 0; i < 20; ++i) pace.adjust(5000, 100, seconds(2), false);
  EXPECT_EQ(pace.rate, 5000U);
  EXPECT_FALSE(PerfPace::due(5000, 100, millis(300)));
  EXPECT_TRUE(PerfPace::due(5000, 4000, millis(300))) << "far more than wanted";
  EXPECT_FALSE(PerfPace::due(5000, 4000, millis(100)));
}

TEST(PerfPace, ARingHoldsHalfASecond) {
  PerfPace pace;
  for (const std::uint64_t running : {1UL, 2UL, 10UL, 100UL, 1000UL}) {
    pace.begin(5000, running, 100000);
    const std::size_t bytes = pace.ring_bytes();
    EXPECT_EQ(bytes & (bytes - 1), 0U);
    EXPECT_GE(bytes, pace.rate / 2 * 32U);
    EXPECT_GE(bytes, 2 * kPageSize);
    EXPECT_LE(bytes, 64 * kPageSize);
  }
}

class Listener final : public HeatSink {
 public:
  void told(std::uintptr_t, std::uintptr_t, std::uint32_t, std::uint32_t, Nanos) override {
    FAIL() << "it counts";
  }
  void used(std::uintptr_t address, std::uint64_t times) override { all[address] += times; }
  void counted(Nanos) override { ++rounds; }
  std::map<std::uintptr_t, std::uint64_t> all;
  int rounds = 0;
};

// Beyond what the kernel ever gives: the test has a thread of its own.
constexpr int kNoThread = 5'000'000;

class OfThreads : public testing::Test {
 protected:
  OfThreads() {
    files_.files["/proc/sys/kernel/perf_event_max_sample_rate"] = "100000\n";
    add_intel();
    add_thread(static_cast<int>(os::thread_id()), "heaptier");
  }
  void add_intel() {
    const std::string cpu = "/sys/bus/event_source/devices/cpu/";
    files_.files[cpu + "type"] = "4\n";
    files_.files[cpu + "format/event"] = "config:0-7\n";
    files_.files[cpu + "format/umask"] = "config:8-15\n";
    files_.files[cpu + "format/ldlat"] = "config1:0-15\n";
    files_.files[cpu + "events/mem-loads"] = "event=0xcd,umask=0x1,ldlat=3\n";
    files_.files[cpu + "events/mem-stores"] = "event=0xd0,umask=0x82\n";
  }
  std::string comm(int thread) const {
    return "/proc/self/task/" + std::to_string(thread) + "/comm";
  }
  void add_thread(int thread, const std::string& name) { files_.files[comm(thread)] = name + "\n"; }
  void end_thread(int thread) { files_.files.erase(comm(thread)); }
  Errno begin(unsigned budget = kOnePercent) { return sampler_.begin(budget, now_); }
  void round(Nanos later = millis(100)) {
    now_ = now_ + later;
    sampler_.round({kBase, bits_, 1}, now_, sink_);
  }
  StatsSnapshot stats() {
    StatsSnapshot s{};
    stats_.read(&s);
    sampler_.read(&s);
    return s;
  }
  bool why_not(const char* part) {
    return std::string(sampler_.why_not()).find(part) != std::string::npos;
  }

  FakeFileTree files_;
  FakeAccesses events_;
  Stats stats_;
  PerfSampler sampler_{files_, events_, stats_};
  Listener sink_;
  std::uint64_t bits_[1] = {1};
  Nanos now_ = seconds(5);
};

TEST_F(OfThreads, LoadsAndStoresOfEachThreadButOurOwn) {
  add_thread(kNoThread + 101, "app");
  add_thread(kNoThread + 102, "heaptier-fault");
  add_thread(kNoThread + 103, "heaptierish");
  ASSERT_TRUE(begin().ok()) << sampler_.why_not();
  EXPECT_TRUE(events_.open_events.empty()) << "trying leaves nothing";
  round();
  EXPECT_EQ(events_.threads(), 2U);
  ASSERT_NE(events_.of(kNoThread + 101, 1), nullptr);
  ASSERT_NE(events_.of(kNoThread + 103, 1), nullptr);
  EXPECT_EQ(events_.of(kNoThread + 101)->event.config[0], 0x1cdU);
  EXPECT_EQ(events_.of(kNoThread + 101, 1)->event.config[0], 0x82d0U);
  EXPECT_EQ(events_.of(kNoThread + 101)->event.precise, 2U);
  EXPECT_EQ(stats().sampler_threads, 2U);
  EXPECT_EQ(stats().sampler_starts, 1U);
  EXPECT_EQ(stats().sampler_left_out, 0U);
  sampler_.stop();
  EXPECT_TRUE(events_.open_events.empty());
  EXPECT_EQ(events_.wrongly_closed, 0);
  EXPECT_FALSE(sampler_.tells());
  EXPECT_EQ(stats().sampler_threads, 0U);
}

TEST_F(OfThreads, SamplesAreHandedOnWithWhatTheyStandFor) {
  add_thread(kNoThread + 101, "app");
  ASSERT_TRUE(begin().ok());
  round();
  constexpr std::uint64_t kL1Hit = std::uint64_t{0x02 | 0x08} << 5;
  constexpr std::uint64_t kL1Miss = std::uint64_t{0x04 | 0x08} << 5;
  FakeAccesses::access(events_.of(kNoThread + 101, 0), kBase + 64, 100);
  FakeAccesses::access(events_.of(kNoThread + 101, 0), kBase + 64, 150);
  FakeAccesses::access(events_.of(kNoThread + 101, 1), kBase + 4096, 7, kL1Miss);
  FakeAccesses::access(events_.of(kNoThread + 101, 1), kBase + 8192, 9, kL1Hit);
  FakeAccesses::access(events_.of(kNoThread + 101, 0), 0, 9);
  FakeAccesses::lose(events_.of(kNoThread + 101, 0), 12);
  FakeAccesses::throttle(events_.of(kNoThread + 101, 1));
  round();
  const std::map<std::uintptr_t, std::uint64_t> expected = {{kBase + 64, 250}, {kBase + 4096, 7}};
  EXPECT_EQ(sink_.all, expected) << "what stays in the near caches is no use";
  EXPECT_EQ(sink_.rounds, 2);
  EXPECT_EQ(stats().sampler_reports, 5U);
  EXPECT_EQ(stats().sampler_lost, 12U);
  EXPECT_EQ(stats().sampler_throttled, 1U);
  round();
  EXPECT_EQ(sink_.all, expected) << "once";
}

TEST_F(OfThreads, NewOnesAreFoundAndEndedOnesClosed) {
  ASSERT_TRUE(begin().ok());
  round();
  EXPECT_EQ(events_.threads(), 0U);
  for (int t = 1000; t < 1100; ++t) add_thread(kNoThread + t, "app");
  round();
  EXPECT_EQ(events_.threads(), 32U) << "a fork waits for a round";
  for (int i = 0; i < 4; ++i) round(millis(10));
  EXPECT_EQ(events_.threads(), 100U);
  for (int t = 1000; t < 1099; ++t) end_thread(kNoThread + t);
  round();
  round();
  EXPECT_EQ(events_.threads(), 1U);
  ASSERT_NE(events_.of(kNoThread + 1099), nullptr);
  EXPECT_EQ(events_.wrongly_closed, 0);
  events_.refuses_thread[kNoThread + 2000] = {ESRCH};
  add_thread(kNoThread + 2000, "app");
  round();
  round();
  EXPECT_EQ(events_.threads(), 1U) << "gone before it could be opened";
  EXPECT_TRUE(sampler_.tells());
}

TEST_F(OfThreads, WhereThereAreTooManyTheQuietGiveWay) {
  constexpr int kThreads = 600;
  for (int t = 0; t < kThreads; ++t) add_thread(kNoThread + 1000 + t, "app");
  ASSERT_TRUE(begin().ok());
  std::map<int, int> sampled;
  for (int i = 0; i < 300; ++i) {
    // One that is busy, once it is sampled.
    if (auto* e = events_.of(kNoThread + 1001); e != nullptr) FakeAccesses::access(e, kBase, 1);
    round();
    for (const auto& e : events_.open_events) ++sampled[e.thread];
    ASSERT_LE(events_.threads(), PerfSampler::kMostThreads);
  }
  EXPECT_EQ(sampled.size(), static_cast<std::size_t>(kThreads)) << "each has its turn";
  EXPECT_GE(stats().sampler_left_out,
            static_cast<std::uint64_t>(kThreads) - PerfSampler::kMostThreads);
  EXPECT_GT(sampled[kNoThread + 1001], 2 * 280) << "who tells something stays";
  EXPECT_EQ(events_.wrongly_closed, 0);
}

TEST_F(OfThreads, WhereNoMoreMemoryMayBeLockedThereAreFewer) {
  for (int t = 0; t < 40; ++t) add_thread(kNoThread + 1000 + t, "app");
  ASSERT_TRUE(begin().ok());
  events_.lockable = std::size_t{256} << 10;
  for (int i = 0; i < 100; ++i) round();
  EXPECT_GT(events_.threads(), 0U);
  EXPECT_LT(events_.threads(), 40U);
  EXPECT_EQ(events_.threads() + stats().sampler_left_out, 40U);
  EXPECT_TRUE(sampler_.tells());
  events_.lockable = SIZE_MAX;
  for (int i = 0; i < 200; ++i) round();
  EXPECT_EQ(events_.threads(), 40U);
}

TEST_F(OfThreads, TheRateFollowsTheThreadsThatRun) {
  add_thread(kNoThread + 101, "app");
  ASSERT_TRUE(begin().ok());
  round();
  const std::uint32_t first = events_.of(kNoThread + 101)->pace.per_second;
  EXPECT_GT(first, 0U);
  EXPECT_LE(first * 2, 5000U);
  EXPECT_EQ(stats().sampler_rate, first);
  // It sleeps most of the time.
  for (int i = 0; i < 100; ++i) {
    FakeAccesses::access(events_.of(kNoThread + 101), kBase, 1);
    round();
  }
  EXPECT_EQ(events_.of(kNoThread + 101)->pace.per_second, 5000U);
  // And now there is far more than was wanted.
  for (int i = 0; i < 30; ++i) {
    for (int n = 0; n < 1200; ++n) FakeAccesses::access(events_.of(kNoThread + 101), kBase, 1);
    round();
  }
  EXPECT_LE(events_.of(kNoThread + 101)->pace.per_second, 5000U / 2);
  // The kernel has found that it allows less.
  files_.files["/proc/sys/kernel/perf_event_max_sample_rate"] = "100\n";
  events_.most_rate = 100;
  for (int i = 0; i < 30; ++i) round();
  EXPECT_LE(stats().sampler_rate, 100U);
  add_thread(kNoThread + 102, "app");
  round();
  EXPECT_NE(events_.of(kNoThread + 102), nullptr);
}

TEST_F(OfThreads, TheNextPrecisionWhereOneIsRefused) {
  add_thread(kNoThread + 101, "app");
  events_.refuses_precise[2] = {EOPNOTSUPP};
  ASSERT_TRUE(begin().ok());
  round();
  EXPECT_EQ(events_.of(kNoThread + 101)->event.precise, 3U);
  events_.refuses_precise[3] = {EINVAL};
  ASSERT_TRUE(begin().ok());
  round();
  EXPECT_EQ(events_.of(kNoThread + 101)->event.precise, 1U);
  events_.refuses_precise[1] = {EOPNOTSUPP};
  EXPECT_EQ(begin().code, EOPNOTSUPP);
  EXPECT_TRUE(why_not("does not give the addresses"));
}

TEST_F(OfThreads, AmdHasOneEventAndNoPrecision) {
  files_.files.erase("/sys/bus/event_source/devices/cpu/events/mem-loads");
  files_.files["/sys/bus/event_source/devices/ibs_op/type"] = "11\n";
  add_thread(kNoThread + 101, "app");
  for (std::uint8_t p = 1; p <= 3; ++p) events_.refuses_precise[p] = {EINVAL};
  ASSERT_TRUE(begin().ok()) << sampler_.why_not();
  round();
  EXPECT_EQ(events_.of(kNoThread + 101)->event.type, 11U);
  EXPECT_EQ(events_.of(kNoThread + 101, 1), nullptr);
  sampler_.stop();
  events_.refuses = {EACCES};
  EXPECT_TRUE(begin().failed());
  EXPECT_TRUE(why_not("counts what it does itself")) << sampler_.why_not();
  EXPECT_TRUE(why_not("perf_event_paranoid=1"));
  events_.refuses = {EINVAL};
  EXPECT_TRUE(begin().failed());
  EXPECT_TRUE(why_not("Linux 6.2"));
}

TEST_F(OfThreads, SaysWhyNot) {
  EXPECT_TRUE(begin(0).failed());
  EXPECT_TRUE(why_not("HINT_BUDGET"));
  events_.refuses = {EACCES};
  EXPECT_EQ(begin().code, EACCES);
  EXPECT_TRUE(why_not("kernel.perf_event_paranoid=2"));
  events_.refuses = {EPERM};
  EXPECT_EQ(begin().code, EPERM);
  EXPECT_TRUE(why_not("seccomp profile"));
  events_.refuses = {ENOMEM};
  EXPECT_TRUE(begin().failed());
  EXPECT_TRUE(why_not("perf_event_mlock_kb"));
  events_.refuses = {ENOSYS};
  EXPECT_TRUE(begin().failed());
  EXPECT_TRUE(why_not("no perf_event_open"));
  events_.refuses = {};
  end_thread(static_cast<int>(os::thread_id()));
  EXPECT_TRUE(begin().failed());
  EXPECT_TRUE(why_not("another container"));
  files_.files.clear();
  EXPECT_TRUE(begin().failed());
  EXPECT_TRUE(why_not("no addresses"));
  EXPECT_FALSE(sampler_.tells());
  EXPECT_EQ(stats().sampler_starts, 0U);
  round();
  EXPECT_EQ(sink_.rounds, 0);
}

TEST_F(OfThreads, EndsWhereItIsNotLetAnyMore) {
  ASSERT_TRUE(begin().ok());
  events_.refuses = {EACCES};
  add_thread(kNoThread + 101, "app");
  for (int i = 0; i < 10; ++i) round();
  EXPECT_TRUE(sampler_.tells());
  for (int i = 0; i < 15; ++i) round();
  EXPECT_FALSE(sampler_.tells());
  EXPECT_EQ(stats().sampler_fallbacks, 1U);
}

TEST_F(OfThreads, AListThatCannotBeReadIsReadAgain) {
  add_thread(kNoThread + 101, "app");
  ASSERT_TRUE(begin().ok());
  round();
  files_.fail_from = 0;
  for (int i = 0; i < 50; ++i) round();
  EXPECT_TRUE(sampler_.tells());
  EXPECT_EQ(events_.threads(), 1U) << "those that were there still are";
  files_.fail_from = -1;
  end_thread(kNoThread + 101);
  round();
  round();
  EXPECT_EQ(events_.threads(), 0U);
  files_.fail_from = 0;
  for (int i = 0; i < 50; ++i) round();
  EXPECT_FALSE(sampler_.tells());
}

TEST_F(OfThreads, AChildBeginsWithItsOwnThread) {
  add_thread(kNoThread + 101, "app");
  ASSERT_TRUE(begin().ok());
  round();
  const int closed = events_.closed;
  sampler_.forget();
  EXPECT_EQ(events_.closed, closed) << "they are not there";
  events_.open_events.clear();
  end_thread(kNoThread + 101);
  add_thread(kNoThread + 201, "app");
  EXPECT_TRUE(sampler_.tells());
  EXPECT_EQ(stats().sampler_threads, 0U);
  round();
  EXPECT_EQ(events_.threads(), 1U);
  EXPECT_NE(events_.of(kNoThread + 201), nullptr);
  EXPECT_EQ(events_.wrongly_closed, 0);
}

TEST_F(OfThreads, EventsThatAreKnownAreTakenAsTheyAre) {
  AccessEvents what;
  what.count = 1;
  what.of[0].type = 1;
  what.of[0].config[0] = 2;
  add_thread(kNoThread + 101, "app");
  ASSERT_TRUE(sampler_.begin(what, 1, kOnePercent, now_).ok());
  round();
  EXPECT_EQ(events_.of(kNoThread + 101)->pace.every, 1U);
  EXPECT_EQ(events_.of(kNoThread + 101)->pace.per_second, 0U);
  EXPECT_EQ(events_.of(kNoThread + 101)->event.config[0], 2U);
}

}  // namespace
}  // namespace heaptier
