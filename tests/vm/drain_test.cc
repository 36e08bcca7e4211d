// Memory nodes vacated under a program that goes on working: what lies there goes, new memory stays
// off, what cannot go is reported with its reason, and no byte changes. Run under the library, in a
// machine with nodes 0 and 1; `heaptier ctl` is named by HEAPTIER.
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "runtime/include/heaptier/heaptier.h"
#include "tests/support/managed.h"
#include "tests/support/page_node.h"
#include "tests/support/process.h"

extern "C" {
[[gnu::weak]] int heaptier_drain(int node);
[[gnu::weak]] int heaptier_undrain(int node);
}

namespace heaptier::test {
namespace {

struct Said {
  int code = -1;
  std::string out;
};

// heaptier ctl, of this process.
Said ctl(const std::string& words) {
  const char* heaptier = std::getenv("HEAPTIER");
  const std::size_t space = words.find(' ');
  const Ended ended =
      run_command({heaptier == nullptr ? "heaptier" : heaptier, "ctl", std::to_string(getpid()),
                   words.substr(0, space), words.substr(space + 1)},
                  {"LD_PRELOAD"}, 120);
  Said said;
  if (!ended.timed_out && WIFEXITED(ended.status)) said.code = WEXITSTATUS(ended.status);
  said.out = ended.out + ended.err;
  std::printf("ctl %s -> %d: %s", words.c_str(), said.code, said.out.c_str());
  return said;
}

// Pages of the area on a node. Those that are away at this moment are brought home first.
std::size_t pages_on(int node, const Area& area) {
  std::size_t there = 0;
  for (std::size_t i = 0; i < area.size(); i += kPage) {
    volatile const unsigned char touch = *area.at(i);
    (void)touch;
    there += node_of(area.at(i)) == node ? 1 : 0;
  }
  return there;
}

// The heap keeps what was freed for a while, wherever that is.
void have_on_node_0(const Area& area) {
  ASSERT_EQ(heaptier_drain(1), 0);
  ASSERT_EQ(heaptier_undrain(1), 0);
  ASSERT_EQ(pages_on(0, area), area.size() / kPage);
}

// Threads that write all over areas of their own and look whether it was kept, all the while.
class Workers {
 public:
  explicit Workers(int count) {
    for (int i = 0; i < count; ++i) threads_.emplace_back([this, i] { work(i); });
  }
  ~Workers() {
    stop_ = true;
    for (std::thread& t : threads_) t.join();
    EXPECT_EQ(wrong_.load(), 0);
    EXPECT_GT(rounds_.load(), 0);
  }

 private:
  void work(int seed) {
    constexpr std::size_t kWords = std::size_t{1} << 18;
    const std::unique_ptr<std::uint64_t[]> words(new std::uint64_t[kWords]);
    for (std::uint64_t round = 1; !stop_; ++round) {
      for (std::size_t i = 0; i < kWords; i += 64)
        words[i] = round * i + static_cast<unsigned>(seed);
      for (std::size_t i = 0; i < kWords; i += 64) {
        if (words[i] != round * i + static_cast<unsigned>(seed)) ++wrong_;
      }
      // And some churn.
      const Area small(kPageblock, round);
      if (!small.holds(0, 64 * kKiB)) ++wrong_;
      ++rounds_;
    }
  }
  std::atomic<bool> stop_{false};
  std::atomic<long> wrong_{0};
  std::atomic<long> rounds_{0};
  std::vector<std::thread> threads_;
};

// Lines of the heap's mappings that have a policy of ours.
int lines_with_policy() {
  std::ifstream maps("/proc/self/numa_maps");
  int n = 0;
  for (std::string line; std::getline(maps, line);) {
    if (line.find("prefer (many)") != std::string::npos) ++n;
  }
  return n;
}

class Drain : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (!preloaded() || counter("nodes_drained") < 0) GTEST_SKIP() << "not under heaptier";
    prctl(PR_SET_THP_DISABLE, GetParam() ? 0 : 1, 0, 0, 0);
    ASSERT_EQ(wake(), 0);
    note_away(1);
  }
  void TearDown() override {
    heaptier_undrain(0);
    heaptier_undrain(1);
  }
};

