// The older ways to set and to block signals, as libc documents them. SIGSEGV and SIGBUS may be
// heaptier's, the first may never be blocked with HEAPTIER_SAMPLER=protnone: the program must not
// see any of that.
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <ucontext.h>
#include <unistd.h>

#include <cerrno>
#include <initializer_list>

#include "tests/preload/abi/check.h"

// These are what is tested here.
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

extern "C" sighandler_t bsd_signal(int, sighandler_t) noexcept;

namespace {

volatile sig_atomic_t seen;
volatile sig_atomic_t blocked_inside;

bool blocks(int sig) {
  sigset_t now;
  return pthread_sigmask(SIG_SETMASK, nullptr, &now) == 0 && sigismember(&now, sig) == 1;
}
void on_signal(int sig) {
  seen = seen + 1;
  blocked_inside = blocks(sig) ? 1 : 0;
}
struct sigaction told(int sig) {
  struct sigaction now = {};
  CHECK(sigaction(sig, nullptr, &now) == 0);
  return now;
}
bool has(int sig, unsigned flag) {
  return (static_cast<unsigned>(told(sig).sa_flags) & flag) != 0;
}
int bit(int sig) {
  return static_cast<int>(1u << (sig - 1));
}
void* blocks_segv(void*) {
  return reinterpret_cast<void*>(blocks(SIGSEGV) ? 1L : 0L);
}

constexpr int kSignals[] = {SIGUSR1, SIGBUS, SIGSEGV, SIGTERM};

// What a test leaves is as before it.
struct Kept {
  explicit Kept(int sig) : sig_(sig) { sigaction(sig, nullptr, &action_); }
  ~Kept() {
    sigaction(sig_, &action_, nullptr);
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, sig_);
    pthread_sigmask(SIG_UNBLOCK, &mask, nullptr);
  }
  int sig_;
  struct sigaction action_ = {};
};

}  // namespace

GROUP(signal_of_bsd) {
  for (sighandler_t (*set)(int, sighandler_t) : {signal, ssignal, bsd_signal}) {
    for (int sig : kSignals) {
      const Kept kept(sig);
      seen = 0;
      CHECK(set(sig, on_signal) == SIG_DFL);
      CHECK(has(sig, SA_RESTART) && !has(sig, SA_RESETHAND) && !has(sig, SA_NODEFER));
      struct sigaction now = told(sig);
      CHECK(sigismember(&now.sa_mask, sig) == 1);
      raise(sig);
      raise(sig);
      CHECK(seen == 2);
      CHECK(blocked_inside == 1);
      CHECK(!blocks(sig));
      CHECK(siginterrupt(sig, 1) == 0 && !has(sig, SA_RESTART));
      CHECK(set(sig, SIG_IGN) == on_signal && !has(sig, SA_RESTART));
      CHECK(siginterrupt(sig, 0) == 0 && has(sig, SA_RESTART));
      CHECK(set(sig, SIG_DFL) == SIG_IGN && has(sig, SA_RESTART));
    }
    errno = 0;
    CHECK(set(0, on_signal) == SIG_ERR && errno == EINVAL);
    CHECK(set(SIGKILL, on_signal) == SIG_ERR);
    CHECK(set(SIGSEGV, SIG_ERR) == SIG_ERR && errno == EINVAL);
  }
}

// What signal() is to a program compiled as plain C.
GROUP(signal_of_system_v) {
  for (sighandler_t (*set)(int, sighandler_t) : {sysv_signal, __sysv_signal}) {
    for (int sig : kSignals) {
      const Kept kept(sig);
      seen = 0;
      CHECK(set(sig, on_signal) == SIG_DFL);
      CHECK(!has(sig, SA_RESTART) && has(sig, SA_RESETHAND) && has(sig, SA_NODEFER));
      raise(sig);
      CHECK(seen == 1);
      CHECK(blocked_inside == 0);
      CHECK(told(sig).sa_handler == SIG_DFL);
      CHECK(set(sig, on_signal) == SIG_DFL);
      CHECK(set(sig, SIG_IGN) == on_signal);
      raise(sig);
      CHECK(seen == 1);
      CHECK(set(sig, SIG_DFL) == SIG_IGN);
    }
    errno = 0;
    CHECK(set(0, on_signal) == SIG_ERR && errno == EINVAL);
    CHECK(set(SIGKILL, on_signal) == SIG_ERR);
    CHECK(set(SIGSEGV, SIG_ERR) == SIG_ERR && errno == EINVAL);
  }
}

