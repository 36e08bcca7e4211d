// Signals as the program sets them. One of them may be heaptier's (uffd/inline_faults.h): the
// program sees and sets its own disposition of it. Where access is taken from pages everywhere
// (HEAPTIER_SAMPLER=protnone) it cannot block that signal either: the next touch would be its end.
// It is told that it does, and a SIGSEGV that is sent to it comes all the same. The older ways to
// say the same are in old_signals_abi.cc.
#include "preload/signal_abi.h"

#include <pthread.h>
#include <signal.h>
#include <ucontext.h>

#include <atomic>
#include <cstdint>

#include "preload/next_function.h"
#include "preload/process.h"
#include "uffd/inline_faults.h"

extern "C" {
// The linker's: where this library begins in memory, and where its code ends.
[[gnu::visibility("hidden")]] extern const char __ehdr_start;
[[gnu::visibility("hidden")]] extern const char etext;
}

namespace heaptier::preload {
namespace {

using ActOnSignal = int(int, const struct sigaction*, struct sigaction*);
using ChangeMask = int(int, const sigset_t*, sigset_t*);

constinit NextFunction<ActOnSignal> act_on_signal{"sigaction"};
constinit NextFunction<ChangeMask> change_thread_mask{"pthread_sigmask"};
constinit NextFunction<ChangeMask> change_mask{"sigprocmask"};
constinit NextFunction<int(pthread_attr_t*, const sigset_t*)> set_mask_of_new{
    "pthread_attr_setsigmask_np"};
constinit NextFunction<int(const ucontext_t*)> go_to_context{"setcontext"};
constinit NextFunction<int(ucontext_t*, const ucontext_t*)> change_context{"swapcontext"};

// What the thread believes to block.
constinit thread_local bool blocks_ours = false;
// Signals, a bit each, whose handlers believe to run with it blocked.
constinit std::atomic<std::uint64_t> masks_ours{0};

// Our own handler is installed by this library itself, past the application's.
bool is_own_code(const void* caller) {
  const auto start = reinterpret_cast<std::uintptr_t>(&__ehdr_start);
  return reinterpret_cast<std::uintptr_t>(caller) - start <
         reinterpret_cast<std::uintptr_t>(&etext) - start;
}

// After libc's own has refused what is to be refused.
void note_mask(int how, const sigset_t& asked) {
  const bool named = sigismember(&asked, SIGSEGV) == 1;
  if (how == SIG_SETMASK) {
    blocks_ours = named;
  } else if (named) {
    blocks_ours = how == SIG_BLOCK;
  }
}

int change(NextFunction<ChangeMask>& next, int how, const sigset_t* set, sigset_t* old) {
  if (!stays_open()) return next.call(how, set, old);
  const bool did_block = blocks_ours;
  int result = 0;
  if (set == nullptr) {
    result = next.call(how, nullptr, old);
  } else {
    const sigset_t asked = *set;
    sigset_t open = asked;
    if (how != SIG_UNBLOCK) sigdelset(&open, SIGSEGV);
    result = next.call(how, &open, old);
    if (result == 0) note_mask(how, asked);
  }
  if (result == 0 && old != nullptr && did_block) sigaddset(old, SIGSEGV);
  return result;
}

int act(int sig, const struct sigaction* action, struct sigaction* old) {
  const std::uint64_t bit = bit_of(sig);
  if (!stays_open() || bit == 0) return act_on_signal.call(sig, action, old);
  const bool did_mask = (masks_ours.load(std::memory_order_relaxed) & bit) != 0;
  int result = 0;
  if (action == nullptr) {
    result = act_on_signal.call(sig, nullptr, old);
  } else {
    struct sigaction open = *action;
    const bool masks = sigismember(&open.sa_mask, SIGSEGV) == 1;
    sigdelset(&open.sa_mask, SIGSEGV);
    result = act_on_signal.call(sig, &open, old);
    if (result == 0 && masks) masks_ours.fetch_or(bit, std::memory_order_relaxed);
    if (result == 0 && !masks) masks_ours.fetch_and(~bit, std::memory_order_relaxed);
  }
  if (result == 0 && old != nullptr && did_mask) sigaddset(&old->sa_mask, SIGSEGV);
  return result;
}

// Going there sets the mask that was kept, which is not always what libc's own calls have left: it
// may be full by hand. The object is one that getcontext() has written to.
void open_context(const ucontext_t* context) {
  if (!stays_open() || context == nullptr) return;
  blocks_ours = sigismember(&context->uc_sigmask, SIGSEGV) == 1;
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-const-cast)
  if (blocks_ours) sigdelset(&const_cast<ucontext_t*>(context)->uc_sigmask, SIGSEGV);
}

}  // namespace

