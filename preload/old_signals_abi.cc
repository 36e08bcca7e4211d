// Signals as programs of before POSIX set them: signal() in its two dialects, BSD's and System V's,
// and what goes with each. libc's own would change the disposition and the mask past signal_abi.cc.
// To a program compiled as plain C (-std=c11, -ansi) signal() is __sysv_signal().
#include <signal.h>

#include <atomic>
#include <cerrno>
#include <cstdint>

#include "preload/next_function.h"
#include "preload/signal_abi.h"
#include "uffd/inline_faults.h"

namespace heaptier::preload {
namespace {

constinit NextFunction<sighandler_t(int, sighandler_t)> set_signal{"signal"};
constinit NextFunction<int(int, int)> let_interrupt{"siginterrupt"};

// Signals, a bit each, that siginterrupt() wants to interrupt calls: libc's signal() heeds a set of
// its own that nobody can ask.
constinit std::atomic<std::uint64_t> interrupting{0};

// The handler before, or SIG_ERR.
sighandler_t set_handler(int sig, sighandler_t handler, int flags, const sigset_t& mask) {
  struct sigaction action = {};
  struct sigaction old = {};
  action.sa_handler = handler;
  action.sa_flags = flags;
  action.sa_mask = mask;
  return set_disposition(sig, &action, &old) == 0 ? old.sa_handler : SIG_ERR;
}

sigset_t nothing() {
  sigset_t mask;
  sigemptyset(&mask);
  return mask;
}

// -1, errno set: there is no such signal, or it is libc's own.
int only(int sig, sigset_t* mask) {
  sigemptyset(mask);
  return sigaddset(mask, sig);
}

// BSD: restarted calls, the handler stays, its signal blocked meanwhile.
sighandler_t set_bsd(int sig, sighandler_t handler) {
  struct sigaction now = {};
  int result = 0;
  const bool ours = stays_open() || intercept_sigaction(sig, nullptr, &now, &result);
  sigset_t mask;
  // What is to be refused libc refuses.
  if (!ours || handler == SIG_ERR || only(sig, &mask) != 0) return set_signal.call(sig, handler);
  const bool interrupts = (interrupting.load(std::memory_order_relaxed) & bit_of(sig)) != 0;
  return set_handler(sig, handler, interrupts ? 0 : SA_RESTART, mask);
}

// System V: once, nothing blocked, calls not restarted.
sighandler_t set_sysv(int sig, sighandler_t handler) {
  if (handler == SIG_ERR) {
    errno = EINVAL;
    return SIG_ERR;
  }
  const unsigned flags = unsigned{SA_RESETHAND} | SA_NODEFER | SA_INTERRUPT;
  return set_handler(sig, handler, static_cast<int>(flags), nothing());
}

// BSD's masks are an int: the first 32 signals.
sigset_t from_bits(int bits) {
  sigset_t mask = nothing();
  for (int sig = 1; sig <= 31; ++sig) {
    if ((static_cast<unsigned>(bits) >> (sig - 1) & 1) != 0) sigaddset(&mask, sig);
  }
  return mask;
}

int to_bits(const sigset_t& mask) {
  unsigned bits = 0;
  for (int sig = 1; sig <= 31; ++sig) {
    if (sigismember(&mask, sig) == 1) bits |= 1u << (sig - 1);
  }
  return static_cast<int>(bits);
}

int change_bits(int how, int bits) {
  const sigset_t mask = from_bits(bits);
  sigset_t old;
  return change_blocked(how, &mask, &old) == 0 ? to_bits(old) : -1;
}

int change_one(int how, int sig) {
  sigset_t mask;
  return only(sig, &mask) == 0 ? change_blocked(how, &mask, nullptr) : -1;
}

}  // namespace

void open_old_signals() {
  set_signal.look_up();
  let_interrupt.look_up();
}

}  // namespace heaptier::preload

#define HEAPTIER_EXPORT extern "C" __attribute__((visibility("default")))

// NOLINTBEGIN(misc-use-internal-linkage,bugprone-reserved-identifier)
using namespace heaptier::preload;

HEAPTIER_EXPORT sighandler_t signal(int sig, sighandler_t handler) noexcept {
  return set_bsd(sig, handler);
}
HEAPTIER_EXPORT sighandler_t ssignal(int sig, sighandler_t handler) noexcept {
  return set_bsd(sig, handler);
}
// Not in libc's headers any more; programs built before are still served by it.
HEAPTIER_EXPORT sighandler_t bsd_signal(int sig, sighandler_t handler) noexcept {
  return set_bsd(sig, handler);
}

HEAPTIER_EXPORT int siginterrupt(int sig, int interrupt) noexcept {
  struct sigaction action = {};
  int result = 0;
  if (heaptier::intercept_sigaction(sig, nullptr, &action, &result)) {
    action.sa_flags = interrupt != 0 ? action.sa_flags & ~SA_RESTART : action.sa_flags | SA_RESTART;
    heaptier::intercept_sigaction(sig, &action, nullptr, &result);
  } else {
    result = let_interrupt.call(sig, interrupt);
  }
  if (result == 0 && interrupt != 0) interrupting.fetch_or(bit_of(sig), std::memory_order_relaxed);
  if (result == 0 && interrupt == 0)
    interrupting.fetch_and(~bit_of(sig), std::memory_order_relaxed);
  return result;
}

HEAPTIER_EXPORT int sigblock(int bits) noexcept {
  return change_bits(SIG_BLOCK, bits);
}
HEAPTIER_EXPORT int sigsetmask(int bits) noexcept {
  return change_bits(SIG_SETMASK, bits);
}
HEAPTIER_EXPORT int siggetmask() noexcept {
  return change_bits(SIG_BLOCK, 0);
}

HEAPTIER_EXPORT sighandler_t __sysv_signal(int sig, sighandler_t handler) noexcept {
  return set_sysv(sig, handler);
}
HEAPTIER_EXPORT sighandler_t sysv_signal(int sig, sighandler_t handler) noexcept {
  return set_sysv(sig, handler);
}

HEAPTIER_EXPORT int sighold(int sig) noexcept {
  return change_one(SIG_BLOCK, sig);
}
HEAPTIER_EXPORT int sigrelse(int sig) noexcept {
  return change_one(SIG_UNBLOCK, sig);
}
HEAPTIER_EXPORT int sigignore(int sig) noexcept {
  return set_handler(sig, SIG_IGN, 0, nothing()) == SIG_ERR ? -1 : 0;
}

// The disposition before; SIG_HOLD: the signal was blocked.
HEAPTIER_EXPORT sighandler_t sigset(int sig, sighandler_t disposition) noexcept {
  sigset_t mask;
  sigset_t old;
  if (only(sig, &mask) != 0) return SIG_ERR;
  struct sigaction before = {};
  if (disposition == SIG_HOLD) {
    if (change_blocked(SIG_BLOCK, &mask, &old) != 0) return SIG_ERR;
    if (sigismember(&old, sig) == 1) return SIG_HOLD;
    return set_disposition(sig, nullptr, &before) == 0 ? before.sa_handler : SIG_ERR;
  }
  const sighandler_t handler = set_handler(sig, disposition, 0, nothing());
  if (handler == SIG_ERR || change_blocked(SIG_UNBLOCK, &mask, &old) != 0) return SIG_ERR;
  return sigismember(&old, sig) == 1 ? SIG_HOLD : handler;
}
// NOLINTEND(misc-use-internal-linkage,bugprone-reserved-identifier)