GROUP(sigset) {
  for (int sig : kSignals) {
    const Kept kept(sig);
    seen = 0;
    CHECK(sigset(sig, on_signal) == SIG_DFL);
    raise(sig);
    raise(sig);
    CHECK(seen == 2);
    CHECK(blocked_inside == 1);
    CHECK(sigset(sig, SIG_HOLD) == on_signal);
    CHECK(blocks(sig));
    CHECK(sigset(sig, SIG_HOLD) == SIG_HOLD);
    CHECK(sigset(sig, on_signal) == SIG_HOLD);  // and not held any more
    CHECK(!blocks(sig));
    CHECK(sighold(sig) == 0);
    CHECK(blocks(sig));
    CHECK(sighold(sig) == 0);
    CHECK(sigrelse(sig) == 0);
    CHECK(!blocks(sig));
    CHECK(sigignore(sig) == 0);
    raise(sig);
    CHECK(seen == 2);
    CHECK(sigset(sig, SIG_DFL) == SIG_IGN);
  }
  for (int (*call)(int) : {sighold, sigrelse, sigignore}) {
    errno = 0;
    CHECK(call(0) == -1 && errno == EINVAL);
    CHECK(call(65) == -1);
  }
  CHECK(sigset(0, SIG_IGN) == SIG_ERR);
  CHECK(sigset(SIGKILL, SIG_IGN) == SIG_ERR);
}

GROUP(sigblock) {
  // The linker would warn of its use.
  const auto get_mask = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "siggetmask"));
  CHECK(get_mask != nullptr);
  for (int sig : kSignals) {
    const Kept kept(sig);
    const int before = get_mask();
    CHECK((before & bit(sig)) == 0);
    CHECK(sigblock(bit(sig)) == before);
    CHECK(blocks(sig));
    CHECK(get_mask() == (before | bit(sig)));
    CHECK(sigsetmask(before) == (before | bit(sig)));
    CHECK(!blocks(sig));
    CHECK(sigsetmask(before | bit(sig)) == before);
    CHECK(sigsetmask(before) == (before | bit(sig)));
  }
}

GROUP(mask_of_new_thread) {
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGUSR1);
  pthread_attr_t attributes;
  CHECK(pthread_attr_init(&attributes) == 0);
  CHECK(pthread_attr_setsigmask_np(&attributes, &mask) == 0);
  CHECK(pthread_attr_getsigmask_np(&attributes, &mask) == 0 && sigismember(&mask, SIGUSR1) == 1);
  pthread_t thread;
  void* result = &thread;
  CHECK(pthread_create(&thread, &attributes, blocks_segv, nullptr) == 0);
  CHECK(pthread_join(thread, &result) == 0);
  CHECK(result == nullptr);
  CHECK(pthread_attr_setsigmask_np(&attributes, nullptr) == 0);
  CHECK(pthread_attr_getsigmask_np(&attributes, &mask) == PTHREAD_ATTR_NO_SIGMASK_NP);
  pthread_attr_destroy(&attributes);
}

namespace {
ucontext_t main_context;
ucontext_t other_context;
int turns;
[[gnu::noinline]] void use_stack() {
  volatile char other[4096];
  for (volatile char& c : other) c = 1;
}
void other() {
  for (;;) {
    ++turns;
    swapcontext(&other_context, &main_context);
  }
}
}  // namespace

GROUP(contexts) {
  static char stack[65536];
  turns = 0;
  CHECK(getcontext(&other_context) == 0);
  other_context.uc_stack.ss_sp = stack;
  other_context.uc_stack.ss_size = sizeof stack;
  makecontext(&other_context, other, 0);
  sigaddset(&other_context.uc_sigmask, SIGUSR1);
  for (int i = 1; i <= 1000; ++i) {
    CHECK(swapcontext(&main_context, &other_context) == 0);
    CHECK(turns == i);
  }
  CHECK(!blocks(SIGUSR1));
  // The place after a swap is come to once more when the stack below it was used for other things.
  volatile int came = 0;
  CHECK(swapcontext(&main_context, &other_context) == 0);
  came = came + 1;
  use_stack();
  if (came < 3) setcontext(&main_context);
  CHECK(came == 3);
  // A full mask, set by hand.
  ucontext_t here;
  volatile int times = 0;
  CHECK(getcontext(&here) == 0);
  times = times + 1;
  if (times == 1) {
    sigfillset(&here.uc_sigmask);
    setcontext(&here);
  }
  CHECK(times == 2);
  CHECK(blocks(SIGUSR1));
  CHECK(blocks(SIGSEGV));
  sigset_t none;
  sigemptyset(&none);
  CHECK(pthread_sigmask(SIG_SETMASK, &none, nullptr) == 0);
  CHECK(!blocks(SIGSEGV));
}
