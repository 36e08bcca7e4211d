// Signals while pages move: handlers that touch memory which is away, that jump out of a fault,
// that interrupt system calls; the application's own SIGSEGV and SIGBUS handlers; signals that must
// not end up in heaptier's threads.
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "tests/support/managed.h"
#include "tests/support/process.h"

namespace heaptier::test {
namespace {

class Handler {
 public:
  Handler(int signal, void (*handle)(int, siginfo_t*, void*), int flags = SA_RESTART)
      : signal_(signal) {
    struct sigaction action {};
    action.sa_sigaction = handle;
    action.sa_flags = flags | SA_SIGINFO;
    sigaction(signal, &action, &before_);
  }
  ~Handler() { sigaction(signal_, &before_, nullptr); }
  Handler(const Handler&) = delete;
  Handler& operator=(const Handler&) = delete;

 private:
  int signal_;
  struct sigaction before_ {};
};

class Ticks {  // SIGALRM every `us` microseconds
 public:
  explicit Ticks(long us) {
    const itimerval every{{0, us}, {0, us}};
    setitimer(ITIMER_REAL, &every, nullptr);
  }
  ~Ticks() {
    const itimerval off{};
    setitimer(ITIMER_REAL, &off, nullptr);
  }
  Ticks(const Ticks&) = delete;
  Ticks& operator=(const Ticks&) = delete;
};

// The next SIGALRM, once: on a slow machine a handler that faults may take longer than from one to
// the next, and nothing else would run.
void arm_timer() {
  const itimerval once{{0, 0}, {0, 200}};
  setitimer(ITIMER_REAL, &once, nullptr);
}

Area* g_touched;  // read by handlers
std::atomic<long> g_handled;
std::atomic<long> g_wrong;

void touch_everywhere(int, siginfo_t*, void*) {
  const long turn = g_handled.fetch_add(1);
  // Four pages a signal, another four the next time; the errno of what was interrupted is kept, as
  // handlers must.
  const int saved = errno;
  for (std::size_t i = 0; i < 4; ++i) {
    const std::size_t at = (static_cast<std::size_t>(turn) * 4 + i) * 7 % 512 * kPage + 1000;
    g_wrong += *g_touched->at(at) != pattern_byte(g_touched->seed(), at);
  }
  errno = saved;
}

TEST(Signals, StormOfHandlersThatFault) {
  Area touched(kPageblock, 61);
  g_touched = &touched;
  g_handled = 0;
  g_wrong = 0;
  const Handler handler(SIGUSR1, touch_everywhere);
  Area mine(2 * kPageblock, 62);
  const Evictor evictor({{touched.data(), touched.size()}, {mine.data(), mine.size()}});
  std::atomic<bool> stop{false};
  std::vector<std::thread> workers;
  std::vector<pthread_t> ids(3);
  std::atomic<int> started{0};
  for (std::size_t t = 0; t < 3; ++t) {
    workers.emplace_back([&, t] {
      ids[t] = pthread_self();
      ++started;
      for (int round = 0; round < 12; ++round) EXPECT_TRUE(mine.holds()) << "thread " << t;
      while (!stop) usleep(100);
    });
  }
  while (started < 3) usleep(100);
  // Signals that come while one is handled count once: on a busy machine more must be sent.
  for (long sent = 0; sent < 6000 || (g_handled <= 100 && sent < 10'000'000); ++sent) {
    pthread_kill(ids[static_cast<std::size_t>(sent) % 3], SIGUSR1);
    if (sent % 64 == 0) usleep(50);
  }
  stop = true;
  for (auto& worker : workers) worker.join();
  EXPECT_GT(g_handled, 100);
  EXPECT_EQ(g_wrong, 0);
}

std::atomic<bool> g_goes_on;
void touch_and_arm(int signal, siginfo_t* info, void* context) {
  touch_everywhere(signal, info, context);
  const int saved = errno;
  if (g_goes_on) arm_timer();
  errno = saved;
}
class TicksInTurn {  // each when the handler of the one before has ended
 public:
  TicksInTurn() {
    g_goes_on = true;
    arm_timer();
  }
  ~TicksInTurn() {
    g_goes_on = false;
    const itimerval off{};
    setitimer(ITIMER_REAL, &off, nullptr);
  }
  TicksInTurn(const TicksInTurn&) = delete;
  TicksInTurn& operator=(const TicksInTurn&) = delete;
};

TEST(Signals, TimerInTheMiddleOfFaults) {
  Area touched(kPageblock, 63);
  g_touched = &touched;
  g_handled = 0;
  g_wrong = 0;
  const Handler handler(SIGALRM, touch_and_arm);
  Area mine(kPageblock, 64);
  const Evictor evictor({{touched.data(), touched.size()}, {mine.data(), mine.size()}});
  const TicksInTurn ticks;
  for (std::uint64_t round = 0; round < 60 || g_handled < 200; ++round) {
    ASSERT_TRUE(mine.holds()) << "round " << round;
    ASSERT_LT(round, 100000u) << "the timer does not tick";
  }
  EXPECT_EQ(g_wrong, 0);
}

sigjmp_buf g_out;
volatile sig_atomic_t g_may_jump;
void jump_out(int, siginfo_t*, void*) {
  if (g_may_jump != 0) {
    g_may_jump = 0;
    siglongjmp(g_out, 1);
  }
}

// Reads a byte of every page until the handler jumps out. 1: it did; 0: it did not come; -1: a byte
// was wrong.
[[gnu::noinline]] int read_until_jumped(const Area& area) {
  if (sigsetjmp(g_out, 1) != 0) return 1;
  g_may_jump = 1;
  for (std::size_t at = 0; at < area.size() && g_may_jump != 0; at += kPage) {
    if (*area.at(at) != pattern_byte(area.seed(), at)) {
      g_may_jump = 0;
      return -1;
    }
  }
  g_may_jump = 0;
  return 0;
}

TEST(Signals, JumpingOutOfAFault) {
  Area mine(kPageblock, 65);
  const Handler handler(SIGALRM, jump_out);
  const Evictor evictor({{mine.data(), mine.size()}});
  const Ticks ticks(300);
  int jumps = 0;
  for (int round = 0; round < 300 || (jumps == 0 && round < 100000); ++round) {
    const int outcome = read_until_jumped(mine);
    ASSERT_GE(outcome, 0) << "round " << round;
    jumps += outcome;
  }
  EXPECT_GT(jumps, 0);
  EXPECT_TRUE(mine.holds());
}

void do_nothing(int, siginfo_t*, void*) {
  g_handled.fetch_add(1);
}

TEST(Signals, InterruptedSystemCallsOnAwayBuffers) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  Area to(kPageblock, 66);
  Area from(kPageblock, 67);
  g_handled = 0;
  const Handler handler(SIGALRM, do_nothing, 0);  // no SA_RESTART: calls end early or with EINTR
  std::thread writer([&] {
    sigset_t alarm;
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &alarm, nullptr);
    for (std::size_t done = 0; done < from.size();) {
      const ssize_t n =
          write(ends[1], from.at(done), std::min<std::size_t>(9000, from.size() - done));
      ASSERT_TRUE(n > 0 || errno == EINTR) << strerror(errno);
      if (n > 0) done += static_cast<std::size_t>(n);
    }
    close(ends[1]);
  });
  {
    const Evictor evictor({{to.data(), to.size()}, {from.data(), from.size()}});
    const Ticks ticks(150);
    for (std::size_t done = 0;;) {
      const ssize_t n = read(ends[0], to.at(done), std::min<std::size_t>(30000, to.size() - done));
      if (n == 0 || done == to.size()) break;
      ASSERT_TRUE(n > 0 || errno == EINTR) << strerror(errno);
      if (n > 0) done += static_cast<std::size_t>(n);
    }
  }
  writer.join();
  close(ends[0]);
  EXPECT_TRUE(pattern_holds(to.data(), to.size(), from.seed()));
  EXPECT_TRUE(from.holds());
}

