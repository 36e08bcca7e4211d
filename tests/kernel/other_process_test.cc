// Somebody else looks at memory that is away: process_vm_readv and writev, ptrace of one thread,
// /proc/PID/mem.
//
// process_vm_* wait for the fault handler and must work. ptrace PEEK/POKE and /proc/PID/mem do not:
// Linux resolves them without permission to wait, and any userfaultfd page that is absent gives EIO
// (get_user_pages_remote with locked == NULL, all kernels so far). What heaptier owes there: the
// right bytes or EIO, never wrong bytes, and the right bytes once the page was fetched.
#include <fcntl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <thread>

#include "tests/support/managed.h"
#include "tests/support/process.h"

namespace heaptier::test {
namespace {

constexpr std::uint64_t kSeed = 31;
constexpr std::uint64_t kOther = 32;
constexpr std::size_t kFrom = 30 * kPage + 100;
constexpr std::size_t kBytes = 40 * kPage + 1000;

Place place_of(const std::string& name) {
  for (const Place place : kPlaces) {
    if (name == to_string(place)) return place;
  }
  return Place::kResident;
}

// Commands on standard input: "put PLACE", "holds FROM TO SEED", "fetch", "end". Answers "yes" or a
// reason.
HEAPTIER_ROLE(target) {
  if (wake() != 0) return 3;
  const Area area(kPageblock, kSeed);
  std::atomic<bool> stop{false};
  std::atomic<long> tid{0};
  std::thread idle([&] {  // the thread that is traced: no other one stops
    tid = syscall(SYS_gettid);
    while (!stop) usleep(1000);
  });
  while (tid == 0) usleep(100);
  std::cout << reinterpret_cast<std::uintptr_t>(area.data()) << " " << tid << std::endl;
  std::string line;
  while (std::getline(std::cin, line) && line != "end") {
    char word[32] = "";
    std::size_t from = 0;
    std::size_t to = 0;
    std::uint64_t seed = 0;
    testing::AssertionResult answer = testing::AssertionSuccess();
    if (std::sscanf(line.c_str(), "put %31s", word) == 1) {
      answer = put_at(area.data(), area.size(), place_of(word));
    } else if (line == "fetch") {
      fetch(area.data(), area.size());
    } else if (std::sscanf(line.c_str(), "holds %zu %zu %" SCNu64, &from, &to, &seed) == 3) {
      answer = pattern_holds(area.at(from), to - from, seed, from);
    } else {
      answer = testing::AssertionFailure() << "what is " << line;
    }
    std::cout << (answer ? "yes" : answer.message()) << std::endl;
  }
  stop = true;
  idle.join();
  return 0;
}

class OtherProcess : public testing::TestWithParam<Place> {
 protected:
  void SetUp() override {
    const std::string hello = role_.hear();
    ASSERT_EQ(std::sscanf(hello.c_str(), "%" SCNuPTR " %d", &base_, &tid_), 2) << hello;
  }
  void TearDown() override {
    role_.tell("end");
    EXPECT_TRUE(exited(role_.end(), 0));
  }
  std::string ask(const std::string& line) { return role_.tell(line) ? role_.hear() : "gone"; }
  void put() {
    ASSERT_EQ(ask(std::string("put ") + to_string(GetParam())), "yes");
    note_away(GetParam() != Place::kResident && preloaded());
  }
  void expect_holds(std::size_t from, std::size_t to, std::uint64_t seed) {
    EXPECT_EQ(ask("holds " + std::to_string(from) + " " + std::to_string(to) + " " +
                  std::to_string(seed)),
              "yes");
  }
  void* remote(std::size_t offset) const { return reinterpret_cast<void*>(base_ + offset); }

