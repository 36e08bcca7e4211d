// Interleaving under the library, on real nodes: every page exactly where the pattern has it,
// memory that was there before as well as memory that comes later, small pages and huge ones, and
// no byte lost. Where the pages are is asked of the kernel by the test itself. Run in a machine
// whose nodes' weights are named by WEIGHTS ("0=26,1=5"); WHOLE: under --policy interleave.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "runtime/include/heaptier/heaptier.h"
#include "tests/support/huge_block.h"
#include "tests/support/managed.h"
#include "tests/support/process.h"
#include "tests/support/vmstat.h"

extern "C" {
[[gnu::weak]] int heaptier_advise(void* p, size_t bytes, int advice);
[[gnu::weak]] int heaptier_move(void* const* pages, const int* tiers, int* status, size_t count,
                                unsigned flags);
[[gnu::weak]] int heaptier_tiers(void);
}

namespace heaptier::test {
namespace {

// The order of nodes that the weights make, one entry a page.
std::vector<int> round_of(const std::string& weights) {
  std::vector<int> nodes;
  for (std::size_t at = 0; at < weights.size();) {
    int node = 0;
    int weight = 0;
    int read = 0;
    EXPECT_EQ(std::sscanf(weights.c_str() + at, "%d=%d%n", &node, &weight, &read), 2) << weights;
    nodes.insert(nodes.end(), static_cast<std::size_t>(weight), node);
    at += static_cast<std::size_t>(read) + 1;
    if (read == 0) break;
  }
  return nodes;
}

std::string weights() {
  const char* text = std::getenv("WEIGHTS");
  return text == nullptr ? "" : text;
}
bool whole() {
  return std::getenv("WHOLE") != nullptr;
}

struct Placed {
  std::size_t right = 0;
  std::size_t wrong = 0;
  std::size_t absent = 0;
  std::size_t huge = 0;  // blocks
  std::map<int, std::size_t> on;
};

// Where every page of the area is, and where it should be.
Placed look(const Area& area, const std::string& by = weights()) {
  const std::vector<int> round = round_of(by);
  Placed placed;
  for (std::size_t block = 0; block < area.size(); block += kPageblock) {
    const bool huge = is_huge(area.at(block));
    placed.huge += huge ? 1 : 0;
    std::vector<void*> pages;
    for (std::size_t i = 0; i < kPageblock; i += kPage) pages.push_back(area.at(block + i));
    std::vector<int> nodes(pages.size(), -1);
    EXPECT_EQ(syscall(SYS_move_pages, 0, pages.size(), pages.data(), nullptr, nodes.data(), 0), 0);
    for (std::size_t i = 0; i < pages.size(); ++i) {
      const auto number = reinterpret_cast<std::uintptr_t>(pages[i]) / (huge ? kPageblock : kPage);
      ++placed.on[nodes[i]];
      if (nodes[i] < 0) {
        ++placed.absent;
      } else if (nodes[i] == round[number % round.size()]) {
        ++placed.right;
      } else {
        ++placed.wrong;
      }
    }
  }
  return placed;
}

testing::AssertionResult exact(const Area& area, const std::string& by = weights()) {
  const Placed placed = look(area, by);
  std::string where;
  for (const auto& [node, pages] : placed.on) {
    where += " node " + std::to_string(node) + ": " + std::to_string(pages);
  }
  std::printf("  %zu right, %zu wrong, %zu absent, %zu huge;%s\n", placed.right, placed.wrong,
              placed.absent, placed.huge, where.c_str());
  if (placed.wrong == 0 && placed.absent == 0) return testing::AssertionSuccess();
  return testing::AssertionFailure() << placed.wrong << " of " << area.size() / kPage
                                     << " pages are in no place of theirs:" << where;
}

bool soon(const std::function<bool()>& is, int longest = 300) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(longest);
  while (!is()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
  return true;
}

bool soon_exact(const Area& area) {
  return soon([&] {
    const Placed placed = look(area);
    return placed.wrong == 0 && placed.absent == 0;
  });
}

void put_on(const Area& area, int node) {
  for (std::size_t i = 0; i < area.size(); i += kPage) {
    void* page = area.at(i);
    int status = 0;
    syscall(SYS_move_pages, 0, 1UL, &page, &node, &status, 2);
  }
}

class Interleaved : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (!preloaded() || counter("nodes_interleaved") < 0) GTEST_SKIP() << "not under heaptier";
    ASSERT_FALSE(weights().empty());
    prctl(PR_SET_THP_DISABLE, GetParam() ? 0 : 1, 0, 0, 0);
    ASSERT_EQ(wake(), 0);
    note_away(1);
  }
};