void jump_with_address(int, siginfo_t* info, void*) {
  g_handled = static_cast<long>(reinterpret_cast<std::uintptr_t>(info->si_addr));
  siglongjmp(g_out, 1);
}

// Whether writing there ends in the handler.
[[gnu::noinline]] bool raises(std::uintptr_t address) {
  if (sigsetjmp(g_out, 1) != 0) return true;
  write_to(address);
  return false;
}

TEST(Signals, OwnSegvHandlerWorks) {
  Area mine(kPageblock, 68);
  ASSERT_TRUE(mine.put_at(Place::kStored));
  const Handler handler(SIGSEGV, jump_with_address, SA_NODEFER);
  for (const std::uintptr_t address : {std::uintptr_t{8}, std::uintptr_t{0x1234560}}) {
    EXPECT_TRUE(raises(address));
    EXPECT_EQ(g_handled, static_cast<long>(address));
  }
  EXPECT_TRUE(mine.holds());
}

TEST(Signals, OwnBusHandlerWorks) {
  // A mapping that ends behind its file: the classic SIGBUS.
  const int fd = memfd_create("short", MFD_CLOEXEC);
  ASSERT_EQ(ftruncate(fd, kPage), 0);
  void* const map = mmap(nullptr, 2 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  ASSERT_NE(map, MAP_FAILED);
  const auto base = reinterpret_cast<std::uintptr_t>(map);
  Area mine(kPageblock, 69);
  ASSERT_TRUE(mine.put_at(Place::kStored));
  const Handler handler(SIGBUS, jump_with_address, SA_NODEFER);
  EXPECT_TRUE(raises(base + kPage + 5));
  EXPECT_EQ(g_handled, static_cast<long>(base + kPage + 5));
  EXPECT_FALSE(raises(base));  // and what is there still works
  EXPECT_TRUE(mine.holds());
  munmap(map, 2 * kPage);
  close(fd);
}

TEST(Signals, BlockedEverywhereStaysPending) {
  // All threads of the application block SIGUSR2 and SIGTERM: the kernel looks for any thread that
  // does not. Were one of heaptier's to have them open, the default action would end the process
  // here.
  Area mine(kPageblock, 70);
  ASSERT_TRUE(mine.put_at(Place::kStored));
  sigset_t both;
  sigemptyset(&both);
  sigaddset(&both, SIGUSR2);
  sigaddset(&both, SIGTERM);
  ASSERT_EQ(pthread_sigmask(SIG_BLOCK, &both, nullptr), 0);
  const int fd = signalfd(-1, &both, SFD_CLOEXEC | SFD_NONBLOCK);
  ASSERT_EQ(kill(getpid(), SIGUSR2), 0);
  ASSERT_EQ(kill(getpid(), SIGTERM), 0);
  EXPECT_TRUE(mine.holds());
  usleep(5000);
  sigset_t pending;
  sigpending(&pending);
  EXPECT_EQ(sigismember(&pending, SIGUSR2), 1);
  EXPECT_EQ(sigismember(&pending, SIGTERM), 1);
  signalfd_siginfo info[2];
  EXPECT_EQ(read(fd, info, sizeof info), static_cast<ssize_t>(sizeof info));
  close(fd);
  pthread_sigmask(SIG_UNBLOCK, &both, nullptr);
}

HEAPTIER_ROLE(die_of_segv) {
  if (wake() != 0) return 3;
  Area mine(kPageblock, 71);
  if (!mine.put_at(Place::kStored) || !mine.holds()) return 4;
  write_to(16);
  return 5;
}
HEAPTIER_ROLE(die_of_bus) {
  if (wake() != 0) return 3;
  Area mine(kPageblock, 72);
  if (!mine.put_at(Place::kStored) || !mine.holds()) return 4;
  const int fd = memfd_create("short", MFD_CLOEXEC);
  auto* const map =
      static_cast<volatile char*>(mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  *map = 1;
  return 5;
}
HEAPTIER_ROLE(die_of_abort) {
  if (wake() != 0) return 3;
  Area mine(kPageblock, 73);
  if (!mine.put_at(Place::kStored) || !mine.holds()) return 4;
  abort();
}

TEST(Signals, AFatalSignalIsStillFatal) {
  EXPECT_TRUE(killed(run_role("die_of_segv", {}), SIGSEGV));
  EXPECT_TRUE(killed(run_role("die_of_bus", {}), SIGBUS));
  EXPECT_TRUE(killed(run_role("die_of_abort", {}), SIGABRT));
}

}  // namespace
}  // namespace heaptier::test
