// SIGSEGV's disposition set and the signal blocked, in every way that libc has, while memory is
// away: it is still served afterwards. Where pages are hidden SIGSEGV is what serves it.
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <ucontext.h>

#include <cstring>
#include <string>

#include "tests/support/managed.h"
#include "tests/support/process.h"

// These are what is tested here.
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

extern "C" sighandler_t bsd_signal(int, sighandler_t) noexcept;

namespace heaptier::test {
namespace {

void full_context() {
  ucontext_t here;
  volatile int times = 0;
  getcontext(&here);
  times = times + 1;
  if (times > 1) return;
  sigfillset(&here.uc_sigmask);
  setcontext(&here);
}

ucontext_t g_main;
ucontext_t g_other;
void come_back() {
  sigfillset(&g_main.uc_sigmask);
  swapcontext(&g_other, &g_main);
}
void full_swap() {
  static char stack[65536];
  getcontext(&g_other);
  g_other.uc_stack.ss_sp = stack;
  g_other.uc_stack.ss_size = sizeof stack;
  makecontext(&g_other, come_back, 0);
  swapcontext(&g_main, &g_other);
}

void block_all(int (*change)(int, const sigset_t*, sigset_t*)) {
  sigset_t all;
  sigfillset(&all);
  change(SIG_SETMASK, &all, nullptr);
}
void set_action() {
  struct sigaction fallback {};
  fallback.sa_handler = SIG_DFL;
  sigaction(SIGSEGV, &fallback, nullptr);
}

struct Way {
  const char* name;
  void (*go)();
};
constexpr Way kWays[] = {
    {"sigaction", set_action},
    {"signal", [] { signal(SIGSEGV, SIG_DFL); }},
    {"ssignal", [] { ssignal(SIGSEGV, SIG_IGN); }},
    {"bsd_signal", [] { bsd_signal(SIGSEGV, SIG_DFL); }},
    {"sysv_signal", [] { sysv_signal(SIGSEGV, SIG_DFL); }},
    {"plain_c_signal", [] { __sysv_signal(SIGSEGV, SIG_IGN); }},
    {"sigset", [] { sigset(SIGSEGV, SIG_DFL); }},
    {"sigset_hold", [] { sigset(SIGSEGV, SIG_HOLD); }},
    {"sigignore", [] { sigignore(SIGSEGV); }},
    {"siginterrupt", [] { siginterrupt(SIGSEGV, 1); }},
    {"pthread_sigmask", [] { block_all(pthread_sigmask); }},
    {"sigprocmask", [] { block_all(sigprocmask); }},
    {"sighold", [] { sighold(SIGSEGV); }},
    {"sigblock", [] { sigblock(-1); }},
    {"sigsetmask", [] { sigsetmask(-1); }},
    {"setcontext", full_context},
    {"swapcontext", full_swap},
};

HEAPTIER_ROLE(go_a_way) {
  const rlimit no_core{};
  setrlimit(RLIMIT_CORE, &no_core);
  if (wake() != 0) return 3;
  Area mine(kPageblock, 91);
  for (int round = 0; round < 2; ++round) {
    if (!mine.put_at(Place::kParked)) return 4;
    for (const Way& way : kWays) {
      if (round == 0 && std::strcmp(argv[1], way.name) == 0) way.go();
    }
    if (!mine.holds()) return 5;
  }
  return 0;
}

class Dispositions : public testing::TestWithParam<Way> {};
TEST_P(Dispositions, AwayIsStillServed) {
  EXPECT_TRUE(exited(run_role("go_a_way", {GetParam().name}), 0));
  note_away(1);
}
INSTANTIATE_TEST_SUITE_P(All, Dispositions, testing::ValuesIn(kWays),
                         [](const auto& info) { return std::string(info.param.name); });

void* whether_wrong(void* area) {
  return static_cast<Area*>(area)->holds() ? nullptr : area;
}

TEST(Dispositions, OfANewThread) {
  Area mine(kPageblock, 92);
  pthread_attr_t attributes;
  ASSERT_EQ(pthread_attr_init(&attributes), 0);
  sigset_t all;
  sigfillset(&all);
  ASSERT_EQ(pthread_attr_setsigmask_np(&attributes, &all), 0);
  ASSERT_TRUE(mine.put_at(Place::kParked));
  pthread_t thread;
  ASSERT_EQ(pthread_create(&thread, &attributes, whether_wrong, &mine), 0);
  void* wrong = &mine;
  ASSERT_EQ(pthread_join(thread, &wrong), 0);
  EXPECT_EQ(wrong, nullptr);
  pthread_attr_destroy(&attributes);
}

}  // namespace
}  // namespace heaptier::test
