// Hosts that allow less: address space, descriptors, threads, locked memory, a memory cgroup.
// malloc may fail where it must; nothing may crash, hang or lose a byte.
#include <fcntl.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>

#include "tests/support/cgroup.h"
#include "tests/support/managed.h"
#include "tests/support/process.h"

namespace heaptier::test {
namespace {

// Writes, rewrites and checks `mib` MiB in pieces of 1 MiB and some small ones. 0: all right.
int work(std::size_t mib) {
  std::vector<std::unique_ptr<unsigned char[]>> pieces;
  for (std::uint64_t i = 0; i < mib; ++i) {
    pieces.emplace_back(new (std::nothrow) unsigned char[kMiB]);
    if (pieces.back() == nullptr) return 20;
    fill(pieces.back().get(), kMiB, i);
  }
  for (int round = 0; round < 2; ++round) {
    for (std::uint64_t i = 0; i < mib; ++i) {
      if (first_wrong(pieces[i].get(), kMiB, i) != kMiB) return 21;
    }
  }
  return 0;
}

// "work MIB [tiered]": status 0 when every byte was right and, if so asked, pages were stored on
// the way.
HEAPTIER_ROLE(work) {
  const bool with_store = argc > 2 && preloaded();
  // Limits are kept from the first look at them on.
  if (with_store && wake() == 0) {
    for (int ms = 0; counter("ticks") == 0 && ms < 20000; ++ms) usleep(1000);
  }
  if (const int failed = work(static_cast<std::size_t>(std::atol(argv[1]))); failed != 0)
    return failed;
  if (with_store) {
    if (!tiered()) return 22;
    Area area(kPageblock, 1);
    if (!area.put_at(Place::kStored) || !area.holds()) return 23;
  }
  return 0;
}

// What the heap has given back the application may map by itself.
HEAPTIER_ROLE(give_back) {
  const std::size_t bytes = static_cast<std::size_t>(std::atol(argv[1])) * kMiB;
  for (int round = 0; round < 3; ++round) {
    void* const heap = std::malloc(bytes);
    if (heap == nullptr) return 24;
    fill(static_cast<unsigned char*>(heap), bytes, 1);
    std::free(heap);
    malloc_trim(0);
    void* const own =
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (own == MAP_FAILED) return 25;
    munmap(own, bytes);
  }
  return 0;
}

// Takes memory until there is none, gives it back, and then must still be able to work.
HEAPTIER_ROLE(exhaust) {
  for (const std::size_t bytes : {64 * kMiB, 4 * kMiB, 256 * kKiB, std::size_t{20000}}) {
    std::vector<void*> pieces;
    pieces.reserve(400000);
    while (pieces.size() < pieces.capacity()) {
      void* const p = std::malloc(bytes);
      if (p == nullptr) {
        if (errno != ENOMEM) return 30;
        break;
      }
      pieces.push_back(p);
      std::memset(p, 1, 64);
    }
    if (pieces.size() == pieces.capacity()) return 31;  // no limit was felt
    for (void* p : pieces) std::free(p);
  }
  return work(4);
}

// "limited RESOURCE VALUE role args...": sets the limit and becomes the role.
HEAPTIER_ROLE(limited) {
  close_range(3, ~0u, 0);  // what whoever started the test left open counts, too
  const rlimit limit{std::strtoull(argv[2], nullptr, 10), std::strtoull(argv[2], nullptr, 10)};
  if (setrlimit(static_cast<__rlimit_resource_t>(std::atoi(argv[1])), &limit) != 0) return 40;
  const std::string role = std::string("--role=") + argv[3];
  std::vector<char*> next{const_cast<char*>("limited"), const_cast<char*>(role.c_str())};
  for (int i = 4; i < argc; ++i) next.push_back(argv[i]);
  next.push_back(nullptr);
  execv("/proc/self/exe", next.data());
  return 41;
}

Ended under(int resource, std::size_t value, std::vector<std::string> role) {
  std::vector<std::string> args{std::to_string(resource), std::to_string(value)};
  args.insert(args.end(), role.begin(), role.end());
  return run_role("limited", args, {}, 40);
}

TEST(Limits, AddressSpaceThatSuffices) {
  // Enough for the work three times over: it must be done, tiered or not.
  for (const unsigned mib : {192u, 256u, 512u, 1024u, 4096u, 65536u}) {
    EXPECT_TRUE(exited(under(RLIMIT_AS, mib * kMiB, {"work", "48"}), 0)) << mib << " MiB";
  }
  note_away(preloaded());
}

TEST(Limits, AddressSpaceThatSufficesForTiering) {
  for (const unsigned mib : {2048u, 16384u}) {
    EXPECT_TRUE(exited(under(RLIMIT_AS, mib * kMiB, {"work", "48", "tiered"}), 0)) << mib << " MiB";
  }
}

TEST(Limits, AddressSpaceUsedUp) {
  for (const unsigned mib : {96u, 400u}) {
    EXPECT_TRUE(exited(under(RLIMIT_AS, mib * kMiB, {"exhaust"}), 0)) << mib << " MiB";
  }
}

TEST(Limits, SoStrictThatAlmostNothingFits) {
  // The program itself must come up and do a little, with whatever the library can get.
  for (const unsigned mib : {40u, 64u}) {
    EXPECT_TRUE(exited(under(RLIMIT_AS, mib * kMiB, {"work", "4"}), 0)) << mib << " MiB";
  }
}

TEST(Limits, DataSegment) {
  EXPECT_TRUE(exited(under(RLIMIT_DATA, 256 * kMiB, {"work", "48"}), 0));
  EXPECT_TRUE(exited(under(RLIMIT_DATA, 128 * kMiB, {"exhaust"}), 0));
  // Nothing that tiering maps may be counted against the heap.
  EXPECT_TRUE(exited(under(RLIMIT_DATA, 192 * kMiB, {"work", "128"}), 0));
  EXPECT_TRUE(exited(under(RLIMIT_DATA, 192 * kMiB, {"give_back", "128"}), 0));
}

TEST(Limits, Descriptors) {
  for (const unsigned n : {4u, 5u, 6u, 8u, 12u}) {
    EXPECT_TRUE(exited(under(RLIMIT_NOFILE, n, {"work", "24"}), 0)) << n << " descriptors";
  }
}

TEST(Limits, LockedMemoryAndStack) {
  EXPECT_TRUE(exited(under(RLIMIT_MEMLOCK, 0, {"work", "24", "tiered"}), 0));
  EXPECT_TRUE(exited(under(RLIMIT_STACK, 128 * kKiB, {"work", "24"}), 0));
}

// Becomes nobody where it can, then may not make a thread (the limit does not bind root).
HEAPTIER_ROLE(threadless) {
  if (setgid(65534) != 0 || setuid(65534) != 0) return 50;
  const rlimit none{1, 1};
  if (setrlimit(RLIMIT_NPROC, &none) != 0) return 51;
  return work(24);
}

TEST(Limits, Threads) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can become a user without other processes";
  EXPECT_TRUE(exited(run_role("threadless", {}), 0));
}

// "in_cgroup PATH role args...": joins the group and becomes the role.
HEAPTIER_ROLE(in_cgroup) {
  if (!join_cgroup(argv[1])) return 60;
  const std::string role = std::string("--role=") + argv[2];
  std::vector<char*> next{const_cast<char*>("in_cgroup"), const_cast<char*>(role.c_str())};
  for (int i = 3; i < argc; ++i) next.push_back(argv[i]);
  next.push_back(nullptr);
  execv("/proc/self/exe", next.data());
  return 61;
}

// "limited_later PATH MIB": has looked around without a limit, joins the group, and grows at once.
HEAPTIER_ROLE(limited_later) {
  if (wake() != 0) return 62;
  const Area before(kPageblock, 53);
  sleep(1);
  if (!join_cgroup(argv[1])) return 60;
  const int failed = work(static_cast<std::size_t>(std::atol(argv[2])));
  return failed != 0 ? failed : before.holds() ? 0 : 63;
}

// Locks all that it has, with memory away; then lets go.
HEAPTIER_ROLE(lock_everything) {
  if (wake() != 0) return 70;
  Area area(2 * kPageblock, 51);
  if (!area.put_at(Place::kStored)) return 71;
  if (mlockall(MCL_CURRENT) != 0) return 72;
  for (int i = 0; i < 5; ++i) shove(area.data(), area.size());
  unsigned char in_core[2 * kPageblock / kPage];
  if (mincore(area.data(), area.size(), in_core) != 0) return 73;
  for (const unsigned char c : in_core) {
    if ((c & 1) == 0) return 74;
  }
  if (!area.holds()) return 75;
  const Area later(kPageblock, 52);
  shove(later.data(), later.size());
  if (!later.holds()) return 76;
  if (munlockall() != 0) return 77 + 1;
  shove(area.data(), area.size());
  return area.holds() ? 0 : 79;
}

TEST(Limits, EverythingLocked) {
  // In a cgroup: what is locked is filled, and a mapping that should not be would eat the machine.
  const OwnCgroup group(256 * kMiB);
  if (group.path().empty()) GTEST_SKIP() << group.why_not();
  EXPECT_TRUE(exited(run_role("in_cgroup", {group.path(), "lock_everything"}), 0));
}

bool swap_is_on() {
  std::ifstream swaps("/proc/swaps");
  std::string line;
  return std::getline(swaps, line) && std::getline(swaps, line);
}

// The kernel kills at the limit and waits for nobody: growth waits a moment for a background thread
// that gets no CPU, and not longer.
testing::AssertionResult lives(const char* role, const std::vector<std::string>& args,
                               const Changes& changes = {}) {
  Ended ended;
  for (int tries = 0; tries < 3; ++tries) {
    ended = run_role(role, args, changes, 90);
    if (!killed(ended, SIGKILL)) break;
    std::printf("  killed at the limit\n");
  }
  return exited(ended, 0);
}

TEST(Limits, MemoryCgroup) {
  const OwnCgroup group(96 * kMiB);
  if (group.path().empty()) GTEST_SKIP() << group.why_not();
  EXPECT_TRUE(exited(run_role("in_cgroup", {group.path(), "work", "48"}), 0));
  // More than fits: alone the process would be killed; with its cold memory compressed (3:1) it
  // lives.
  if (tiered()) {
    EXPECT_TRUE(lives("in_cgroup", {group.path(), "work", "150", "tiered"}));
    EXPECT_TRUE(lives("in_cgroup", {group.path(), "work", "150"}, {"HEAPTIER_FAST=auto"}));
    EXPECT_TRUE(lives("limited_later", {group.path(), "150"}, {"HEAPTIER_FAST=auto"}));
  } else if (!swap_is_on()) {
    EXPECT_TRUE(killed(run_role("in_cgroup", {group.path(), "work", "150"}), SIGKILL));
  }
}

}  // namespace
}  // namespace heaptier::test
