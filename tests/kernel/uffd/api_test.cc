// The ioctls, one by one, against the running kernel: above all what they say when they succeed in
// part.
#include "uffd/api.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <setjmp.h>
#include <signal.h>

#include <string>
#include <thread>
#include <vector>

#include "tests/kernel/uffd/fixture.h"
#include "tests/support/vmstat.h"
#include "uffd/thread_door.h"

namespace heaptier {
namespace {

using test::huge_bytes;
using testing::exited_with;
using testing::fill_page;
using testing::in_child;
using testing::Mapping;
using testing::page_is_right;

class Uffd : public ::testing::Test {
 protected:
  void SetUp() override { HEAPTIER_OPEN_OR_SKIP(port, OpenMode::kHandler, &source); }
  void TearDown() override { port.close(); }

  // Fills `pages` pages of `m` from `first` on, through the port.
  void fill(const Mapping& m, std::size_t first, std::size_t pages) {
    alignas(kPageSize) char page[kPageSize];
    for (std::size_t i = first; i < first + pages; ++i) {
      fill_page(m.at(i), page);
      const RunResult r = port.copy(m.at(i), page, kPageSize, false, true);
      ASSERT_TRUE(r.error.ok()) << r.error.code;
    }
  }

  Userfaultfd port;
  Source source = Source::kNone;
};

TEST_F(Uffd, SaysWhereItCameFromAndStaysOutOfTheWay) {
  EXPECT_NE(source, Source::kNone);
  EXPECT_NE(source, Source::kUserModeOnly);
  EXPECT_TRUE(port.features().wp);
  EXPECT_TRUE(port.features().thread_id);
  EXPECT_GE(port.fd(), 64);
  EXPECT_NE(fcntl(port.fd(), F_GETFD) & FD_CLOEXEC, 0);
  EXPECT_NE(fcntl(port.fd(), F_GETFL) & O_NONBLOCK, 0);
  EXPECT_EQ(port.open(OpenMode::kHandler, nullptr), Errno{EBUSY});
  const ProbeResult r = probe();
  EXPECT_EQ(r.source, source);
  EXPECT_EQ(r.features.raw, port.features().raw);
}

TEST_F(Uffd, KeepsTheCallersErrno) {
  errno = 4711;
  EXPECT_TRUE(port.register_range(1, 1).failed());
  RawEvent e[1];
  std::size_t n = 1;
  EXPECT_TRUE(port.read_events(e, 1, &n).ok());
  EXPECT_EQ(n, 0u);
  EXPECT_EQ(errno, 4711);
}

TEST_F(Uffd, CopiesAndStopsAtAPageThatIsThere) {
  const Mapping m(16 * kPageSize);
  const Mapping from(16 * kPageSize);
  for (std::size_t i = 0; i < 16; ++i) fill_page(m.at(i), from.ptr(i));
  ASSERT_TRUE(port.register_range(m.at(), m.bytes()).ok());
  fill(m, 5, 1);
  const RunResult r = port.copy(m.at(), from.ptr(), m.bytes(), false, true);
  EXPECT_EQ(r.error, Errno{EEXIST});
  EXPECT_EQ(r.done, 5 * kPageSize);
  const RunResult rest = port.copy(m.at(6), from.ptr(6), 10 * kPageSize, false, true);
  EXPECT_TRUE(rest.error.ok());
  EXPECT_EQ(rest.done, 10 * kPageSize);
  for (std::size_t i = 0; i < 16; ++i) EXPECT_TRUE(page_is_right(m.at(i))) << i;
}

TEST_F(Uffd, AnUnreadableSourceIsAnErrorAndNotASignal) {
  const Mapping m(4 * kPageSize);
  const Mapping from(4 * kPageSize);
  std::memset(from.ptr(), 1, 4 * kPageSize);
  ASSERT_EQ(mprotect(from.ptr(2), kPageSize, PROT_NONE), 0);
  ASSERT_TRUE(port.register_range(m.at(), m.bytes()).ok());
  const RunResult r = port.copy(m.at(), from.ptr(), 4 * kPageSize, false, true);
  EXPECT_EQ(r.error, Errno{EFAULT});
  EXPECT_EQ(r.done, 2 * kPageSize);
}

TEST_F(Uffd, MapsZerosAndStopsAtAPageThatIsThere) {
  const Mapping m(8 * kPageSize);
  ASSERT_TRUE(port.register_range(m.at(), m.bytes()).ok());
  fill(m, 3, 1);
  const RunResult r = port.zero(m.at(), m.bytes(), true);
  EXPECT_EQ(r.error, Errno{EEXIST});
  EXPECT_EQ(r.done, 3 * kPageSize);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(*m.ptr(i), 0);
  EXPECT_TRUE(port.zero(m.at(4), 4 * kPageSize, true).error.ok());
}

TEST_F(Uffd, NothingIsDoneInRangesThatAreNotRegistered) {
  const Mapping m(2 * kPageSize);
  const Mapping from(2 * kPageSize);
  std::memset(from.ptr(), 1, from.bytes());
  EXPECT_EQ(port.copy(m.at(), from.ptr(), kPageSize, false, true).error, Errno{ENOENT});
  EXPECT_EQ(port.copy(m.at(), from.ptr(), 0, false, true).error, kOk);
  EXPECT_EQ(port.copy(m.at() + 1, from.ptr(), kPageSize, false, true).error, Errno{EINVAL});
}

TEST_F(Uffd, AMoveStopsAtAHole) {
  if (!port.features().move) GTEST_SKIP() << "UFFDIO_MOVE needs Linux 6.8";
  const Mapping home(16 * kPageSize);
  const Mapping park(16 * kPageSize);
  ASSERT_TRUE(port.register_range(home.at(), home.bytes()).ok());
  ASSERT_TRUE(port.register_range(park.at(), park.bytes()).ok());
  fill(home, 0, 4);
  fill(home, 7, 2);
  RunResult r = port.move(park.at(), home.at(), home.bytes(), true);
  EXPECT_EQ(r.error, Errno{ENOENT}) << "what is not there must not be taken for moved";
  EXPECT_EQ(r.done, 4 * kPageSize);
  r = port.move(park.at(4), home.at(4), kPageSize, true);
  EXPECT_EQ(r.error, Errno{ENOENT}) << "a hole at the very start";
  EXPECT_EQ(r.done, 0u);
  for (std::size_t i = 0; i < 16; ++i) {
    EXPECT_EQ(home.resident(i), i == 7 || i == 8) << i;
    EXPECT_EQ(park.resident(i), i < 4) << i;
  }
  EXPECT_TRUE(port.move(home.at(), park.at(), 4 * kPageSize, true).error.ok());
  for (std::size_t i : {0u, 1u, 2u, 3u, 7u, 8u}) EXPECT_TRUE(page_is_right(home.at(i))) << i;
}

TEST_F(Uffd, AMoveStopsAtAnOccupiedPlace) {
  if (!port.features().move) GTEST_SKIP() << "UFFDIO_MOVE needs Linux 6.8";
  const Mapping home(8 * kPageSize);
  const Mapping park(8 * kPageSize);
  ASSERT_TRUE(port.register_range(home.at(), home.bytes()).ok());
  ASSERT_TRUE(port.register_range(park.at(), park.bytes()).ok());
  fill(home, 0, 8);
  fill(park, 3, 1);
  const RunResult r = port.move(park.at(), home.at(), home.bytes(), true);
  EXPECT_EQ(r.error, Errno{EEXIST});
  EXPECT_EQ(r.done, 3 * kPageSize);
  for (std::size_t i = 0; i < 8; ++i) EXPECT_EQ(home.resident(i), i >= 3) << i;
}

TEST_F(Uffd, PagesSharedWithAChildAreBusy) {
  if (!port.features().move) GTEST_SKIP() << "UFFDIO_MOVE needs Linux 6.8";
  const Mapping home(8 * kPageSize);
  const Mapping park(8 * kPageSize);
  ASSERT_TRUE(port.register_range(home.at(), home.bytes()).ok());
  ASSERT_TRUE(port.register_range(park.at(), park.bytes()).ok());
  fill(home, 0, 8);
  int hold[2];
  ASSERT_EQ(pipe(hold), 0);
  const pid_t child = fork();
  if (child == 0) {
    char c = 0;
    ::close(hold[1]);
    [[maybe_unused]] const ssize_t n = read(hold[0], &c, 1);
    _exit(0);
  }
  for (std::size_t i : {0u, 1u}) {  // written again: ours alone
    volatile char* byte = home.ptr(i);
    *byte = *byte;
  }
  const RunResult r = port.move(park.at(), home.at(), home.bytes(), true);
  EXPECT_EQ(r.error, Errno{EBUSY});
  EXPECT_EQ(r.done, 2 * kPageSize);
  ::close(hold[0]);
  ::close(hold[1]);
  waitpid(child, nullptr, 0);
}

TEST_F(Uffd, MovesAHugePageInOnePiece) {
  if (!port.features().move) GTEST_SKIP() << "UFFDIO_MOVE needs Linux 6.8";
  const Mapping home(2 * kPageblockSize);
  const Mapping park(2 * kPageblockSize);
  madvise(home.ptr(), home.bytes(), MADV_HUGEPAGE);
  madvise(park.ptr(), park.bytes(), MADV_HUGEPAGE);
  for (std::size_t i = 0; i < home.pages(); ++i) fill_page(home.at(i), home.ptr(i));
  if (huge_bytes(home.at(), home.bytes()) != home.bytes()) GTEST_SKIP() << "no huge page to be had";
  ASSERT_TRUE(port.register_range(home.at(), home.bytes()).ok());
  ASSERT_TRUE(port.register_range(park.at(), park.bytes()).ok());
  const RunResult r = port.move(park.at(), home.at(), home.bytes(), true);
  EXPECT_TRUE(r.error.ok()) << r.error.code;
  EXPECT_EQ(r.done, home.bytes());
  EXPECT_EQ(huge_bytes(park.at(), park.bytes()), park.bytes());
  EXPECT_EQ(huge_bytes(home.at(), home.bytes()), 0u);
  EXPECT_TRUE(port.move(home.at(), park.at(), home.bytes(), true).error.ok());
  EXPECT_EQ(huge_bytes(home.at(), home.bytes()), home.bytes());
  for (std::size_t i = 0; i < home.pages(); ++i) ASSERT_TRUE(page_is_right(home.at(i))) << i;
}

TEST_F(Uffd, OneReadBringsTheMessagesOfManyThreads) {
  constexpr std::size_t kThreads = 12;
  const Mapping m(kThreads * kPageSize);
  ASSERT_TRUE(port.register_range(m.at(), m.bytes()).ok());
  std::vector<std::thread> threads;
  std::atomic<std::uint32_t> tids[kThreads] = {};
  for (std::size_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&m, &tids, i] {
      tids[i].store(door::thread_id());
      *m.ptr(i) = 1;
    });
  }
  // All of them under way, a moment from their fault.
  for (const auto& tid : tids) {
    while (tid.load() == 0) usleep(1000);
  }
  std::vector<RawEvent> events;
  std::size_t reads = 0;
  while (events.size() < kThreads) {
    usleep(20000);
    RawEvent raw[64];
    std::size_t n = 0;
    ASSERT_TRUE(port.read_events(raw, 64, &n).ok());
    events.insert(events.end(), raw, raw + n);
    reads += n > 0 ? 1 : 0;
  }
  EXPECT_LT(reads, kThreads);
  bool seen[kThreads] = {};
  for (const RawEvent& raw : events) {
    const DecodedEvent e = decode(raw);
    ASSERT_EQ(e.kind, EventKind::kFault);
    EXPECT_TRUE(e.fault.write);
    EXPECT_FALSE(e.fault.wp);
    const std::size_t page = (e.fault.address - m.at()) / kPageSize;
    ASSERT_LT(page, kThreads);
    EXPECT_EQ(e.fault.tid, tids[page].load());
    EXPECT_FALSE(seen[page]);
    seen[page] = true;
  }
  // Filled without waking: nobody moves on before wake().
  EXPECT_TRUE(port.zero(m.at(), m.bytes(), false).error.ok());
  EXPECT_TRUE(port.wake(m.at(), m.bytes()).ok());
  for (std::thread& t : threads) t.join();
}

