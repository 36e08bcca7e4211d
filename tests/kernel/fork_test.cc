// fork in all its forms, with pages parked, stored, on probation and in flight. The child sees
// exactly what the parent had at that moment, at once; neither sees the other's later writes; never
// a zero where there was data.
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/managed.h"
#include "tests/support/process.h"

extern char** environ;

namespace heaptier::test {
namespace {

// Exit statuses of children: which check failed. A child does not use gtest.
constexpr int kRight = 0;
constexpr int kWrongBytes = 10;
constexpr int kWrongAfterwards = 11;

bool right(const Area& area) {
  return first_wrong(area.data(), area.size(), area.seed()) == area.size();
}

class Fork : public testing::TestWithParam<Place> {
 protected:
  Area area_{2 * kPageblock, 91};
  void put() { ASSERT_TRUE(area_.put_at(GetParam())); }
};

TEST_P(Fork, BothReadEverythingAtOnce) {
  for (int i = 0; i < 4; ++i) {
    put();
    const pid_t child = fork();
    ASSERT_GE(child, 0) << strerror(errno);
    if (child == 0) _exit(right(area_) ? kRight : kWrongBytes);
    EXPECT_TRUE(area_.holds());
    EXPECT_TRUE(exited(wait_for(child, 20), kRight)) << "round " << i;
  }
}

TEST_P(Fork, NeitherSeesTheOthersWrites) {
  put();
  int go[2];
  ASSERT_EQ(pipe2(go, O_CLOEXEC), 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    // The parent overwrites everything and evicts it first; then the child reads, writes its own
    // and reads that.
    char c;
    if (read(go[0], &c, 1) != 1) _exit(12);
    if (!right(area_)) _exit(kWrongBytes);
    fill(area_.data(), area_.size(), 92);
    shove(area_.data(), area_.size());
    _exit(first_wrong(area_.data(), area_.size(), 92) == area_.size() ? kRight : kWrongAfterwards);
  }
  fill(area_.data(), area_.size(), 93);
  put();
  EXPECT_EQ(write(go[1], "g", 1), 1);
  EXPECT_TRUE(exited(wait_for(child, 20), kRight));
  EXPECT_TRUE(pattern_holds(area_.data(), area_.size(), 93));
  close(go[0]);
  close(go[1]);
}

TEST_P(Fork, GrandchildrenAndOrphans) {
  put();
  int report[2];
  ASSERT_EQ(pipe2(report, O_CLOEXEC), 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    shove(area_.data(),
          area_.size());  // the child's own heaptier moves pages before it forks again
    const pid_t grandchild = fork();
    if (grandchild == 0) {
      usleep(20000);  // by now its parent is gone
      const char verdict = right(area_) ? 'y' : 'n';
      _exit(write(report[1], &verdict, 1) == 1 ? 0 : 1);
    }
    _exit(grandchild > 0 && right(area_) ? kRight : kWrongBytes);
  }
  EXPECT_TRUE(exited(wait_for(child, 20), kRight));
  close(report[1]);
  char verdict = '-';
  EXPECT_EQ(read(report[0], &verdict, 1), 1) << "the orphan died";
  EXPECT_EQ(verdict, 'y');
  close(report[0]);
  EXPECT_TRUE(area_.holds());
  // After the children are gone pages can leave again, and come back whole.
  put();
  EXPECT_TRUE(area_.holds());
}

TEST_P(Fork, FiveGenerations) {
  put();
  const Ended ended = in_child([&] {
    for (int generation = 0; generation < 5; ++generation) {
      const std::size_t at = static_cast<std::size_t>(generation) * 64 * kPage;
      fill(area_.at(at), 64 * kPage, 1000 + static_cast<std::uint64_t>(generation));
      shove(area_.data(), area_.size());
      const pid_t next = fork();
      if (next < 0) return 20;
      if (next > 0) {
        const Ended later = wait_for(next, 15);
        if (later.timed_out || !WIFEXITED(later.status)) return 21;
        return WEXITSTATUS(later.status);
      }
      for (int g = 0; g <= generation; ++g) {
        const std::size_t from = static_cast<std::size_t>(g) * 64 * kPage;
        if (first_wrong(area_.at(from), 64 * kPage, 1000 + static_cast<std::uint64_t>(g)) !=
            64 * kPage) {
          return kWrongBytes;
        }
      }
      const std::size_t rest = 5 * 64 * kPage;
      if (first_wrong(area_.at(rest), area_.size() - rest, area_.seed(), rest) !=
          area_.size() - rest) {
        return kWrongAfterwards;
      }
    }
    return kRight;
  });
  EXPECT_TRUE(exited(ended, kRight));
  EXPECT_TRUE(area_.holds());
}

TEST_P(Fork, TheChildsHeapWorksOn) {
  put();
  const Ended ended = in_child([&] {
    if (!right(area_)) return kWrongBytes;
    for (std::uint64_t i = 0; i < 20; ++i) {
      const Area own(kPageblock, 500 + i);
      if (wake() == 0 &&
          !put_at(own.data(), own.size(), i % 2 == 0 ? Place::kStored : Place::kResident)) {
        return 30;
      }
      if (!right(own)) return kWrongAfterwards;
      try_put(area_.data(), area_.size(),
              Place::kStored);  // pages shared with the parent may refuse
      if (!right(area_)) return kWrongBytes;
    }
    return kRight;
  });
  EXPECT_TRUE(exited(ended, kRight));
  EXPECT_TRUE(area_.holds());
}

TEST_P(Fork, ChildThatClosesEveryDescriptor) {
  // Between fork and exec many programs close everything above 2, and then still need their memory.
  put();
  const Ended ended = in_child([&] {
    for (int fd = 3; fd < 1024; ++fd) close(fd);
    if (close_range(3, ~0u, 0) != 0 && errno != ENOSYS) return 40;
    if (!right(area_)) return kWrongBytes;
    auto* const argv = reinterpret_cast<char**>(area_.at(0));
    std::strcpy(reinterpret_cast<char*>(area_.at(kPage)), "/bin/true");
    argv[0] = reinterpret_cast<char*>(area_.at(kPage));
    argv[1] = nullptr;
    put_at(area_.data(), area_.size(), Place::kStored);
    execv(argv[0], argv);
    return 41;
  });
  EXPECT_TRUE(exited(ended, 0));
  EXPECT_TRUE(area_.holds());
}

// vfork()s a child that reads a byte which is away, in memory that it shares with us, and becomes
// /bin/true.
[[gnu::noinline]] pid_t vfork_and_read(const unsigned char* byte, volatile int* seen) {
  const pid_t child = vfork();
  if (child == 0) {
    *seen = *byte;
    execl("/bin/true", "true", static_cast<char*>(nullptr));
    _exit(99);
  }
  return child;
}

TEST_P(Fork, VforkSharesTheMemory) {
  for (std::size_t i = 0; i < 20; ++i) {
    put();
    volatile int seen = -1;
    const std::size_t at = (i * 31 + 5) * kPage + 9;
    const pid_t child = vfork_and_read(area_.at(at), &seen);
    ASSERT_GE(child, 0);
    EXPECT_TRUE(exited(wait_for(child, 20), 0));
    EXPECT_EQ(seen, pattern_byte(area_.seed(), at));
  }
  EXPECT_TRUE(area_.holds());
}

TEST_P(Fork, SpawnSystemAndPopen) {
  auto* const command =
      reinterpret_cast<char*>(area_.at(9 * kPage - 4));  // arguments that are away
  std::strcpy(command, "exit 3");
  put();
  EXPECT_EQ(WEXITSTATUS(system(command)), 3);
  std::strcpy(command, "echo from the shell");
  put();
  FILE* const shell = popen(command, "r");
  ASSERT_NE(shell, nullptr);
  char line[64] = "";
  EXPECT_NE(fgets(line, sizeof line, shell), nullptr);
  EXPECT_STREQ(line, "from the shell\n");
  EXPECT_EQ(pclose(shell), 0);
  auto* const argv = reinterpret_cast<char**>(area_.at(50 * kPage));
  std::strcpy(reinterpret_cast<char*>(area_.at(60 * kPage)), "sh");
  std::strcpy(reinterpret_cast<char*>(area_.at(70 * kPage)), "-c");
  std::strcpy(reinterpret_cast<char*>(area_.at(80 * kPage)), "exit 7");
  argv[0] = reinterpret_cast<char*>(area_.at(60 * kPage));
  argv[1] = reinterpret_cast<char*>(area_.at(70 * kPage));
  argv[2] = reinterpret_cast<char*>(area_.at(80 * kPage));
  argv[3] = nullptr;
  put();
  pid_t child = -1;
  ASSERT_EQ(posix_spawn(&child, "/bin/sh", nullptr, nullptr, argv, environ), 0);
  EXPECT_TRUE(exited(wait_for(child, 20), 7));
  EXPECT_TRUE(area_.holds(100 * kPage, area_.size()));
}

// Children made behind the back of pthread_atfork.
int run_clone(void* area) {
  return right(*static_cast<Area*>(area)) ? kRight : kWrongBytes;
}

TEST_P(Fork, UnderscoreFork) {
  put();
  const pid_t child = _Fork();
  ASSERT_GE(child, 0);
  if (child == 0) _exit(right(area_) ? kRight : kWrongBytes);
  EXPECT_TRUE(area_.holds());
  EXPECT_TRUE(exited(wait_for(child, 20), kRight));
}

// libc keeps a list of the threads' stacks, in which the threads of such a child must not appear
// twice: setuid() goes through it.
TEST_P(Fork, UnderscoreForkAndSetuid) {
  put();
  const pid_t child = _Fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    if (!right(area_)) _exit(kWrongBytes);
    _exit(setuid(getuid()) == 0 && right(area_) ? kRight : kWrongAfterwards);
  }
  EXPECT_TRUE(exited(wait_for(child, 20), kRight));
}

// libc's fork resets the locks of all streams in the child before anybody serves its pages.
TEST_P(Fork, StreamsInMemoryThatAreAway) {
  char* text = nullptr;
  std::size_t length = 0;
  FILE* const stream = open_memstream(&text, &length);
  ASSERT_NE(stream, nullptr);
  std::fputs("before", stream);
  put();
  const auto at = reinterpret_cast<std::uintptr_t>(stream);
  shove(reinterpret_cast<void*>(at & ~std::uintptr_t{kPage - 1}), kPage);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    std::fputs(" and after", stream);
    std::fclose(stream);
    _exit(text != nullptr && std::strcmp(text, "before and after") == 0 ? kRight : kWrongBytes);
  }
  EXPECT_TRUE(exited(wait_for(child, 20), kRight));
  std::fclose(stream);
  std::free(text);
}

