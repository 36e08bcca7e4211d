// Inline mode under real faults, and the application's own SIGBUS handlers beside it.
#include "uffd/inline_faults.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <setjmp.h>

#include <random>
#include <thread>
#include <vector>

#include "tests/kernel/uffd/fixture.h"
#include "uffd/api.h"
#include "uffd/thread_door.h"

namespace heaptier {
namespace {

using testing::exited_with;
using testing::FillingSink;
using testing::in_child;
using testing::Mapping;
using testing::page_is_right;

class Inline : public ::testing::Test {
 protected:
  void SetUp() override {
    HEAPTIER_OPEN_OR_SKIP(port, OpenMode::kInline, nullptr);
    InlineConfig config;
    config.first_worker = 3;
    config.workers = 2;
    ASSERT_TRUE(start_inline_faults(sink, config).ok());
    ASSERT_TRUE(add_inline_range(m.at(), m.bytes()).ok());
    ASSERT_TRUE(port.register_range(m.at(), m.bytes()).ok());
  }
  void TearDown() override {
    EXPECT_EQ(sink.errors.load(), 0u);
    EXPECT_EQ(sink.overlaps.load(), 0);
    port.close();
    stop_inline_faults();
  }

  Mapping m{256 * kPageSize};
  Userfaultfd port;
  FillingSink sink{port};
};

// What the preload's wrapper does.
int app_sigaction(int sig, const struct sigaction* action, struct sigaction* old) {
  int result = -1;
  if (intercept_sigaction(sig, action, old, &result)) return result;
  return sigaction(sig, action, old);
}

// A page behind the end of a file: touching it is a SIGBUS of the application's own making.
char* page_behind_a_file() {
  const int fd = open("/tmp", O_TMPFILE | O_RDWR, 0600);
  void* p = mmap(nullptr, kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  ::close(fd);
  return static_cast<char*>(p);
}

sigjmp_buf g_back;
volatile sig_atomic_t g_calls = 0;
void* volatile g_addr = nullptr;
volatile sig_atomic_t g_usr1_blocked = 0;
volatile sig_atomic_t g_bus_blocked = 0;

void look_at_the_mask() {
  sigset_t mask;
  pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  g_usr1_blocked = sigismember(&mask, SIGUSR1);
  g_bus_blocked = sigismember(&mask, SIGBUS);
}
void app_handler_info(int, siginfo_t* info, void*) {
  g_calls = g_calls + 1;
  g_addr = info->si_addr;
  look_at_the_mask();
  siglongjmp(g_back, 1);
}
void app_handler_plain(int) {
  g_calls = g_calls + 1;
  look_at_the_mask();
  siglongjmp(g_back, 1);
}
void app_handler_returns(int) {
  g_calls = g_calls + 1;
}

// Touches `p`; true if a handler jumped back.
bool touch(char* p) {
  if (sigsetjmp(g_back, 1) != 0) return true;
  *static_cast<volatile char*>(p) = 1;
  return false;
}

TEST_F(Inline, TheThreadResolvesItsOwnFaults) {
  for (std::size_t i = 0; i < 32; ++i) ASSERT_TRUE(page_is_right(m.at(i))) << i;
  EXPECT_EQ(sink.missing_faults.load(), 32u);
  EXPECT_EQ(sink.last_worker.load(), 3u);
  EXPECT_EQ(sink.last_tid.load(), door::thread_id());
  EXPECT_GE(inline_stats().faults, 32u);
}

TEST_F(Inline, TellsWritesToProtectedPagesFromMissingOnes) {
  ASSERT_TRUE(page_is_right(m.at(40)));
  ASSERT_TRUE(port.write_protect(m.at(40), kPageSize, true, false).ok());
  ASSERT_TRUE(page_is_right(m.at(40)));
  EXPECT_EQ(sink.wp_faults.load(), 0u);
  *m.ptr(40) = 1;
  EXPECT_EQ(sink.wp_faults.load(), 1u);
  *m.ptr(41) = 1;  // absent: not a protection fault
  EXPECT_EQ(sink.wp_faults.load(), 1u);
  EXPECT_EQ(sink.missing_faults.load(), 2u);
}

// The price of this mode, and why it is never the default.
TEST_F(Inline, SystemCallsGetEfault) {
  const int zeros = open("/dev/zero", O_RDONLY);
  EXPECT_EQ(read(zeros, m.ptr(50), 16), -1);
  EXPECT_EQ(errno, EFAULT);
  ::close(zeros);
}

TEST_F(Inline, KeepsErrnoAndTheSignalMask) {
  sigset_t before;
  sigset_t after;
  pthread_sigmask(SIG_SETMASK, nullptr, &before);
  errno = 4711;
  *m.ptr(60) = 1;
  EXPECT_EQ(errno, 4711);
  pthread_sigmask(SIG_SETMASK, nullptr, &after);
  for (int sig = 1; sig < 64; ++sig) {
    EXPECT_EQ(sigismember(&before, sig), sigismember(&after, sig));
  }
}

TEST_F(Inline, MoreThreadsThanWorkersAndBusyPages) {
  sink.busy_left.store(500);
  std::atomic<std::uint64_t> wrong{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int i = 0; i < 2000; ++i) {
        const std::size_t page = random() % 64;
        if (random() % 4 == 0) madvise(m.ptr(page), kPageSize, MADV_DONTNEED);
        if (!page_is_right(m.at(page))) wrong.fetch_add(1);
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(wrong.load(), 0u);
  EXPECT_GE(inline_stats().busy_retries, 500u);
}

TEST_F(Inline, ForeignFaultsGoToTheApplicationsHandler) {
  char* foreign = page_behind_a_file();
  struct sigaction action {};
  struct sigaction old {};
  action.sa_sigaction = app_handler_info;
  action.sa_flags = SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  sigaddset(&action.sa_mask, SIGUSR1);
  ASSERT_EQ(app_sigaction(SIGBUS, &action, &old), 0);
  EXPECT_EQ(old.sa_handler, SIG_DFL);
  g_calls = 0;
  EXPECT_TRUE(touch(foreign));
  EXPECT_EQ(g_calls, 1);
  EXPECT_EQ(g_addr, foreign);
  EXPECT_EQ(g_usr1_blocked, 1);
  EXPECT_EQ(g_bus_blocked, 1);
  EXPECT_FALSE(touch(m.ptr(70)));  // ours is still ours
  EXPECT_EQ(g_calls, 1);

  action.sa_handler = app_handler_plain;
  action.sa_flags = static_cast<int>(SA_NODEFER | SA_RESETHAND);
  sigemptyset(&action.sa_mask);
  ASSERT_EQ(app_sigaction(SIGBUS, &action, &old), 0);
  EXPECT_EQ(old.sa_sigaction, app_handler_info);
  EXPECT_EQ(old.sa_flags, SA_SIGINFO);
  EXPECT_TRUE(sigismember(&old.sa_mask, SIGUSR1));
  EXPECT_TRUE(touch(foreign));
  EXPECT_EQ(g_calls, 2);
  EXPECT_EQ(g_usr1_blocked, 0);
  EXPECT_EQ(g_bus_blocked, 0);
  ASSERT_EQ(app_sigaction(SIGBUS, nullptr, &old), 0);
  EXPECT_EQ(old.sa_handler, SIG_DFL);  // SA_RESETHAND
  munmap(foreign, kPageSize);
}

TEST_F(Inline, AHandlerOfBeforeIsChainedAndComesBackAtTheEnd) {
  stop_inline_faults();
  struct sigaction action {};
  struct sigaction now {};
  action.sa_handler = app_handler_plain;
  ASSERT_EQ(sigaction(SIGBUS, &action, nullptr), 0);
  ASSERT_TRUE(start_inline_faults(sink, {}).ok());
  EXPECT_EQ(start_inline_faults(sink, {}), Errno{EBUSY});
  ASSERT_TRUE(add_inline_range(m.at(), m.bytes()).ok());
  char* foreign = page_behind_a_file();
  g_calls = 0;
  EXPECT_TRUE(touch(foreign));
  EXPECT_EQ(g_calls, 1);
  EXPECT_FALSE(touch(m.ptr(80)));
  munmap(foreign, kPageSize);
  stop_inline_faults();
  ASSERT_EQ(sigaction(SIGBUS, nullptr, &now), 0);
  EXPECT_EQ(now.sa_handler, app_handler_plain);
  action.sa_handler = SIG_DFL;
  sigaction(SIGBUS, &action, nullptr);
  int result = 0;
  EXPECT_FALSE(intercept_sigaction(SIGBUS, &action, nullptr, &result));
}

// A page that fails its checksum: the application's SIGBUS, not a loop.
TEST_F(Inline, LostContentIsTheApplicationsSignal) {
  class LosingSink final : public FaultSink {
    FaultReply on_fault(const FaultEvent&, unsigned) override {
      return {FaultVerdict::kLost, 0, 0};
    }
  };
  LosingSink losing;
  stop_inline_faults();
  ASSERT_TRUE(start_inline_faults(losing, {}).ok());
  ASSERT_TRUE(add_inline_range(m.at(), m.bytes()).ok());
  struct sigaction action {};
  action.sa_sigaction = app_handler_info;
  action.sa_flags = SA_SIGINFO;
  ASSERT_EQ(app_sigaction(SIGBUS, &action, nullptr), 0);
  g_calls = 0;
  EXPECT_TRUE(touch(m.ptr(99)));
  EXPECT_EQ(g_calls, 1);
  EXPECT_EQ(g_addr, m.ptr(99));
  action.sa_handler = SIG_DFL;
  action.sa_flags = 0;
  ASSERT_EQ(app_sigaction(SIGBUS, &action, nullptr), 0);
}

TEST_F(Inline, OtherSignalsAreNotOurBusiness) {
  int result = 0;
  struct sigaction old {};
  EXPECT_FALSE(intercept_sigaction(SIGSEGV, nullptr, &old, &result));
  EXPECT_TRUE(intercept_sigaction(SIGBUS, nullptr, &old, &result));
}

bool died_of_sigbus(int status) {
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS;
}

TEST_F(Inline, WithoutAHandlerTheApplicationDiesAsItWould) {
  char* foreign = page_behind_a_file();
  EXPECT_TRUE(died_of_sigbus(in_child([&] { return touch(foreign) ? 1 : 0; })));
  EXPECT_TRUE(died_of_sigbus(in_child([] { return raise(SIGBUS); })));
  // A fault cannot be ignored, a signal that was sent can.
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  EXPECT_TRUE(died_of_sigbus(in_child([&] {
    app_sigaction(SIGBUS, &ignore, nullptr);
    return touch(foreign) ? 1 : 0;
  })));
  EXPECT_TRUE(exited_with(in_child([&] {
                            app_sigaction(SIGBUS, &ignore, nullptr);
                            raise(SIGBUS);
                            return 5;
                          }),
                          5));
  struct sigaction returns {};
  returns.sa_handler = app_handler_returns;
  EXPECT_TRUE(exited_with(in_child([&] {
                            app_sigaction(SIGBUS, &returns, nullptr);
                            g_calls = 0;
                            raise(SIGBUS);
                            raise(SIGBUS);
                            return 10 + g_calls;
                          }),
                          12));
  munmap(foreign, kPageSize);
}

TEST_F(Inline, WorksOnAnAlternateStackAndInAChild) {
  char stack[64 * 1024];
  stack_t alternate{};
  alternate.ss_sp = stack;
  alternate.ss_size = sizeof stack;
  ASSERT_EQ(sigaltstack(&alternate, nullptr), 0);
  EXPECT_TRUE(page_is_right(m.at(90)));
  alternate.ss_flags = SS_DISABLE;
  sigaltstack(&alternate, nullptr);
  const int status = in_child([&] {
    inline_faults_in_child();
    Userfaultfd fresh;
    port.close();
    if (fresh.open(OpenMode::kInline, nullptr).failed()) return 1;
    if (fresh.register_range(m.at(), m.bytes()).failed()) return 2;
    sink.use(fresh);
    return page_is_right(m.at(91)) ? 0 : 3;
  });
  EXPECT_TRUE(exited_with(status, 0)) << status;
}

TEST(InlineRanges, AreAddedAndRemoved) {
  for (int round = 0; round < 3; ++round) {
    for (std::uintptr_t i = 1; i <= 64; ++i) {
      ASSERT_TRUE(add_inline_range(i * kPageblockSize, kPageblockSize).ok()) << i;
    }
    EXPECT_EQ(add_inline_range(65 * kPageblockSize, kPageblockSize), Errno{ENOSPC});
    for (std::uintptr_t i = 1; i <= 64; ++i) {
      ASSERT_TRUE(remove_inline_range(i * kPageblockSize).ok());
    }
    EXPECT_EQ(remove_inline_range(kPageblockSize), Errno{ENOENT});
  }
}

}  // namespace
}  // namespace heaptier