TEST_F(Uffd, ClosingLetsSleepersGo) {
  const Mapping m(kPageSize);
  ASSERT_TRUE(port.register_range(m.at(), m.bytes()).ok());
  std::thread sleeper([&m] { *m.ptr() = 7; });
  while (!door::poll_two(port.fd(), -1, 0).ready) usleep(1000);
  port.close();
  EXPECT_FALSE(port.is_open());
  sleeper.join();
  EXPECT_EQ(*m.ptr(), 7);
}

sigjmp_buf g_back;
void jump_back(int, siginfo_t* info, void*) {
  siglongjmp(g_back, info->si_code);
}

TEST_F(Uffd, APoisonedPageIsASignalAndTheOthersAreNot) {
  if (!port.features().poison) GTEST_SKIP() << "UFFDIO_POISON needs Linux 6.6";
  const Mapping m(4 * kPageSize);
  ASSERT_TRUE(port.register_range(m.at(), m.bytes()).ok());
  fill(m, 3, 1);
  const RunResult r = port.poison(m.at(1), 3 * kPageSize);
  EXPECT_EQ(r.error, Errno{EEXIST});
  EXPECT_EQ(r.done, 2 * kPageSize);
  fill(m, 0, 1);
  EXPECT_TRUE(page_is_right(m.at(0)));
  EXPECT_TRUE(page_is_right(m.at(3)));
  struct sigaction action {};
  struct sigaction before {};
  action.sa_sigaction = jump_back;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGBUS, &action, &before);
  int code = sigsetjmp(g_back, 1);
  if (code == 0) {
    [[maybe_unused]] const char c = *static_cast<volatile char*>(m.ptr(1));
    ADD_FAILURE() << "read a poisoned page";
  }
  sigaction(SIGBUS, &before, nullptr);
  EXPECT_TRUE(code == BUS_MCEERR_AR || code == BUS_ADRERR) << code;
}