TEST_P(Fork, CloneWithoutSharedMemory) {
  const std::unique_ptr<unsigned char[]> stack(new unsigned char[256 * kKiB]);
  put();
  const pid_t child = clone(run_clone, stack.get() + 256 * kKiB, SIGCHLD, &area_);
  ASSERT_GE(child, 0) << strerror(errno);
  EXPECT_TRUE(area_.holds());
  EXPECT_TRUE(exited(wait_for(child, 20), kRight));
}

TEST_P(Fork, BareSystemCall) {
  // Nobody can be told of this one but by the kernel (UFFD_FEATURE_EVENT_FORK, a privilege).
  // Without it the child may die; what it may not do is go on with wrong bytes.
  put();
  const auto child = static_cast<pid_t>(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
  ASSERT_GE(child, 0);
  if (child == 0) _exit(right(area_) ? kRight : kWrongBytes);
  EXPECT_TRUE(area_.holds());
  const Ended ended = wait_for(child, 20);
  EXPECT_FALSE(ended.timed_out);
  EXPECT_TRUE(WIFSIGNALED(ended.status) || exited(ended, kRight)) << ended.status;
}

INSTANTIATE_TEST_SUITE_P(At, Fork, testing::ValuesIn(kPlaces), place_name);

TEST(ForkInMotion, WhilePagesMove) {
  Area steady(2 * kPageblock, 101);
  Area busy(2 * kPageblock, 102);
  std::atomic<bool> stop{false};
  const Evictor evictor({{steady.data(), steady.size()}, {busy.data(), busy.size()}});
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 2; ++t) {
    threads.emplace_back([&, t] {  // fault all the time, allocate all the time
      for (std::size_t i = 0; !stop; ++i) {
        const std::size_t at = (t * 512 + i * 7 % 512) * kPage;
        fill(busy.at(at), kPage, i);
        void* const p = std::malloc(1 + i * 97 % 20000);
        std::memset(p, 1, 1 + i * 97 % 20000);
        std::free(p);
      }
    });
  }
  for (int i = 0; i < 12; ++i) {
    const Ended ended = in_child([&] {
      if (!right(steady)) return kWrongBytes;
      const std::unique_ptr<unsigned char[]> own(new unsigned char[300000]);
      fill(own.get(), 300000, 1);
      return first_wrong(own.get(), 300000, 1) == 300000 ? kRight : kWrongAfterwards;
    });
    ASSERT_TRUE(exited(ended, kRight)) << "child " << i;
  }
  stop = true;
  for (auto& thread : threads) thread.join();
  EXPECT_TRUE(steady.holds());
}

