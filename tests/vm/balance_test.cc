// Memory of a tier with two sockets goes to the one whose threads use it; what both use stays. Run
// under the library in a machine with two nodes of a CPU each.
#include <sched.h>
#include <sys/prctl.h>

#include <atomic>
#include <barrier>
#include <chrono>
#include <cstdio>
#include <random>
#include <string>
#include <thread>

#include "tests/support/managed.h"
#include "tests/support/page_node.h"

namespace heaptier::test {
namespace {

using Clock = std::chrono::steady_clock;

void run_on(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<unsigned>(cpu), &set);
  ASSERT_EQ(sched_setaffinity(0, sizeof set, &set), 0);
}

void read_some(const Area& area, std::size_t from, std::size_t bytes, std::minstd_rand& random) {
  for (int i = 0; i < 2000; ++i) {
    volatile const unsigned char read = *area.at(from + random() % bytes);
    (void)read;
  }
}

// Of the pages that are mapped, the part that lies on the node. A parked one counts as not there.
double share_on(int node, const Area& area, std::size_t from, std::size_t bytes) {
  std::minstd_rand random(5);
  int there = 0;
  int mapped = 0;
  for (int i = 0; i < 256; ++i) {
    const int at = node_of(area.at(from + random() % (bytes / kPage) * kPage));
    if (at < 0) continue;
    ++mapped;
    if (at == node) ++there;
  }
  return mapped == 0 ? 0 : static_cast<double>(there) / mapped;
}

class Balance : public testing::TestWithParam<bool> {
 protected:
  static constexpr std::size_t kPart = 16 * kMiB;
  static constexpr long long kMost = kPart / kPage * 9 / 10;
  void SetUp() override {
    if (!tiered() || counter("nodes_balanced") < 0) GTEST_SKIP() << "not under the library";
    prctl(PR_SET_THP_DISABLE, GetParam() ? 0 : 1, 0, 0, 0);
  }
};

TEST_P(Balance, MemoryGoesToTheSocketThatUsesIt) {
  run_on(0);
  Area area(3 * kPart, 17);  // first: used by CPU 1; second: by both; third: by CPU 0
  ASSERT_GT(share_on(0, area, 0, area.size()), 0.9) << "not where it was first touched";
  const long long moved_before = counter("nodes_balanced");
  std::atomic<bool> stop{false};
  std::barrier in_step(2);  // both use what both use alike, however much CPU each gets
  std::thread other([&] {
    run_on(1);
    std::minstd_rand random(1);
    for (;;) {
      in_step.arrive_and_wait();
      if (stop) return;
      read_some(area, kPart, kPart, random);
      read_some(area, 0, kPart, random);
    }
  });
  std::minstd_rand random(2);
  const auto end = Clock::now() + std::chrono::seconds(150);
  while (Clock::now() < end) {
    const auto next = Clock::now() + std::chrono::seconds(2);
    while (Clock::now() < next) {
      in_step.arrive_and_wait();
      read_some(area, kPart, kPart, random);
      read_some(area, 2 * kPart, kPart, random);
    }
    // Some pages answer for all, and what is known to have moved may be a little more or less.
    if (share_on(1, area, 0, kPart) > 0.9 && counter("nodes_balanced") - moved_before >= kMost) {
      break;
    }
  }
  EXPECT_GT(share_on(1, area, 0, kPart), 0.9) << "used by CPU 1 alone";
  EXPECT_GT(share_on(0, area, 2 * kPart, kPart), 0.9) << "used by CPU 0 alone";
  EXPECT_GT(share_on(0, area, kPart, kPart), 0.6) << "used by both: nothing is won";
  stop = true;
  in_step.arrive_and_drop();
  other.join();
  EXPECT_TRUE(area.holds());
  const long long moved = counter("nodes_balanced") - moved_before;
  EXPECT_GE(moved, kMost);
  EXPECT_LE(moved, static_cast<long long>(2 * kPart / kPage)) << "to and fro";
  note_away(static_cast<long>(moved));
  for (const char* name : {"nodes_balanced", "nodes_huge_moved", "nodes_refused_full",
                           "nodes_failed", "faults_hint", "ticks"}) {
    std::printf("%s %lld\n", name, counter(name));
  }
  if (GetParam()) {
    EXPECT_GT(counter("nodes_huge_moved"), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Of, Balance, testing::Bool(), [](const auto& info) {
  return info.param ? std::string("huge") : std::string("small");
});

}  // namespace
}  // namespace heaptier::test
