// A memory cgroup that holds less than the heap, and less than the first tier: what nodes hold is
// all charged to it, so moving between them is no relief, and pages have to go to the store at the
// end of the chain in time. Run under the library, as root, in a machine with nodes 0 and 1.
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "runtime/include/heaptier/heaptier.h"
#include "tests/support/cgroup.h"
#include "tests/support/managed.h"
#include "tests/support/page_node.h"

extern "C" {
[[gnu::weak]] int heaptier_move(void* const* pages, const int* tiers, int* status, size_t count,
                                unsigned flags);
}

namespace heaptier::test {
namespace {

constexpr std::size_t kLimit = 160 * kMiB;
constexpr std::size_t kHeap = 320 * kMiB;

class Limit : public testing::TestWithParam<bool> {};

// A heap that is written and read all over, twice.
class Heap {
 public:
  bool grow() {
    for (std::size_t i = 0; i < kHeap / kPageblock; ++i) {
      auto* part = static_cast<unsigned char*>(std::aligned_alloc(kPageblock, kPageblock));
      if (part == nullptr) return false;
      fill(part, kPageblock, i);
      parts_.push_back(part);
      // Some of it lies on the slow node when the limit comes near.
      if (i < kOnSlow && on(1, i) != kPageblock / kPage) return false;
    }
    return true;
  }
  bool holds() const {
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      if (first_wrong(parts_[i], kPageblock, i) != kPageblock) return false;
    }
    return true;
  }
  // Uses the first parts, which were moved to the slow node, until they have come up or it has
  // taken too long.
  bool come_up(std::size_t parts) const {
    for (std::size_t i = 0; i < parts; ++i) {
      if (on(1, i) == 0) return false;
    }
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(240);
    for (std::size_t up = 0; std::chrono::steady_clock::now() < end; up = 0) {
      for (int round = 0; round < 500; ++round) use(parts);
      for (std::size_t i = 0; i < parts; ++i) up += used_on(0, i);
      if (up >= parts * kPageblock / kPage * 9 / 10) return true;
    }
    return false;
  }
  // Moves the part to a tier; how many pages are there then.
  std::size_t on(int tier, std::size_t part) const {
    std::vector<void*> pages;
    for (std::size_t at = 0; at < kPageblock; at += kPage) pages.push_back(parts_[part] + at);
    const std::vector<int> tiers(pages.size(), tier);
    std::vector<int> status(pages.size(), -1);
    (void)heaptier_move(pages.data(), tiers.data(), status.data(), pages.size(), 0);
    return static_cast<std::size_t>(std::count(status.begin(), status.end(), tier));
  }

 private:
  void use(std::size_t parts) const {
    for (std::size_t i = 0; i < parts; ++i) {
      for (std::size_t at = 0; at < kPageblock; at += kPage) {
        (void)*static_cast<volatile unsigned char*>(parts_[i] + at);
      }
    }
  }
  // Pages of the part that lie on the node at the moment when they are used.
  std::size_t used_on(int node, std::size_t part) const {
    std::size_t n = 0;
    for (std::size_t at = 0; at < kPageblock; at += kPage) {
      (void)*static_cast<volatile unsigned char*>(parts_[part] + at);
      n += node_of(parts_[part] + at) == node ? 1 : 0;
    }
    return n;
  }

  static constexpr std::size_t kOnSlow = 8;
  std::vector<unsigned char*> parts_;
};

enum Failure : int {
  kNone,
  kNoMemory,
  kWrongBytes,
  kNothingStored,
  kAsleep,
  kNotPlacedMeanwhile,
  kNotPlaced,
  kStuck,
  kNotLimited
};

// In a process of its own: the kernel's killer may come.
int live_below(const std::string& group) {
  Heap heap;
  if (!heap.grow()) return kNoMemory;
  for (int round = 0; round < 2; ++round) {
    if (!heap.holds()) return kWrongBytes;
  }
  const long long stored = counter("stored_pages");
  for (const char* name :
       {"stored_pages", "faults_fetch", "nodes_demoted", "evicted_inline", "evicted_background"}) {
    std::printf("  %s %lld\n", name, counter(name));
  }
  if (stored == 0) return kNothingStored;
  // What is used of it is placed while the limit goes on pressing.
  if (!heap.come_up(8)) return kNotPlacedMeanwhile;
  std::printf("  placed meanwhile: nodes_promoted %lld\n", counter("nodes_promoted"));
  // Without the limit it comes back to memory, and stays there, and is placed again.
  std::ofstream(group + "/memory.max") << "max";
  sleep(7);
  for (int round = 0; round < 2; ++round) {
    if (!heap.holds()) return kWrongBytes;
  }
  if (heap.on(1, 20) != kPageblock / kPage || heap.on(0, 20) != kPageblock / kPage) {
    return kNotPlaced;
  }
  const long long back = counter("stored_pages");
  std::printf("  then stored_pages %lld\n", back);
  return back * 4 > stored ? kStuck : heap.holds() ? kNone : kWrongBytes;
}

TEST_P(Limit, WhatDoesNotFitGoesToTheStore) {
  if (!preloaded()) GTEST_SKIP() << "not under heaptier";
  ASSERT_EQ(wake(), 0);
  note_away(1);
  std::ofstream("/sys/fs/cgroup/cgroup.subtree_control") << "+memory";
  const OwnCgroup group(kLimit);
  if (group.path().empty()) GTEST_SKIP() << group.why_not();
  const pid_t child = fork();
  if (child == 0) {
    prctl(PR_SET_THP_DISABLE, GetParam() ? 0 : 1, 0, 0, 0);
    if (!join_cgroup(group.path())) _exit(kNotLimited);
    _exit(wake() != 0 ? kAsleep : live_below(group.path()));
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_FALSE(WIFSIGNALED(status)) << "signal " << WTERMSIG(status);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

INSTANTIATE_TEST_SUITE_P(Of, Limit, testing::Bool(), [](const auto& info) {
  return info.param ? std::string("huge") : std::string("small");
});

}  // namespace
}  // namespace heaptier::test