TEST_P(Drain, ANodeIsVacatedWhileTheProgramRuns) {
  const Area area(8 * kMiB, 5);
  have_on_node_0(area);
  const Workers workers(2);

  EXPECT_EQ(ctl("drain node:0").code, 0);
  EXPECT_EQ(pages_on(0, area), 0u);
  EXPECT_TRUE(area.holds());
  EXPECT_GT(lines_with_policy(), 0);
  {
    const Area fresh(4 * kMiB, 6);
    EXPECT_EQ(pages_on(0, fresh), 0u) << "new memory stays off";
    EXPECT_TRUE(fresh.holds());
  }
  EXPECT_EQ(ctl("drain node:1").code, 2) << "the last one";

  EXPECT_EQ(ctl("undrain node:0").code, 0);
  EXPECT_EQ(lines_with_policy(), 0);
  {
    const Area fresh(24 * kMiB, 7);  // more than what was freed and kept
    EXPECT_GT(pages_on(0, fresh), 0u) << "and comes from there again";
  }
  EXPECT_EQ(heaptier_drain(1), 0) << "and up again";
  EXPECT_EQ(pages_on(1, area), 0u);
  EXPECT_TRUE(area.holds());
  EXPECT_EQ(heaptier_undrain(1), 0);
  EXPECT_EQ(heaptier_undrain(1), -ENODEV);
  EXPECT_EQ(heaptier_drain(5), -ENODEV);
  EXPECT_EQ(heaptier_drain(64), -EINVAL);
}

TEST_P(Drain, WhatAPipeHoldsIsReportedAndGoesLater) {
  const Area area(4 * kMiB, 8);
  have_on_node_0(area);
  int pipes[2];
  ASSERT_EQ(pipe(pipes), 0);
  volatile const unsigned char touch = *area.at(kMiB);
  (void)touch;
  iovec part{area.at(kMiB), kPage};
  ASSERT_EQ(vmsplice(pipes[1], &part, 1, 0), static_cast<ssize_t>(kPage));
  const Said said = ctl("drain node:0");
  EXPECT_EQ(said.code, 1);
  EXPECT_NE(said.out.find("pinned by a device or a pipe"), std::string::npos) << said.out;
  // All of its huge page, if it is one: what the heap has kept may be huge whatever we asked for.
  const std::size_t held = pages_on(0, area);
  EXPECT_TRUE(held == 1 || held == 512) << held;
  close(pipes[0]);
  close(pipes[1]);
  // It is looked for again.
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(300);
  while (pages_on(0, area) != 0 && std::chrono::steady_clock::now() < end) usleep(200000);
  EXPECT_EQ(pages_on(0, area), 0u);
  EXPECT_EQ(heaptier_drain(0), 0);
  EXPECT_TRUE(area.holds());
}

TEST_P(Drain, WhatAChildSharesIsReported) {
  const Area area(4 * kMiB, 9);
  have_on_node_0(area);
  int pipes[2];
  ASSERT_EQ(pipe(pipes), 0);
  const pid_t child = fork();
  if (child == 0) {
    char byte = 0;
    close(pipes[1]);
    (void)!read(pipes[0], &byte, 1);
    _exit(area.holds() ? 0 : 1);
  }
  close(pipes[0]);
  const Said said = ctl("drain node:0");
  EXPECT_EQ(said.code, 1);
  EXPECT_NE(said.out.find("shared with a forked child"), std::string::npos) << said.out;
  close(pipes[1]);
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(heaptier_drain(0), 0);
  EXPECT_EQ(pages_on(0, area), 0u);
  EXPECT_TRUE(area.holds());
}

TEST_P(Drain, BackAndForthUnderChurn) {
  const Area area(8 * kMiB, 10);
  const Workers workers(2);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(heaptier_drain(i % 2), 0) << i;
    EXPECT_TRUE(area.holds()) << i;
    EXPECT_EQ(heaptier_undrain(i % 2), 0) << i;
  }
  EXPECT_EQ(lines_with_policy(), 0);
}

INSTANTIATE_TEST_SUITE_P(Of, Drain, testing::Bool(), [](const auto& info) {
  return info.param ? std::string("huge") : std::string("small");
});

}  // namespace
}  // namespace heaptier::test
