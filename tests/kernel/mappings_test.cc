// The application treats malloc'ed memory as its own mapping: it locks it, protects it, advises the
// kernel on it, moves, unmaps and overlays parts of it, through libc and by bare system calls. What
// Linux promises for anonymous memory must hold whether the pages are resident, parked or stored.
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <tuple>

#include "tests/support/managed.h"
#include "tests/support/process.h"

namespace heaptier::test {
namespace {

// The same calls through two doors.
struct Libc {
  static void* mmap(void* p, std::size_t n, int prot, int flags, int fd) {
    return ::mmap(p, n, prot, flags, fd, 0);
  }
  static int munmap(void* p, std::size_t n) { return ::munmap(p, n); }
  static void* mremap(void* p, std::size_t from, std::size_t to, int flags, void* target) {
    return ::mremap(p, from, to, flags, target);
  }
  static int mprotect(void* p, std::size_t n, int prot) { return ::mprotect(p, n, prot); }
  static int madvise(void* p, std::size_t n, int advice) { return ::madvise(p, n, advice); }
  static int mlock(void* p, std::size_t n) { return ::mlock(p, n); }
  static int munlock(void* p, std::size_t n) { return ::munlock(p, n); }
};
struct Raw {
  static void* mmap(void* p, std::size_t n, int prot, int flags, int fd) {
    return reinterpret_cast<void*>(syscall(SYS_mmap, p, n, prot, flags, fd, 0L));
  }
  static int munmap(void* p, std::size_t n) { return static_cast<int>(syscall(SYS_munmap, p, n)); }
  static void* mremap(void* p, std::size_t from, std::size_t to, int flags, void* target) {
    return reinterpret_cast<void*>(syscall(SYS_mremap, p, from, to, flags, target));
  }
  static int mprotect(void* p, std::size_t n, int prot) {
    return static_cast<int>(syscall(SYS_mprotect, p, n, prot));
  }
  static int madvise(void* p, std::size_t n, int advice) {
    return static_cast<int>(syscall(SYS_madvise, p, n, advice));
  }
  static int mlock(void* p, std::size_t n) { return static_cast<int>(syscall(SYS_mlock, p, n)); }
  static int munlock(void* p, std::size_t n) {
    return static_cast<int>(syscall(SYS_munlock, p, n));
  }
};

// Not part of any Debian 12 header that C++ sees without <linux/mman.h>.
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

sigjmp_buf g_escape;
void* volatile g_fault_address;
void escape(int, siginfo_t* info, void*) {
  g_fault_address = info->si_addr;
  siglongjmp(g_escape, 1);
}

// Whether touching p raises SIGSEGV with the address p.
bool segv_at(volatile unsigned char* p, bool write) {
  struct sigaction action {};
  struct sigaction before {};
  action.sa_sigaction = escape;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGSEGV, &action, &before);
  g_fault_address = nullptr;
  bool raised = false;
  if (sigsetjmp(g_escape, 1) == 0) {
    if (write) {
      *p = 1;
    } else {
      static_cast<void>(*p);
    }
  } else {
    raised = true;
  }
  sigaction(SIGSEGV, &before, nullptr);
  return raised && g_fault_address == p;
}

// A 4 MiB area, and a part in its middle that begins and ends inside pageblocks.
constexpr std::size_t kFrom = 200 * kPage;
constexpr std::size_t kTo = 700 * kPage;
constexpr std::size_t kPart = kTo - kFrom;

enum class Door { kLibc, kRaw };
using Param = std::tuple<Place, Door>;

class Mappings : public testing::TestWithParam<Param> {
 protected:
  Place place() const { return std::get<0>(GetParam()); }
  bool raw() const { return std::get<1>(GetParam()) == Door::kRaw; }
  void put() { ASSERT_TRUE(area_.put_at(place())); }
  // Stores whatever can be stored, for as long as it takes to do harm.
  void shove_all() {
    for (int i = 0; i < 5; ++i) shove(area_.data(), area_.size());
  }
  void* part() const { return area_.at(kFrom); }
  void expect_neighbours() { EXPECT_TRUE(area_.holds_outside(kFrom, kTo)); }
  void expect_part_zero() { EXPECT_EQ(first_nonzero(part(), kPart), kPart); }

