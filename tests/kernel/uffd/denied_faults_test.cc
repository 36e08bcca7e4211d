// Access that was taken away, given back by the thread that misses it, and the application's own
// SIGSEGV handlers beside that. Needs no userfaultfd.
#include <gtest/gtest.h>
#include <setjmp.h>

#include <random>
#include <thread>
#include <vector>

#include "tests/kernel/uffd/fixture.h"
#include "uffd/inline_faults.h"

namespace heaptier {
namespace {

using testing::exited_with;
using testing::fill_page;
using testing::in_child;
using testing::Mapping;
using testing::page_is_right;

// Gives access back to the page, unless it is one that the application has closed itself.
class OpeningSink final : public FaultSink {
 public:
  FaultReply on_fault(const FaultEvent& e, unsigned) override {
    if (!e.denied || e.wp) wrong.fetch_add(1);
    if (e.address == closed) return {FaultVerdict::kLost, 0, 0};
    (e.write ? writes : reads).fetch_add(1);
    void* page = reinterpret_cast<void*>(e.address);
    if (mprotect(page, kPageSize, PROT_READ | PROT_WRITE) != 0) wrong.fetch_add(1);
    return {FaultVerdict::kWake, e.address, kPageSize};
  }
  std::uintptr_t closed = 0;
  std::atomic<int> reads{0};
  std::atomic<int> writes{0};
  std::atomic<int> wrong{0};
};

class Denied : public ::testing::Test {
 protected:
  void SetUp() override {
    for (std::size_t i = 0; i < m.pages(); ++i) fill_page(m.at(i), m.ptr(i));
    InlineConfig config;
    config.signal = SIGSEGV;
    ASSERT_TRUE(start_inline_faults(sink, config).ok());
    ASSERT_TRUE(add_inline_range(m.at(), m.bytes()).ok());
    hide(0, m.pages());
  }
  void TearDown() override {
    EXPECT_EQ(sink.wrong.load(), 0);
    stop_inline_faults();
    signal(SIGSEGV, SIG_DFL);
  }
  void hide(std::size_t page, std::size_t n) {
    ASSERT_EQ(mprotect(m.ptr(page), n * kPageSize, PROT_NONE), 0);
  }