std::uint64_t bit_of(int sig) {
  return sig < 1 || sig > 64 ? 0 : std::uint64_t{1} << (sig - 1);
}

bool stays_open() {
  const Mode m = mode();
  return m != Mode::kUnknown && m != Mode::kNext &&
         process().options.sampler == SamplerKind::kProtnone;
}

int set_disposition(int sig, const struct sigaction* action, struct sigaction* old) {
  int result = 0;
  if (intercept_sigaction(sig, action, old, &result)) return result;
  return act(sig, action, old);
}

int change_blocked(int how, const sigset_t* set, sigset_t* old) {
  return change(change_mask, how, set, old);
}

void open_signals() {
  act_on_signal.look_up();
  change_thread_mask.look_up();
  change_mask.look_up();
  go_to_context.look_up();
  change_context.look_up();
  open_old_signals();
  if (!stays_open()) return;
  // Blocked by whoever started the program.
  sigset_t ours;
  sigset_t before;
  sigemptyset(&ours);
  sigaddset(&ours, SIGSEGV);
  if (change_thread_mask.call(SIG_UNBLOCK, &ours, &before) == 0) {
    blocks_ours = sigismember(&before, SIGSEGV) == 1;
  }
}

}  // namespace heaptier::preload

#define HEAPTIER_EXPORT extern "C" __attribute__((visibility("default")))

// NOLINTBEGIN(misc-use-internal-linkage)
using namespace heaptier::preload;

HEAPTIER_EXPORT int sigaction(int sig, const struct sigaction* action,
                              struct sigaction* old) noexcept {
  if (is_own_code(__builtin_return_address(0))) return act_on_signal.call(sig, action, old);
  return set_disposition(sig, action, old);
}

HEAPTIER_EXPORT int pthread_sigmask(int how, const sigset_t* set, sigset_t* old) noexcept {
  return change(change_thread_mask, how, set, old);
}

HEAPTIER_EXPORT int sigprocmask(int how, const sigset_t* set, sigset_t* old) noexcept {
  return change_blocked(how, set, old);
}

// A new thread does not believe to block it then: what was asked for is not kept.
HEAPTIER_EXPORT int pthread_attr_setsigmask_np(pthread_attr_t* attributes, const sigset_t* set) {
  if (!stays_open() || set == nullptr) return set_mask_of_new.call(attributes, set);
  sigset_t open = *set;
  sigdelset(&open, SIGSEGV);
  return set_mask_of_new.call(attributes, &open);
}

HEAPTIER_EXPORT int setcontext(const ucontext_t* context) noexcept {
  open_context(context);
  return go_to_context.call(context);
}

// What is kept in `from` is the place after libc's call. A frame of ours between it and the caller
// would be gone when somebody comes to it for the second time (setcontext, after the caller went
// on): the call has to be the last thing here, and to be compiled to a jump.
#ifdef __clang__
#define HEAPTIER_ENDS_IN_JUMP
#define HEAPTIER_JUMP [[clang::musttail]]
#else
#define HEAPTIER_ENDS_IN_JUMP __attribute__((optimize("O2")))
#define HEAPTIER_JUMP
#endif
HEAPTIER_EXPORT HEAPTIER_ENDS_IN_JUMP int swapcontext(ucontext_t* from,
                                                      const ucontext_t* context) noexcept {
  open_context(context);
  const auto next = change_context.look_up();
  HEAPTIER_JUMP return next(from, context);
}
// NOLINTEND(misc-use-internal-linkage)
