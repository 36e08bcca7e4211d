// The kernel's NUMA balancing is kept off the heap while a chain of nodes is in force, until a
// thread asks for a place of its own for its new memory: that comes first then, at once. Run under
// the library, in a machine with nodes and with kernel.numa_balancing on.
#include <numaif.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/managed.h"
#include "tests/support/page_node.h"

namespace heaptier::test {
namespace {

constexpr int kFlags = 7 << 13;  // MPOL_MODE_FLAGS
constexpr int kLocal = 4;

int policy_at(const void* at) {
  int mode = -1;
  if (syscall(SYS_get_mempolicy, &mode, nullptr, 0, at, MPOL_F_ADDR) != 0) return -1;
  return mode & ~kFlags;
}

// Whether new memory of this thread comes from node 1, since it wants that; and at once, which it
// does unless the background thread gets no CPU.
bool gets_its_place(const Area& heap, bool* at_once) {
  const unsigned long slow = 1UL << 1;
  if (syscall(SYS_set_mempolicy, MPOL_BIND, &slow, 65) != 0) return false;
  *at_once = policy_at(heap.at(0)) == MPOL_DEFAULT;  // of the mapping; so the thread's holds
  for (int ms = 0; policy_at(heap.at(0)) != MPOL_DEFAULT; ++ms) {
    if (ms == 60000) return false;
    usleep(1000);
  }
  const Area mine(8 * kMiB, 7);
  const bool there = share_on(1, mine.at(0), mine.size()) > 0.5;
  return syscall(SYS_set_mempolicy, MPOL_DEFAULT, nullptr, 0) == 0 && there && heap.holds() &&
         mine.holds();
}

TEST(KernelBalancing, IsKeptOffTheHeapUntilAThreadPlacesItsMemory) {
  if (!tiered()) GTEST_SKIP() << "no chain of nodes";
  const Area heap(16 * kMiB, 5);
  ASSERT_EQ(policy_at(heap.at(0)), kLocal);
  // What the kernel's own way is says nothing about a place.
  ASSERT_EQ(syscall(SYS_set_mempolicy, MPOL_LOCAL, nullptr, 0), 0);
  EXPECT_EQ(policy_at(heap.at(0)), kLocal);
  ASSERT_EQ(syscall(SYS_set_mempolicy, MPOL_DEFAULT, nullptr, 0), 0);
  // A child's threads are its own.
  bool at_once = false;
  for (int tries = 0; tries < 3 && !at_once; ++tries) {
    const pid_t child = fork();
    if (child == 0) {
      const bool gets = wake() == 0 && gets_its_place(heap, &at_once);
      _exit(!gets ? 1 : at_once ? 0 : 2);
    }
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status));
    EXPECT_NE(WEXITSTATUS(status), 1);
    at_once = WEXITSTATUS(status) == 0;
  }
  EXPECT_TRUE(at_once) << "late in each of three children";
  EXPECT_EQ(policy_at(heap.at(0)), kLocal);
  EXPECT_TRUE(gets_its_place(heap, &at_once));
  const Area later(64 * kMiB, 9);
  EXPECT_EQ(policy_at(later.at(later.size() - 1)), MPOL_DEFAULT) << "and it stays so";
  EXPECT_TRUE(heap.holds());
  note_away(1);
}

}  // namespace
}  // namespace heaptier::test