  Mapping m{256 * kPageSize};
  OpeningSink sink;
};

// What the preload's wrapper does.
int app_sigaction(const struct sigaction* action, struct sigaction* old) {
  int result = -1;
  if (intercept_sigaction(SIGSEGV, action, old, &result)) return result;
  return sigaction(SIGSEGV, action, old);
}

sigjmp_buf g_back;
volatile sig_atomic_t g_calls = 0;
void* volatile g_addr = nullptr;
volatile sig_atomic_t g_code = 0;

void app_handler(int, siginfo_t* info, void*) {
  g_calls = g_calls + 1;
  g_addr = info->si_addr;
  g_code = info->si_code;
  siglongjmp(g_back, 1);
}

// Writes to `p`; true if the application's handler jumped back.
bool touch(void* p) {
  if (sigsetjmp(g_back, 1) != 0) return true;
  *static_cast<volatile char*>(p) = 1;
  return false;
}

TEST_F(Denied, ATouchGetsThroughAndTellsWhetherItWrote) {
  EXPECT_TRUE(page_is_right(m.at(3)));
  EXPECT_EQ(sink.reads.load(), 1);
  EXPECT_TRUE(page_is_right(m.at(3)));
  EXPECT_EQ(sink.reads.load(), 1) << "once";
  *m.ptr(7) = 1;
  EXPECT_EQ(sink.writes.load(), 1);
}

TEST_F(Denied, ThreadsRaceForTheSamePages) {
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      std::minstd_rand random(t + 1);
      for (int i = 0; i < 3000; ++i) {
        const std::size_t page = random() % m.pages();
        if (random() % 4 == 0) mprotect(m.ptr(page), kPageSize, PROT_NONE);
        if (!page_is_right(m.at(page))) wrong.fetch_add(1);
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(wrong.load(), 0);
}

TEST_F(Denied, TheApplicationsFaultsGoToItsOwnHandler) {
  struct sigaction action {};
  struct sigaction old {};
  action.sa_sigaction = app_handler;
  action.sa_flags = SA_SIGINFO;
  ASSERT_EQ(app_sigaction(&action, &old), 0);
  EXPECT_EQ(old.sa_handler, SIG_DFL);
  g_calls = 0;
  // Nothing is mapped there; and a page that it has closed itself.
  Mapping other{kPageSize};
  ASSERT_EQ(mprotect(other.ptr(), kPageSize, PROT_READ), 0);
  EXPECT_TRUE(touch(reinterpret_cast<void*>(16)));
  EXPECT_EQ(g_addr, reinterpret_cast<void*>(16));
  EXPECT_EQ(g_code, SEGV_MAPERR);
  EXPECT_TRUE(touch(other.ptr()));
  EXPECT_EQ(g_addr, other.ptr());
  EXPECT_EQ(g_code, SEGV_ACCERR);
  sink.closed = m.at(9);
  EXPECT_TRUE(touch(m.ptr(9) + 100));
  EXPECT_EQ(g_addr, m.ptr(9) + 100);
  EXPECT_EQ(g_calls, 3);
  EXPECT_FALSE(touch(m.ptr(10)));
  EXPECT_EQ(g_calls, 3);
  ASSERT_EQ(app_sigaction(nullptr, &old), 0);
  EXPECT_EQ(old.sa_sigaction, app_handler);
}

bool died_of_sigsegv(int status) {
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
}

TEST_F(Denied, WithoutAHandlerTheApplicationDiesAsItWould) {
  sink.closed = m.at(9);
  EXPECT_TRUE(died_of_sigsegv(in_child([&] { return touch(m.ptr(9)) ? 1 : 0; })));
  EXPECT_TRUE(died_of_sigsegv(in_child([&] { return touch(nullptr) ? 1 : 0; })));
  EXPECT_TRUE(died_of_sigsegv(in_child([] { return raise(SIGSEGV); })));
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  EXPECT_TRUE(died_of_sigsegv(in_child([&] {
    app_sigaction(&ignore, nullptr);
    return touch(m.ptr(9)) ? 1 : 0;
  })));
  EXPECT_TRUE(exited_with(in_child([&] {
                            app_sigaction(&ignore, nullptr);
                            raise(SIGSEGV);
                            return 5;
                          }),
                          5));
}

// Mappings are inherited as they are, and so is the handler.
TEST_F(Denied, AChildIsServedAtOnce) {
  const int status = in_child([&] {
    inline_faults_in_child();
    return page_is_right(m.at(91)) && !touch(m.ptr(92)) ? 0 : 3;
  });
  EXPECT_TRUE(exited_with(status, 0)) << status;
}

TEST_F(Denied, WorksOnAnAlternateStack) {
  char stack[64 * 1024];
  stack_t alternate{};
  alternate.ss_sp = stack;
  alternate.ss_size = sizeof stack;
  ASSERT_EQ(sigaltstack(&alternate, nullptr), 0);
  EXPECT_TRUE(page_is_right(m.at(90)));
  alternate.ss_flags = SS_DISABLE;
  sigaltstack(&alternate, nullptr);
}

// The price.
TEST_F(Denied, SystemCallsGetEfaultAndABlockedSignalIsTheEnd) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  EXPECT_EQ(write(ends[1], m.ptr(50), 16), -1);
  EXPECT_EQ(errno, EFAULT);
  close(ends[0]);
  close(ends[1]);
  EXPECT_TRUE(died_of_sigsegv(in_child([&] {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, nullptr);
    return page_is_right(m.at(51)) ? 0 : 1;
  })));
}

}  // namespace
}  // namespace heaptier