  Beside role_{"target", {}};
  std::uintptr_t base_ = 0;
  int tid_ = 0;
};

TEST_P(OtherProcess, ProcessVmReadv) {
  put();
  std::vector<unsigned char> seen(kBytes);
  const iovec mine{seen.data(), kBytes};
  const iovec theirs{remote(kFrom), kBytes};
  ASSERT_EQ(process_vm_readv(role_.pid(), &mine, 1, &theirs, 1, 0), static_cast<ssize_t>(kBytes))
      << strerror(errno);
  EXPECT_TRUE(pattern_holds(seen.data(), kBytes, kSeed, kFrom));
  expect_holds(0, kPageblock, kSeed);
}

TEST_P(OtherProcess, ProcessVmReadvIntoOurOwnAwayMemory) {
  put();
  Area area(kPageblock, 33);
  ASSERT_TRUE(area.put_at(GetParam()));
  const iovec mine{area.at(kFrom), kBytes};
  const iovec theirs{remote(kFrom), kBytes};
  ASSERT_EQ(process_vm_readv(role_.pid(), &mine, 1, &theirs, 1, 0), static_cast<ssize_t>(kBytes))
      << strerror(errno);
  EXPECT_TRUE(pattern_holds(area.at(kFrom), kBytes, kSeed, kFrom));
  EXPECT_TRUE(area.holds_outside(kFrom, kFrom + kBytes));
}

TEST_P(OtherProcess, ProcessVmWritev) {
  put();
  std::vector<unsigned char> content(kBytes);
  fill(content.data(), kBytes, kOther, kFrom);
  const iovec mine{content.data(), kBytes};
  const iovec theirs{remote(kFrom), kBytes};
  ASSERT_EQ(process_vm_writev(role_.pid(), &mine, 1, &theirs, 1, 0), static_cast<ssize_t>(kBytes))
      << strerror(errno);
  expect_holds(kFrom, kFrom + kBytes, kOther);
  expect_holds(0, kFrom, kSeed);
  expect_holds(kFrom + kBytes, kPageblock, kSeed);
}

// Reads one word of the page at `offset` with PTRACE_PEEKDATA while only the idle thread is
// stopped.
TEST_P(OtherProcess, PtraceOfOneThread) {
  put();
  if (ptrace(PTRACE_SEIZE, tid_, nullptr, nullptr) != 0) {
    GTEST_SKIP() << "ptrace of a child is refused: " << strerror(errno);
  }
  ASSERT_EQ(ptrace(PTRACE_INTERRUPT, tid_, nullptr, nullptr), 0);
  int status = 0;
  ASSERT_EQ(waitpid(tid_, &status, __WALL), tid_);
  int refused = 0;
  bool poked[64] = {};
  for (std::size_t i = 0; i < 64; ++i) {
    const std::size_t offset = i * 5 * kPage + 8 * i;
    errno = 0;
    const long word = ptrace(PTRACE_PEEKDATA, tid_, remote(offset), nullptr);
    if (errno == EIO || errno == EFAULT) {
      ++refused;
    } else {
      EXPECT_EQ(static_cast<std::uint64_t>(word), pattern_word(kSeed, offset / 8)) << i;
    }
    // Pokes the next word with what a second seed has there.
    const std::uint64_t other = pattern_word(kOther, offset / 8 + 1);
    errno = 0;
    poked[i] =
        ptrace(PTRACE_POKEDATA, tid_, remote(offset + 8), reinterpret_cast<void*>(other)) == 0;
    refused += !poked[i];
  }
  // A page that is at home is never refused, with or without heaptier.
  if (GetParam() == Place::kResident) {
    EXPECT_EQ(refused, 0);
  }
  ASSERT_EQ(ptrace(PTRACE_DETACH, tid_, nullptr, nullptr), 0);
  for (std::size_t i = 0; i < 64; ++i) {
    const std::size_t at = i * 5 * kPage + 8 * i + 8;
    expect_holds(at, at + 8, poked[i] ? kOther : kSeed);
  }
  // Once the application has fetched its memory, a debugger sees all of it.
  ASSERT_EQ(ask("fetch"), "yes");
  ASSERT_EQ(ptrace(PTRACE_SEIZE, tid_, nullptr, nullptr), 0);
  ASSERT_EQ(ptrace(PTRACE_INTERRUPT, tid_, nullptr, nullptr), 0);
  ASSERT_EQ(waitpid(tid_, &status, __WALL), tid_);
  errno = 0;
  const long word = ptrace(PTRACE_PEEKDATA, tid_, remote(400 * kPage), nullptr);
  EXPECT_EQ(errno, 0);
  EXPECT_EQ(static_cast<std::uint64_t>(word), pattern_word(kSeed, 400 * kPage / 8));
  ptrace(PTRACE_DETACH, tid_, nullptr, nullptr);
}

// The whole range through a mem file, page by page: right bytes or EIO.
int read_mem_file(int mem, std::uintptr_t base, std::uint64_t seed) {
  int refused = 0;
  unsigned char page[kPage];
  for (std::size_t at = 0; at < kPageblock; at += kPage) {
    const ssize_t n = pread(mem, page, kPage, static_cast<off_t>(base + at));
    if (n < 0) {
      EXPECT_EQ(errno, EIO);
      ++refused;
    } else {
      EXPECT_TRUE(pattern_holds(page, static_cast<std::size_t>(n), seed, at));
    }
  }
  return refused;
}

TEST_P(OtherProcess, ProcPidMem) {
  const int mem =
      open(("/proc/" + std::to_string(role_.pid()) + "/mem").c_str(), O_RDWR | O_CLOEXEC);
  if (mem < 0) GTEST_SKIP() << "/proc/PID/mem is refused: " << strerror(errno);
  put();
  const int refused = read_mem_file(mem, base_, kSeed);
  if (GetParam() == Place::kResident) {
    EXPECT_EQ(refused, 0);
  }
  put();
  // Written in the middle of a page: all of it arrives, or none and EIO.
  unsigned char content[500];
  fill(content, sizeof content, kOther, kFrom);
  const ssize_t wrote = pwrite(mem, content, sizeof content, static_cast<off_t>(base_ + kFrom));
  if (wrote < 0) {
    EXPECT_EQ(errno, EIO);
  }
  if (wrote >= 0) {
    EXPECT_EQ(wrote, static_cast<ssize_t>(sizeof content));
  }
  expect_holds(kFrom, kFrom + sizeof content, wrote < 0 ? kSeed : kOther);
  expect_holds(0, kFrom, kSeed);
  expect_holds(kFrom + sizeof content, kPageblock, kSeed);
  close(mem);
}

TEST_P(OtherProcess, ProcSelfMem) {
  const int mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
  ASSERT_GE(mem, 0) << strerror(errno);
  Area area(kPageblock, 44);
  ASSERT_TRUE(area.put_at(GetParam()));
  const int refused =
      read_mem_file(mem, reinterpret_cast<std::uintptr_t>(area.data()), area.seed());
  if (GetParam() == Place::kResident) {
    EXPECT_EQ(refused, 0);
  }
  EXPECT_TRUE(area.holds());
  fetch(area.data(), area.size());
  EXPECT_EQ(read_mem_file(mem, reinterpret_cast<std::uintptr_t>(area.data()), area.seed()), 0);
  close(mem);
}

INSTANTIATE_TEST_SUITE_P(At, OtherProcess, testing::ValuesIn(kPlaces), place_name);

}  // namespace
}  // namespace heaptier::test