  int munmap(void* p, std::size_t n) { return raw() ? Raw::munmap(p, n) : Libc::munmap(p, n); }
  int mprotect(void* p, std::size_t n, int prot) {
    return raw() ? Raw::mprotect(p, n, prot) : Libc::mprotect(p, n, prot);
  }
  int madvise(void* p, std::size_t n, int advice) {
    return raw() ? Raw::madvise(p, n, advice) : Libc::madvise(p, n, advice);
  }
  int mlock(void* p, std::size_t n) { return raw() ? Raw::mlock(p, n) : Libc::mlock(p, n); }
  int munlock(void* p, std::size_t n) { return raw() ? Raw::munlock(p, n) : Libc::munlock(p, n); }
  void* mmap(void* p, std::size_t n, int prot, int flags, int fd) {
    return raw() ? Raw::mmap(p, n, prot, flags, fd) : Libc::mmap(p, n, prot, flags, fd);
  }
  void* mremap(void* p, std::size_t from, std::size_t to, int flags, void* target = nullptr) {
    return raw() ? Raw::mremap(p, from, to, flags, target)
                 : Libc::mremap(p, from, to, flags, target);
  }

  Area area_{2 * kPageblock, 51};
};

TEST_P(Mappings, LockedMemoryStaysInMemory) {
  put();
  if (mlock(part(), kPart) != 0) GTEST_SKIP() << "mlock: " << strerror(errno);
  shove_all();
  unsigned char in_core[kPart / kPage];
  ASSERT_EQ(mincore(part(), kPart, in_core), 0);
  for (std::size_t i = 0; i < sizeof in_core; ++i) ASSERT_EQ(in_core[i] & 1, 1) << "page " << i;
  EXPECT_TRUE(area_.holds());
  ASSERT_EQ(munlock(part(), kPart), 0);
  // Unlocked, it may leave again.
  EXPECT_TRUE(area_.put_at(place()));
  EXPECT_TRUE(area_.holds());
}

TEST_P(Mappings, ProtectedFromEverything) {
  put();
  ASSERT_EQ(mprotect(part(), kPart, PROT_NONE), 0);
  for (const std::size_t at : {kFrom, kFrom + kPart / 2 + 17, kTo - 1}) {
    EXPECT_TRUE(segv_at(area_.at(at), false)) << at;
    EXPECT_TRUE(segv_at(area_.at(at), true)) << at;
  }
  shove_all();
  EXPECT_TRUE(segv_at(area_.at(kFrom), false));
  expect_neighbours();
  ASSERT_EQ(mprotect(part(), kPart, PROT_READ | PROT_WRITE), 0);
  EXPECT_TRUE(area_.holds());
}

TEST_P(Mappings, ProtectedFromWrites) {
  put();
  ASSERT_EQ(mprotect(part(), kPart, PROT_READ), 0);
  for (const std::size_t at : {kFrom, kFrom + kPart / 2 + 17, kTo - 1}) {
    EXPECT_TRUE(segv_at(area_.at(at), true)) << at;
    EXPECT_EQ(*area_.at(at), pattern_byte(area_.seed(), at));
  }
  shove_all();
  EXPECT_TRUE(area_.holds());
  EXPECT_TRUE(segv_at(area_.at(kFrom + kPage), true));
  shove_all();
  ASSERT_EQ(mprotect(part(), kPart, PROT_READ | PROT_WRITE), 0);
  fill(part(), kPart, 52);
  shove_all();
  EXPECT_TRUE(pattern_holds(part(), kPart, 52));
  expect_neighbours();
}

// A write barrier as garbage collectors build it: SIGSEGV marks the page and opens it.
unsigned char* g_barrier_from;
bool g_barrier_raw;
volatile sig_atomic_t g_barrier_hits;
void open_page(int, siginfo_t* info, void*) {
  const auto page = reinterpret_cast<std::uintptr_t>(info->si_addr) & ~(kPage - 1);
  if (page - reinterpret_cast<std::uintptr_t>(g_barrier_from) >= kPart) _exit(66);
  auto* const at = reinterpret_cast<void*>(page);
  const int r = g_barrier_raw ? Raw::mprotect(at, kPage, PROT_READ | PROT_WRITE)
                              : Libc::mprotect(at, kPage, PROT_READ | PROT_WRITE);
  if (r != 0) _exit(67);
  g_barrier_hits = g_barrier_hits + 1;
}

TEST_P(Mappings, WriteBarrier) {
  struct sigaction action {};
  struct sigaction before {};
  action.sa_sigaction = open_page;
  action.sa_flags = SA_SIGINFO;
  ASSERT_EQ(sigaction(SIGSEGV, &action, &before), 0);
  g_barrier_from = area_.at(kFrom);
  g_barrier_raw = raw();
  for (int round = 0; round < 3; ++round) {
    put();
    g_barrier_hits = 0;
    ASSERT_EQ(mprotect(part(), kPart, round == 1 ? PROT_NONE : PROT_READ), 0);
    shove_all();
    for (std::size_t at = kFrom; at < kTo; at += 3 * kPage) *area_.at(at) = 0x5a;
    EXPECT_EQ(g_barrier_hits, static_cast<int>((kPart + 3 * kPage - 1) / (3 * kPage)));
    ASSERT_EQ(mprotect(part(), kPart, PROT_READ | PROT_WRITE), 0);
    shove_all();
    for (std::size_t at = kFrom; at < kTo; at += 3 * kPage) {
      ASSERT_EQ(*area_.at(at), 0x5a);
      *area_.at(at) = pattern_byte(area_.seed(), at);
    }
    EXPECT_TRUE(area_.holds());
  }
  sigaction(SIGSEGV, &before, nullptr);
}

TEST_P(Mappings, DontneedReadsAsZero) {
  put();
  ASSERT_EQ(madvise(part(), kPart, MADV_DONTNEED), 0) << strerror(errno);
  expect_part_zero();
  expect_neighbours();
  // And again after the zero pages were evicted, and after new content was written and evicted.
  shove_all();
  expect_part_zero();
  fill(part(), kPart, 53);
  put();
  EXPECT_TRUE(pattern_holds(part(), kPart, 53));
  put();
  ASSERT_EQ(madvise(part(), kPage, MADV_DONTNEED), 0);
  EXPECT_EQ(first_nonzero(part(), kPage), kPage);
  EXPECT_TRUE(pattern_holds(area_.at(kFrom + kPage), kPart - kPage, 53, kPage));
  expect_neighbours();
}

TEST_P(Mappings, FreedLazilyIsOldOrZero) {
  put();
  ASSERT_EQ(madvise(part(), kPart, MADV_FREE), 0) << strerror(errno);
  // A page written after MADV_FREE keeps what was written.
  fill(area_.at(kFrom + 10 * kPage), kPage, 54);
  shove_all();
  EXPECT_TRUE(pattern_holds(area_.at(kFrom + 10 * kPage), kPage, 54));
  for (std::size_t at = kFrom; at < kTo; at += kPage) {
    if (at == kFrom + 10 * kPage) continue;
    const bool zero = first_nonzero(area_.at(at), kPage) == kPage;
    EXPECT_TRUE(zero || area_.holds(at, at + kPage)) << "page at " << at << " is neither";
  }
  expect_neighbours();
}

TEST_P(Mappings, AdviceThatKeepsContent) {
  struct Advice {
    const char* name;
    int value;
  };
  // What the kernel does not know or refuses on this host is not the test's matter: the content is.
  for (const Advice advice : {Advice{"WILLNEED", MADV_WILLNEED},
                              {"SEQUENTIAL", MADV_SEQUENTIAL},
                              {"RANDOM", MADV_RANDOM},
                              {"NORMAL", MADV_NORMAL},
                              {"COLD", 20},
                              {"PAGEOUT", 21},
                              {"POPULATE_READ", 22},
                              {"POPULATE_WRITE", 23},
                              {"NOHUGEPAGE", MADV_NOHUGEPAGE},
                              {"HUGEPAGE", MADV_HUGEPAGE},
                              {"COLLAPSE", MADV_COLLAPSE},
                              {"DONTDUMP", MADV_DONTDUMP},
                              {"DODUMP", MADV_DODUMP},
                              {"MERGEABLE", MADV_MERGEABLE},
                              {"UNMERGEABLE", MADV_UNMERGEABLE}}) {
    ASSERT_TRUE(area_.put_at(place())) << "before " << advice.name;
    madvise(part(), kPart, advice.value);
    EXPECT_TRUE(area_.holds()) << advice.name;
    shove_all();
    EXPECT_TRUE(area_.holds()) << advice.name << ", evicted";
  }
}

TEST_P(Mappings, PartMovedElsewhere) {
  put();
  void* const target = Libc::mmap(nullptr, kPart, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  ASSERT_NE(target, MAP_FAILED);
  ASSERT_EQ(mremap(part(), kPart, kPart, MREMAP_MAYMOVE | MREMAP_FIXED, target), target)
      << strerror(errno);
  EXPECT_TRUE(pattern_holds(target, kPart, area_.seed(), kFrom));
  EXPECT_TRUE(segv_at(area_.at(kFrom + 100), false));
  shove_all();
  EXPECT_TRUE(pattern_holds(target, kPart, area_.seed(), kFrom));
  EXPECT_TRUE(segv_at(area_.at(kTo - 100), false));
  expect_neighbours();
  // The hole is nobody's now: another mapping in it is left alone.
  auto* const hole = static_cast<unsigned char*>(Libc::mmap(
      part(), kPart, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1));
  ASSERT_EQ(hole, part());
  expect_part_zero();
  fill(hole, kPart, 55);
  shove_all();
  EXPECT_TRUE(pattern_holds(hole, kPart, 55));
  ::munmap(target, kPart);
  area_.leak();
}

TEST_P(Mappings, PartMovedWithoutUnmapping) {
  put();
  void* const target = mremap(part(), kPart, kPart, MREMAP_MAYMOVE | MREMAP_DONTUNMAP);
  ASSERT_NE(target, MAP_FAILED) << strerror(errno);
  EXPECT_TRUE(pattern_holds(target, kPart, area_.seed(), kFrom));
  expect_part_zero();
  shove_all();
  EXPECT_TRUE(pattern_holds(target, kPart, area_.seed(), kFrom));
  expect_part_zero();
  expect_neighbours();
  ::munmap(target, kPart);
  area_.leak();  // what was taken apart by its owner is left alone from then on
}

TEST_P(Mappings, PartGrown) {
  put();
  void* const grown =
      mremap(part(), kPart, 2 * kPart, MREMAP_MAYMOVE);  // its end is taken: it moves
  ASSERT_NE(grown, MAP_FAILED) << strerror(errno);
  EXPECT_NE(grown, part());
  EXPECT_TRUE(pattern_holds(grown, kPart, area_.seed(), kFrom));
  EXPECT_EQ(first_nonzero(static_cast<unsigned char*>(grown) + kPart, kPart), kPart);
  EXPECT_TRUE(area_.holds_outside(kFrom, kTo));
  // What lies where it would have grown to is still the heap's: it can be written, and leave.
  const unsigned char was = *area_.at(kTo);
  *area_.at(kTo) = static_cast<unsigned char>(was ^ 1);
  shove_all();
  EXPECT_EQ(*area_.at(kTo), static_cast<unsigned char>(was ^ 1));
  *area_.at(kTo) = was;
  EXPECT_TRUE(area_.holds_outside(kFrom, kTo));
  ::munmap(grown, 2 * kPart);
  area_.leak();
}

TEST_P(Mappings, PartUnmapped) {
  put();
  ASSERT_EQ(munmap(part(), kPart), 0) << strerror(errno);
  EXPECT_TRUE(segv_at(area_.at(kFrom), false));
  EXPECT_TRUE(segv_at(area_.at(kTo - 1), true));
  shove_all();
  EXPECT_TRUE(segv_at(area_.at(kFrom + kPart / 2), false));
  expect_neighbours();
  area_.leak();
}

TEST_P(Mappings, AnonymousMemoryMappedOver) {
  put();
  ASSERT_EQ(
      mmap(part(), kPart, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1),
      part())
      << strerror(errno);
  expect_part_zero();
  shove_all();
  expect_part_zero();
  fill(part(), kPart, 56);
  shove_all();
  EXPECT_TRUE(pattern_holds(part(), kPart, 56));
  expect_neighbours();
  area_.leak();
}

TEST_P(Mappings, FileMappedOver) {
  const int fd = memfd_create("mapped-over", MFD_CLOEXEC);
  std::vector<unsigned char> content(kPart);
  fill(content.data(), kPart, 57);
  ASSERT_EQ(pwrite(fd, content.data(), kPart, 0), static_cast<ssize_t>(kPart));
  put();
  ASSERT_EQ(mmap(part(), kPart, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd), part())
      << strerror(errno);
  EXPECT_TRUE(pattern_holds(part(), kPart, 57));
  shove_all();
  fill(part(), kPart, 58);
  shove_all();
  EXPECT_TRUE(pattern_holds(part(), kPart, 58));
  ASSERT_EQ(pread(fd, content.data(), kPart, 0), static_cast<ssize_t>(kPart));
  EXPECT_TRUE(pattern_holds(content.data(), kPart, 58));
  expect_neighbours();
  close(fd);
  area_.leak();
}

TEST_P(Mappings, NoReplaceSeesThatItIsTaken) {
  put();
  errno = 0;
  EXPECT_EQ(mmap(part(), kPart, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1),
            MAP_FAILED);
  EXPECT_EQ(errno, EEXIST);
  EXPECT_TRUE(area_.holds());
}

TEST_P(Mappings, MincoreAnswers) {
  put();
  unsigned char in_core[2 * kPageblock / kPage];
  EXPECT_EQ(mincore(area_.data(), area_.size(), in_core), 0);
  EXPECT_TRUE(area_.holds());
}

std::string param_name(const testing::TestParamInfo<Param>& info) {
  return std::string(to_string(std::get<0>(info.param))) +
         (std::get<1>(info.param) == Door::kRaw ? "_raw" : "_libc");
}
INSTANTIATE_TEST_SUITE_P(At, Mappings,
                         testing::Combine(testing::ValuesIn(kPlaces),
                                          testing::Values(Door::kLibc, Door::kRaw)),
                         param_name);

}  // namespace
}  // namespace heaptier::test
