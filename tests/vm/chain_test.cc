// A chain of node tiers under a program that knows nothing of it: what is cold goes down, what is
// touched comes up, huge pages whole, and no byte changes. Run under the library, with a budget
// below what it uses, in a machine with nodes.
#include <malloc.h>
#include <sys/prctl.h>

#include <chrono>
#include <cstdio>
#include <functional>
#include <random>
#include <string>

#include "tests/support/managed.h"
#include "tests/support/page_node.h"
#include "tests/support/vmstat.h"

namespace heaptier::test {
namespace {

using Clock = std::chrono::steady_clock;

// Reads all over a part of the area until `done`, asked now and then, says so.
bool keep_hot(const Area& area, std::size_t from, std::size_t bytes,
              const std::function<bool()>& done) {
  static std::minstd_rand random(7);
  const auto end = Clock::now() + std::chrono::seconds(90);
  while (Clock::now() < end) {
    const auto next = Clock::now() + std::chrono::seconds(2);
    while (Clock::now() < next) {
      for (int i = 0; i < 10000; ++i) {
        volatile const unsigned char read = *area.at(from + random() % bytes);
        (void)read;
      }
    }
    if (done()) return true;
  }
  return false;
}

// The machine has one CPU, on node 0: its software emulation takes the better part of a millisecond
// to have another CPU forget a page, and parking does so page by page.
constexpr int kSlow = 1;

class Chain : public testing::TestWithParam<bool> {
 protected:
  // Small pages are watched one by one, which takes its time in an emulated machine.
  const std::size_t heap_ = GetParam() ? 96 * kMiB : 32 * kMiB;
  const std::size_t hot_ = heap_ / 8;
  void SetUp() override {
    if (!tiered() || counter("nodes_demoted") < 0) GTEST_SKIP() << "no chain of nodes";
    prctl(PR_SET_THP_DISABLE, GetParam() ? 0 : 1, 0, 0, 0);
  }
};

// Of those that are wanted pages of a block come to be served one by one.
long long unwanted_splits() {
  return static_cast<long long>(vmstat("thp_split_page")) - counter("nodes_huge_split");
}

TEST_P(Chain, ColdGoesDownAndTouchedComesUp) {
  const bool huge = GetParam();
  const long long splits = unwanted_splits();
  const long long wanted = counter("nodes_huge_split");
  Area area(heap_, 11);
  const std::size_t first = 0;
  // Then it is the part of which least is there.
  std::size_t second = hot_;
  const auto least_of_others = [&] {
    double least = 2;
    for (std::size_t from = hot_; from < heap_; from += hot_) {
      const double share = share_on(0, area.at(from), hot_);
      if (share < least) {
        least = share;
        second = from;
      }
    }
    return least;
  };
  ASSERT_TRUE(keep_hot(area, first, hot_,
                       [&] {
                         return share_on(kSlow, area.at(0), heap_) > 0.4 &&
                                share_on(0, area.at(first), hot_) > 0.9 && least_of_others() < 0.5;
                       }))
      << "on the slow node: " << share_on(kSlow, area.at(0), heap_)
      << ", of the hot part on node 0: " << share_on(0, area.at(first), hot_)
      << ", least of the others there: " << least_of_others() << "; demoted "
      << counter("nodes_demoted");
  EXPECT_TRUE(area.holds());
  ASSERT_TRUE(
      keep_hot(area, second, hot_, [&] { return share_on(0, area.at(second), hot_) > 0.9; }))
      << share_on(0, area.at(second), hot_) << "; promoted " << counter("nodes_promoted");
  EXPECT_GT(counter("nodes_promoted"), 0);
  for (const char* name :
       {"nodes_promoted", "nodes_demoted", "nodes_huge_moved", "nodes_refused_full",
        "nodes_refused_whole", "nodes_raced", "nodes_failed", "faults_hint", "nodes_slow_pages"}) {
    std::printf("%s %lld\n", name, counter(name));
  }
  if (huge) {
    EXPECT_GT(counter("nodes_huge_moved"), 0);
    // The heap gives parts of huge pages back by itself, before the area comes to be.
    EXPECT_LE(unwanted_splits(), splits + 2) << "huge pages were split";
    // All of each is used alike. That few of it is hot is believed of one in fifty by chance.
    EXPECT_LE(counter("nodes_huge_split"), wanted + 4);
  }
  EXPECT_TRUE(area.holds());
  note_away(static_cast<long>(counter("nodes_demoted")));
}

// Filled in small pages; then huge ones are allowed.
class Gathered : public Chain {};
TEST_P(Gathered, HotSmallPagesBecomeHugeOnes) {
  // What the heap has kept of the test before would be used again as it is: in huge pages.
  malloc_trim(0);
  prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
  Area area(heap_, 23);
  const auto at = reinterpret_cast<std::uintptr_t>(area.data());
  ASSERT_LT(huge_bytes(at, area.size()), hot_) << "the area is not made of small pages";
  prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
  const long long before = counter("collapse_done");
  ASSERT_TRUE(keep_hot(area, 0, hot_, [&] { return counter("collapse_done") >= before + 3; }))
      << "tried " << counter("collapse_tries") << ", refused " << counter("collapse_failed");
  EXPECT_TRUE(area.holds());
  // They are watched and moved whole from then on.
  const long long whole = counter("huge_parked");
  const long long splits = unwanted_splits();
  ASSERT_TRUE(keep_hot(area, 0, hot_, [&] { return counter("huge_parked") >= whole + 8; }));
  // One may fall between the two looks, and the heap gives parts of huge pages back by itself.
  EXPECT_LE(unwanted_splits(), splits + 2) << "what was gathered was taken apart";
  EXPECT_TRUE(area.holds());
  note_away(static_cast<long>(counter("huge_parked")));
}

INSTANTIATE_TEST_SUITE_P(Of, Gathered, testing::Values(true),
                         [](const auto&) { return std::string("huge"); });
INSTANTIATE_TEST_SUITE_P(Of, Chain, testing::Bool(), [](const auto& info) {
  return info.param ? std::string("huge") : std::string("small");
});

}  // namespace
}  // namespace heaptier::test