TEST(UffdOld, AKernelOf6Dot1HasNoMoveAndNoPoison) {
  Userfaultfd port;
  HEAPTIER_OPEN_OR_SKIP(port, OpenMode::kHandler, nullptr, 0x1fff);
  EXPECT_TRUE(port.features().wp && port.features().thread_id);
  EXPECT_FALSE(port.features().move || port.features().poison);
  const Mapping m(2 * kPageSize);
  ASSERT_TRUE(port.register_range(m.at(), m.bytes()).ok());
  EXPECT_EQ(port.move(m.at(), m.at(1), kPageSize, true).error, Errno{ENOTSUP});
  EXPECT_EQ(port.poison(m.at(), kPageSize).error, Errno{ENOTSUP});
  port.close();
  HEAPTIER_OPEN_OR_SKIP(port, OpenMode::kHandler, nullptr, 0x1ffe);  // no write protection either
  EXPECT_EQ(port.register_range(m.at(), m.bytes()), Errno{ENOTSUP});
  port.close();
  EXPECT_EQ(port.open(OpenMode::kInline, nullptr, 0x1f7f), Errno{ENOTSUP});  // no SIGBUS mode
  EXPECT_FALSE(port.is_open());
}

TEST(UffdShards, FoldTheSameOffsetsOfTwoMappingsTogether) {
  ShardedPort port;
  EXPECT_EQ(port.open(OpenMode::kHandler, 3, nullptr), Errno{EINVAL});
  HEAPTIER_OPEN_OR_SKIP(port, OpenMode::kHandler, 4, nullptr);
  EXPECT_EQ(port.count(), 4u);
  const Mapping home(5 * kStripBytes, 4 * kStripBytes);
  const Mapping park(5 * kStripBytes, 4 * kStripBytes);
  ASSERT_TRUE(port.register_range(home.at(), home.bytes()).ok());
  ASSERT_TRUE(port.register_range(park.at(), park.bytes()).ok());
  alignas(kPageSize) char page[kPageSize];
  const std::size_t first = kStripBytes / kPageSize - 1;
  for (std::size_t i = first; i < first + 2; ++i) {
    fill_page(home.at(i), page);
    ASSERT_TRUE(port.copy(home.at(i), page, kPageSize, false, true).error.ok());
  }
  if (!port.features().move) GTEST_SKIP() << "UFFDIO_MOVE needs Linux 6.8";
  EXPECT_TRUE(port.move(park.at(first), home.at(first), 2 * kPageSize, true).error.ok());
  EXPECT_TRUE(port.move(home.at(first), park.at(first), 2 * kPageSize, true).error.ok());
  EXPECT_TRUE(page_is_right(home.at(first)));
  EXPECT_TRUE(page_is_right(home.at(first + 1)));
  EXPECT_TRUE(port.unregister_range(home.at(), home.bytes()).ok());
  EXPECT_TRUE(port.unregister_range(park.at(), park.bytes()).ok());
  port.close();
}

}  // namespace
}  // namespace heaptier