// fork waits for the lock of libc's list of streams, whose holder writes out a buffer that is away.
TEST(ForkInMotion, WhileStreamsAreWrittenOut) {
  constexpr std::size_t kBuffer = 64 * kKiB;
  const std::unique_ptr<char[]> buffer(new char[kBuffer]);
  const int file = memfd_create("sink", MFD_CLOEXEC);
  FILE* const sink = fdopen(file, "w");  // of /dev/null the kernel would read nothing
  ASSERT_NE(sink, nullptr);
  setvbuf(sink, buffer.get(), _IOFBF, kBuffer);
  const Evictor evictor({{buffer.get(), kBuffer}});
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    while (!stop) {
      for (int i = 0; i < 500; ++i)
        std::fprintf(sink, "%d and some more of it to fill pages with\n", i);
      std::fflush(nullptr);
      std::rewind(sink);
    }
  });
  for (int i = 0; i < 20; ++i) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) _exit(kRight);
    ASSERT_TRUE(exited(wait_for(child, 20), kRight)) << "time " << i;
  }
  stop = true;
  writer.join();
  std::fclose(sink);
}

TEST(ForkInMotion, SeveralThreadsForkAtOnce) {
  Area steady(kPageblock, 103);
  const Evictor evictor({{steady.data(), steady.size()}});
  std::vector<std::thread> threads;
  std::atomic<int> failures{0};
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 12; ++i) {
        if (!exited(in_child([&] { return right(steady) ? kRight : kWrongBytes; }), kRight))
          ++failures;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(failures, 0);
  EXPECT_TRUE(steady.holds());
}

