// The end of a process while its threads fault and its pages move: no hang, the right status,
// whatever the way out.
#include <fcntl.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <threads.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "tests/support/managed.h"
#include "tests/support/process.h"

namespace heaptier::test {
namespace {

Area* g_area;
std::atomic<long> g_touches;

void* touch_for_ever(void*) {
  for (std::size_t i = 0;; ++i) {
    const std::size_t at = i * 13 % 1024 * kPage;
    if (*g_area->at(at) != pattern_byte(g_area->seed(), at)) _exit(77 + 1);
    g_touches.fetch_add(1, std::memory_order_relaxed);
  }
}
void* evict_for_ever(void*) {
  for (;;) {
    shove(g_area->data(), g_area->size());
    if (!tiered()) usleep(1000);
  }
}

// Three threads fault, one evicts, none is ever joined; returns when they are well under way.
int start_the_storm() {
  if (wake() != 0) return 3;
  g_area = new Area(2 * kPageblock, 111);
  for (int i = 0; i < 4; ++i) {
    pthread_t thread;
    if (pthread_create(&thread, nullptr, i == 3 ? evict_for_ever : touch_for_ever, nullptr) != 0)
      return 4;
  }
  for (int ms = 0; ms < 40000; ++ms) {
    if (g_touches.load() >= 3000 && (!tiered() || put_away_count() > 1000)) return 0;
    usleep(1000);
  }
  return 5;  // nothing moves
}

struct AtEnd {
  ~AtEnd() {  // destructors of globals may use the heap to the last
    if (g_area == nullptr) return;
    char* const p = static_cast<char*>(std::malloc(100000));
    std::memset(p, 1, 100000);
    std::free(p);
    static_cast<void>(*static_cast<volatile unsigned char*>(g_area->at(5 * kPage)));
  }
};
const AtEnd at_end;

HEAPTIER_ROLE(storm_and) {
  const std::string how = argv[1];
  if (const int failed = start_the_storm(); failed != 0) return failed;
  if (how == "return") return 41;
  if (how == "exit") std::exit(41);
  if (how == "atexit") {
    std::atexit([] { static_cast<void>(g_area->holds()); });
    std::exit(41);
  }
  if (how == "quick_exit") {
    std::at_quick_exit([] { static_cast<void>(g_area->holds(0, 64 * kPage)); });
    std::quick_exit(41);
  }
  if (how == "_exit") _exit(41);
  if (how == "exit_in_thread") {
    std::thread([] { std::exit(41); }).join();
  }
  if (how == "pthread_exit") {  // the main thread goes, another ends the process
    std::thread([] {
      usleep(20000);
      std::exit(41);
    }).detach();
    pthread_exit(nullptr);
  }
  if (how == "abort") std::abort();
  if (how == "kill") raise(SIGKILL);
  if (how == "term") raise(SIGTERM);
  if (how == "segv") write_to(8);
  if (how == "wait") {
    std::printf("under way\n");
    std::fflush(stdout);
    for (;;) pause();
  }
  const auto exec_true = [] {
    execl("/bin/sh", "sh", "-c", "exit 41", static_cast<char*>(nullptr));
  };
  if (how == "exec") exec_true();
  if (how == "exec_in_thread") std::thread(exec_true).join();
  return 99;
}

// The last of the threads that pthread_create has made goes; one of C's own goes on.
HEAPTIER_ROLE(only_c11_left) {
  g_area = new Area(kPageblock, 8);
  if (!g_area->put_at(Place::kStored)) return 98;
  thrd_t other;
  const auto go_on = [](void*) -> int {
    usleep(100000);
    std::exit(g_area->holds() ? 41 : 42);
  };
  if (thrd_create(&other, go_on, nullptr) != thrd_success) return 97;
  thrd_exit(0);
}

TEST(ExitsOfC11Threads, LastThreadEndsTheProcess) {
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(exited(run_role("only_c11_left", {}, {}, 60), 41));
}

// A handler that touches what is away interrupts the thread that ends the process, which for a
// moment has those stand still who bring pages back.
HEAPTIER_ROLE(alarms_to_the_end) {
  if (const int failed = start_the_storm(); failed != 0) return failed;
  struct sigaction touch {};
  touch.sa_handler = [](int) {
    static volatile std::size_t at = 0;
    at = (at + 13 * kPage) % g_area->size();
    static_cast<void>(*static_cast<volatile unsigned char*>(g_area->at(at)));
  };
  sigaction(SIGALRM, &touch, nullptr);
  const itimerval often{{0, 200}, {0, 200}};
  setitimer(ITIMER_REAL, &often, nullptr);
  usleep(20000);
  return 41;
}

constexpr int kTimes = 4;

TEST(Exits, WithAlarmsToTheEnd) {
  for (int i = 0; i < 3 * kTimes; ++i) {
    ASSERT_TRUE(
        exited(run_role("alarms_to_the_end", {}, {"HEAPTIER_STATS=json:/dev/null"}, 60), 41))
        << "time " << i;
  }
}

class Exits : public testing::TestWithParam<const char*> {};

TEST_P(Exits, WithStatus) {
  for (int i = 0; i < kTimes; ++i) {
    ASSERT_TRUE(exited(run_role("storm_and", {GetParam()}, {}, 60), 41)) << "time " << i;
    note_away(preloaded());
  }
}
INSTANTIATE_TEST_SUITE_P(By, Exits,
                         testing::Values("return", "exit", "atexit", "quick_exit", "_exit",
                                         "exit_in_thread", "pthread_exit", "exec",
                                         "exec_in_thread"),
                         [](const auto& info) { return std::string(info.param); });

TEST(Exits, BySignals) {
  for (int i = 0; i < kTimes; ++i) {
    ASSERT_TRUE(killed(run_role("storm_and", {"abort"}, {}, 60), SIGABRT));
    ASSERT_TRUE(killed(run_role("storm_and", {"kill"}, {}, 60), SIGKILL));
    ASSERT_TRUE(killed(run_role("storm_and", {"term"}, {}, 60), SIGTERM));
    ASSERT_TRUE(killed(run_role("storm_and", {"segv"}, {}, 60), SIGSEGV));
  }
}

TEST(Exits, KilledFromOutside) {
  for (const int signal : {SIGKILL, SIGTERM, SIGINT, SIGQUIT}) {
    Beside role("storm_and", {"wait"});
    ASSERT_EQ(role.hear(), "under way");
    ASSERT_EQ(kill(role.pid(), signal), 0);
    EXPECT_TRUE(killed(role.end(15), signal));
  }
}

TEST(Exits, StoppedAndContinued) {
  Beside role("storm_and", {"wait"});
  ASSERT_EQ(role.hear(), "under way");
  for (int i = 0; i < 20; ++i) {
    ASSERT_EQ(kill(role.pid(), SIGSTOP), 0);
    usleep(2000);
    ASSERT_EQ(kill(role.pid(), SIGCONT), 0);
    usleep(2000);
  }
  ASSERT_EQ(kill(role.pid(), SIGTERM), 0);
  EXPECT_TRUE(killed(role.end(15), SIGTERM));
}

}  // namespace
}  // namespace heaptier::test
