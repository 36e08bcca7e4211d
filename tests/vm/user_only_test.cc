// A heap that the program declares user-only is placed also where pages cannot be parked (they are
// hidden), and nothing else is; the program's own SIGSEGV handler is its own. Run under the
// library, with a budget below what is used, on a kernel without UFFDIO_MOVE.
#include <setjmp.h>
#include <signal.h>

#include <chrono>
#include <cstring>
#include <heaptier/heaptier.hpp>
#include <random>

#include "tests/support/managed.h"
#include "tests/support/page_node.h"
#include "tests/support/pattern.h"

namespace heaptier::test {
namespace {

using Clock = std::chrono::steady_clock;

sigjmp_buf g_back;
void* volatile g_addr = nullptr;

void on_fault(int, siginfo_t* info, void*) {
  g_addr = info->si_addr;
  siglongjmp(g_back, 1);
}

TEST(UserOnly, IsPlacedAndTheRestIsNot) {
  constexpr std::size_t kBytes = 64 * kMiB;
  constexpr std::size_t kHot = 8 * kMiB;
  if (!tiered()) GTEST_SKIP() << "no chain of nodes";
  heaptier::Heap heap(HEAPTIER_HEAP_USER_ONLY);
  auto* const data = static_cast<unsigned char*>(heap.allocate(kBytes, kPageblock));
  ASSERT_NE(data, nullptr);
  fill(data, kBytes, 5);
  const Area ordinary(16 * kMiB, 6);
  std::minstd_rand random(7);
  const auto end = Clock::now() + std::chrono::seconds(90);
  double cold = 0;
  double hot = 0;
  while (Clock::now() < end && (cold < 0.3 || hot < 0.9)) {
    const auto next = Clock::now() + std::chrono::seconds(2);
    while (Clock::now() < next) {
      for (int i = 0; i < 10000; ++i) {
        volatile const unsigned char read = data[random() % kHot];
        (void)read;
      }
    }
    hot = share_on(0, data, kHot);
    cold = share_on(1, data + kHot, kBytes - kHot);
  }
  EXPECT_GE(cold, 0.3) << "of what is cold; demoted " << counter("nodes_demoted");
  EXPECT_GE(hot, 0.9) << "of what is hot";
  EXPECT_EQ(first_wrong(data, kBytes, 5), kBytes);
  EXPECT_EQ(share_on(0, ordinary.data(), ordinary.size()), 1.0) << "who knows what is hot there?";
  EXPECT_TRUE(ordinary.holds());
  EXPECT_GT(counter("faults_hint"), 0);

  struct sigaction action {};
  struct sigaction old {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO;
  ASSERT_EQ(sigaction(SIGSEGV, &action, &old), 0);
  EXPECT_EQ(old.sa_handler, SIG_DFL) << "heaptier's is not the program's business";
  if (sigsetjmp(g_back, 1) == 0) write_to(24);
  EXPECT_EQ(g_addr, reinterpret_cast<void*>(24));
  EXPECT_EQ(first_wrong(data, kBytes, 5), kBytes) << "and hidden pages are still served";
  note_away(static_cast<long>(counter("nodes_demoted")));
}

}  // namespace
}  // namespace heaptier::test