TEST(ForkInMotion, Storm) {
  Area steady(kPageblock, 104);
  const Evictor evictor({{steady.data(), steady.size()}});
  std::vector<pid_t> children;
  for (std::size_t i = 0; i < 120; ++i) {
    const pid_t child = fork();
    ASSERT_GE(child, 0) << strerror(errno);
    if (child == 0) {
      const std::size_t from = i * 5 % 500 * kPage;
      _exit(first_wrong(steady.at(from), 8 * kPage, steady.seed(), from) == 8 * kPage
                ? kRight
                : kWrongBytes);
    }
    children.push_back(child);
    if (children.size() == 8) {
      for (const pid_t c : children)
        ASSERT_TRUE(exited(wait_for(c, 20), kRight)) << "at fork " << i;
      children.clear();
    }
  }
  for (const pid_t c : children) EXPECT_TRUE(exited(wait_for(c, 20), kRight));
  EXPECT_TRUE(steady.holds());
}

Area* g_area;
volatile sig_atomic_t g_forked;
volatile sig_atomic_t g_failed;
// Once: on a slow machine the next signal would be there before the handler of this one has ended,
// time and again.
void arm_timer() {
  const itimerval once{{0, 0}, {0, 5000}};
  setitimer(ITIMER_REAL, &once, nullptr);
}
void fork_here(int) {
  const int saved = errno;
  const pid_t child = fork();
  if (child == 0) _exit(right(*g_area) ? kRight : kWrongBytes);
  int status = -1;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  g_forked = g_forked + 1;
  if (status != 0) g_failed = g_failed + 1;
  if (g_forked < 5) arm_timer();
  errno = saved;
}

TEST(ForkInMotion, InASignalHandlerThatInterruptsAFault) {
  Area area(kPageblock, 105);
  g_area = &area;
  g_forked = 0;
  g_failed = 0;
  struct sigaction action {};
  action.sa_handler = fork_here;
  action.sa_flags = SA_RESTART;
  ASSERT_EQ(sigaction(SIGALRM, &action, nullptr), 0);
  {
    const Evictor evictor({{area.data(), area.size()}});
    arm_timer();
    // Only memory is touched in this loop: fork in a handler is allowed while no lock of malloc's
    // is held by us.
    for (long round = 0; g_forked < 5 && round < 100000; ++round) {
      if (!right(area)) {
        g_failed = g_failed + 1;
        break;
      }
    }
    const itimerval off{};
    setitimer(ITIMER_REAL, &off, nullptr);
  }
  EXPECT_GE(g_forked, 5);
  EXPECT_EQ(g_failed, 0);
  signal(SIGALRM, SIG_DFL);
}

HEAPTIER_ROLE(daemon) {
  if (wake() != 0) return 3;
  Area area(kPageblock, 106);
  if (!area.put_at(Place::kStored)) return 4;
  const int report = std::atoi(argv[1]);
  if (daemon(1, 1) != 0) return 5;
  const char verdict =
      right(area) && put_at(area.data(), area.size(), Place::kStored) && right(area) ? 'y' : 'n';
  return write(report, &verdict, 1) == 1 ? 0 : 6;
}