TEST_P(Interleaved, WhatWasThereBeforeGoesExactlyToItsPlace) {
  if (whole()) GTEST_SKIP() << "nothing is elsewhere here";
  const Area area(32 * kMiB, 1);
  put_on(area, 0);
  const std::uint64_t splits = vmstat("thp_migration_split");
  const std::size_t huge = look(area).huge;
  EXPECT_EQ(huge, GetParam() ? area.size() / kPageblock : 0);
  EXPECT_EQ(heaptier_advise(area.data(), area.size(), HEAPTIER_INTERLEAVE), 0);
  EXPECT_TRUE(exact(area));
  EXPECT_EQ(look(area).huge, huge) << "huge pages stay huge";
  if (GetParam()) {
    EXPECT_EQ(vmstat("thp_migration_split"), splits);
  }
  EXPECT_TRUE(area.holds());

  // Moved away, it comes back; taken back, it does not.
  put_on(area, 1);
  EXPECT_TRUE(soon_exact(area));
  EXPECT_TRUE(exact(area));
  EXPECT_EQ(heaptier_advise(area.data(), area.size(), HEAPTIER_UNINTERLEAVE), 0);
  const long long moved = counter("nodes_interleaved");
  put_on(area, 1);
  sleep(4);
  EXPECT_EQ(counter("nodes_interleaved"), moved);
  EXPECT_TRUE(area.holds());
}

TEST_P(Interleaved, WhatComesLaterGetsThere) {
  const Area area(16 * kMiB, 2);
  if (!whole()) {
    ASSERT_EQ(heaptier_advise(area.data(), area.size(), HEAPTIER_INTERLEAVE), 0);
    // Emptied, but no pageblock at once, which would be the end of it; and filled again.
    for (std::size_t at = 0; at < area.size(); at += kMiB) {
      ASSERT_EQ(madvise(area.at(at), kMiB, MADV_DONTNEED), 0);
    }
    fill(area.data(), area.size(), 2);
  }
  EXPECT_TRUE(soon_exact(area));
  EXPECT_TRUE(exact(area));
  EXPECT_TRUE(area.holds());
}

TEST_P(Interleaved, WhileItIsUsedAndAChildSharesIt) {
  const Area area(16 * kMiB, 3);
  put_on(area, 1);
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
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::thread reader([&] {
    while (!stop) wrong += area.holds() ? 0 : 1;
  });
  if (!whole()) {
    EXPECT_GT(heaptier_advise(area.data(), area.size(), HEAPTIER_INTERLEAVE), 0)
        << "what the child has stays";
  } else {
    sleep(2);
  }
  close(pipes[1]);
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(soon_exact(area)) << "when it has gone, the rest follows";
  EXPECT_TRUE(exact(area));
  stop = true;
  reader.join();
  EXPECT_EQ(wrong, 0);
}

TEST_P(Interleaved, PinnedMemoryStays) {
  if (whole()) GTEST_SKIP() << "of ranges";
  const Area area(4 * kMiB, 4);
  put_on(area, 1);
  ASSERT_EQ(heaptier_advise(area.data(), kPageblock, HEAPTIER_PIN), 0);
  put_on(area, 1);
  EXPECT_EQ(heaptier_advise(area.data(), area.size(), HEAPTIER_INTERLEAVE), 0);
  std::map<int, std::size_t> on = look(area).on;
  EXPECT_GE(on[1], kPageblock / kPage);
  EXPECT_EQ(heaptier_advise(area.data(), kPageblock, HEAPTIER_UNPIN), 0);
  EXPECT_TRUE(soon_exact(area));
  // A pipe holds a page: it is said, and later done.
  int pipes[2];
  ASSERT_EQ(pipe(pipes), 0);
  put_on(area, 1);
  iovec part{area.at(kMiB), kPage};
  ASSERT_EQ(vmsplice(pipes[1], &part, 1, 0), static_cast<ssize_t>(kPage));
  (void)heaptier_advise(area.data(), area.size(), HEAPTIER_INTERLEAVE);
  close(pipes[0]);
  close(pipes[1]);
  EXPECT_TRUE(soon_exact(area));
  EXPECT_TRUE(area.holds());
}

TEST_P(Interleaved, IsReported) {
  const Area area(4 * kMiB, 5);
  if (!whole()) {
    ASSERT_EQ(heaptier_advise(area.data(), area.size(), HEAPTIER_INTERLEAVE), 0);
  }
  EXPECT_TRUE(soon([&] {
    return counter("interleaved_pages") >= static_cast<long long>(area.size() / kPage);
  })) << counter("interleaved_pages");
  const char* heaptier = std::getenv("HEAPTIER");
  const Ended said = run_command({heaptier, "ctl", std::to_string(getpid()), "tiers"},
                                 {"LD_PRELOAD", "HEAPTIER_POLICY"}, 60);
  std::printf("%s%s", said.out.c_str(), said.err.c_str());
  EXPECT_NE(said.out.find("weights " + weights() + " ("), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Of, Interleaved, testing::Bool(), [](const auto& info) {
  return info.param ? std::string("huge") : std::string("small");
});

}  // namespace
}  // namespace heaptier::test