#if defined(__x86_64__)
std::vector<pid_t> heaptiers_threads(pid_t process) {
  std::vector<pid_t> found;
  const std::filesystem::path tasks = "/proc/" + std::to_string(process) + "/task";
  for (const auto& task : std::filesystem::directory_iterator(tasks)) {
    std::string name;
    std::ifstream(task.path() / "comm") >> name;
    if (name.starts_with("heaptier")) found.push_back(std::stoi(task.path().filename()));
  }
  return found;
}

// Where libc keeps the thread's table of thread-local storage, which it takes from malloc: the word
// behind the first of its control block. 0: not to be learnt.
std::uintptr_t thread_table(pid_t process, pid_t thread) {
  if (ptrace(PTRACE_SEIZE, thread, nullptr, nullptr) != 0) return 0;
  user_regs_struct registers{};
  std::uintptr_t table = 0;
  if (ptrace(PTRACE_INTERRUPT, thread, nullptr, nullptr) == 0 &&
      waitpid(thread, nullptr, __WALL) == thread &&
      ptrace(PTRACE_GETREGS, thread, nullptr, &registers) == 0) {
    iovec here{&table, sizeof table};
    // NOLINTNEXTLINE(performance-no-int-to-ptr)
    iovec there{reinterpret_cast<void*>(registers.fs_base + sizeof table), sizeof table};
    if (process_vm_readv(process, &here, 1, &there, 1, 0) != sizeof table) table = 0;
  }
  ptrace(PTRACE_DETACH, thread, nullptr, nullptr);
  return table;
}

constexpr int kNoneLate = 60, kFromTheHeap = 61, kNotTold = 62;

// In a process of its own: one that has had no CPU to spare lately gives its children handlers of
// the normal class from the start, and none is made late.
HEAPTIER_ROLE(fork_where_handlers_come_late) {
  if (wake() != 0) return kNoneLate;
  Area area(kPageblock, 105);
  if (!area.put_at(Place::kStored)) return kNoneLate;
  int report[2];
  if (pipe2(report, O_CLOEXEC) != 0) return kNoneLate;
  const pid_t child = fork();
  if (child == 0) {
    // On a CPU that never rests a handler of the idle class starves, and one of the other class is
    // made: then there are three threads.
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0) _exit(50);
    std::thread([] {
      for (volatile int i = 0;;) i = i + 1;
    }).detach();
    char grown = 'n';
    for (int round = 0; grown == 'n' && round < 500; ++round) {
      shove(area.data(), area.size());
      if (!right(area)) _exit(kWrongBytes);
      if (heaptiers_threads(getpid()).size() >= 3) grown = 'y';
    }
    if (write(report[1], &grown, 1) != 1) _exit(51);
    for (;;) pause();
  }
  close(report[1]);
  char grown = '-';
  int verdict = read(report[0], &grown, 1) == 1 && grown == 'y' ? 0 : kNoneLate;
  int seen = 0;
  for (const pid_t thread : heaptiers_threads(child)) {
    const std::uintptr_t table = thread_table(child, thread);
    if (table == 0) continue;
    ++seen;
    const std::uintptr_t page = table & ~(kPage - 1);
    if (places_of(reinterpret_cast<void*>(page), kPage) != "u") verdict = kFromTheHeap;
  }
  kill(child, SIGKILL);
  (void)wait_for(child, 20);
  return verdict == 0 && seen == 0 ? kNotTold : verdict;
}

// A child makes some of its handlers late, when they are first wanted: the thread that does so may
// not wait for a page of the heap, since it is the one that gets the other handlers a CPU.
TEST(ForkInMotion, HandlersMadeLateTakeNothingFromTheHeap) {
  if (!tiered()) GTEST_SKIP() << "no handlers";
  Ended status;
  // Whether one is made late is up to the machine, too.
  for (int tries = 0; tries < 3; ++tries) {
    status = run_role("fork_where_handlers_come_late", {}, {}, 40);
    if (!exited(status, kNoneLate)) break;
  }
  EXPECT_FALSE(exited(status, kFromTheHeap)) << "a thread-local table lies in a managed page";
  if (exited(status, kNotTold)) GTEST_SKIP() << "threads of a child may not be traced here";
  EXPECT_TRUE(exited(status, 0)) << "no handler was made late";
}
#endif

TEST(ForkInMotion, Daemon) {
  int report[2];
  ASSERT_EQ(pipe(report), 0);  // inherited by the role
  EXPECT_TRUE(exited(run_role("daemon", {std::to_string(report[1])}), 0));
  close(report[1]);
  char verdict = '-';
  EXPECT_EQ(read(report[0], &verdict, 1), 1) << "the daemon died";
  EXPECT_EQ(verdict, 'y');
  close(report[0]);
}

}  // namespace
}  // namespace heaptier::test
