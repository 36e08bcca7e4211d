#include "uffd/inline_faults.h"

#include <ucontext.h>

#include <atomic>
#include <bit>
#include <cerrno>

#include "runtime/base/units.h"
#include "uffd/kept_disposition.h"
#include "uffd/patience.h"
#include "uffd/thread_door.h"

namespace heaptier {
namespace {

constexpr unsigned kMaxRanges = 64;
constexpr unsigned kMaxWorkers = 64;

// --- State of the process ----------------------------------------------------------------------

struct Range {
  std::atomic<std::uintptr_t> start{0};
  std::atomic<std::uintptr_t> end{0};  // 0: not in use
  std::atomic<bool> taken{false};
};

struct State {
  std::atomic<bool> running{false};
  FaultSink* sink = nullptr;
  InlineConfig config;
  std::atomic<std::uint64_t> free_workers{0};  // a bit each
  Range ranges[kMaxRanges];
  KeptDisposition application;
  std::atomic<std::uint64_t> faults{0};
  std::atomic<std::uint64_t> busy{0};
  std::atomic<std::uint64_t> worker_waits{0};
  std::atomic<std::uint64_t> chained{0};
};
constinit State g_inline;

int real_sigaction(int sig, const struct sigaction* action, struct sigaction* old) {
  const auto call = g_inline.config.real_sigaction;
  return call != nullptr ? call(sig, action, old) : ::sigaction(sig, action, old);
}

bool is_inline(std::uintptr_t addr) {
  for (const Range& r : g_inline.ranges) {
    const std::uintptr_t end = r.end.load(std::memory_order_acquire);
    if (addr < end && addr >= r.start.load(std::memory_order_relaxed)) return true;
  }
  return false;
}

unsigned take_worker() {
  Patience patience;
  bool waited = false;
  for (;;) {
    std::uint64_t free = g_inline.free_workers.load(std::memory_order_relaxed);
    while (free != 0) {
      const auto worker = static_cast<unsigned>(std::countr_zero(free));
      if (g_inline.free_workers.compare_exchange_weak(free, free & (free - 1),
                                                      std::memory_order_acquire)) {
        return worker;
      }
    }
    if (!waited) g_inline.worker_waits.fetch_add(1, std::memory_order_relaxed);
    waited = true;
    patience.pause();
  }
}

void give_back_worker(unsigned worker) {
  g_inline.free_workers.fetch_or(std::uint64_t{1} << worker, std::memory_order_release);
}

// --- What the processor says -------------------------------------------------------------------

struct Access {
  bool write = true;
  bool present = false;  // a page is mapped there, but not for this access
};

// A page whose write-protected entry was swapped out counts as absent here; whoever resolves the
// fault knows better.
Access access_of([[maybe_unused]] const ucontext_t& context) {
  Access access;
#if defined(__x86_64__)
  const auto error = static_cast<std::uint64_t>(context.uc_mcontext.gregs[REG_ERR]);
  access.present = (error & 1) != 0;
  access.write = (error & 2) != 0;
#elif defined(__aarch64__)
  // Records {magic, size, payload}, ended by a magic of 0; that of the exception syndrome holds one
  // word.
  constexpr std::uint32_t kEsrMagic = 0x45535201;
  const unsigned char* at = context.uc_mcontext.__reserved;
  const unsigned char* const end = at + sizeof context.uc_mcontext.__reserved;
  while (at + 16 <= end) {
    std::uint32_t magic = 0;
    std::uint32_t size = 0;
    __builtin_memcpy(&magic, at, sizeof magic);
    __builtin_memcpy(&size, at + 4, sizeof size);
    if (magic == 0 || size < 8) break;
    if (magic == kEsrMagic) {
      std::uint64_t syndrome = 0;
      __builtin_memcpy(&syndrome, at + 8, sizeof syndrome);
      access.write = (syndrome & (1u << 6)) != 0;
      access.present = (syndrome & 0x3c) == 0x0c;  // permission fault
      break;
    }
    at += size;
  }
#endif
  return access;
}

// --- The handler -------------------------------------------------------------------------------

// False: the content is lost, or nobody has taken it away.
bool resolve(std::uintptr_t addr, const ucontext_t& context) {
  const Access access = access_of(context);
  FaultEvent event;
  event.address = round_down(addr, kPageSize);
  event.write = access.write;
  event.denied = g_inline.config.signal == SIGSEGV;
  event.wp = access.write && access.present && !event.denied;
  event.tid = door::thread_id();
  event.cpu = door::current_cpu();
  const unsigned worker = take_worker();
  Patience patience;
  FaultVerdict verdict;
  for (;; patience.pause()) {
    verdict = g_inline.sink->on_fault(event, g_inline.config.first_worker + worker).verdict;
    if (verdict != FaultVerdict::kBusy) break;
    g_inline.busy.fetch_add(1, std::memory_order_relaxed);
  }
  give_back_worker(worker);
  if (verdict == FaultVerdict::kLost) return false;
  g_inline.faults.fetch_add(1, std::memory_order_relaxed);
  return true;
}

// As if there had never been a handler: the default disposition, for good. A fault happens again as
// soon as we return, with all that a core dump wants to know; a signal that was sent has to be sent
// again.
void die_of(int sig, bool by_fault) {
  struct sigaction fallback {};
  fallback.sa_handler = SIG_DFL;
  real_sigaction(sig, &fallback, nullptr);
  if (!by_fault) raise(sig);  // blocked here, delivered on return
}

// SA_RESETHAND is the sign bit of an int: compared as what it is, a bit.
bool has(const struct sigaction& action, unsigned flag) {
  return (static_cast<unsigned>(action.sa_flags) & flag) != 0;
}

// Delivers the signal as the kernel would have done to the application's disposition.
void chain(int sig, siginfo_t* info, void* context) {
  g_inline.chained.fetch_add(1, std::memory_order_relaxed);
  struct sigaction action;
  g_inline.application.read(&action);
  // Of the kernel's own making, and at this instruction (BUS_MCEERR_AO, memory lost elsewhere, is
  // not).
  const bool elsewhere = sig == SIGBUS && info->si_code == BUS_MCEERR_AO;
  const bool by_fault = info->si_code > 0 && !elsewhere;
  const bool handled =
      has(action, SA_SIGINFO) || (action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN);
  if (!handled) {
    // A fault cannot be ignored: the kernel kills then, too.
    if (action.sa_handler == SIG_IGN && !by_fault) return;
    die_of(sig, by_fault);
    return;
  }
  if (has(action, SA_RESETHAND)) {
    struct sigaction reset {};
    reset.sa_handler = SIG_DFL;
    g_inline.application.write(reset);
  }
  // The mask that the application asked for, on top of what was blocked when the signal came.
  sigset_t mask = static_cast<ucontext_t*>(context)->uc_sigmask;
  sigorset(&mask, &mask, &action.sa_mask);
  if (!has(action, SA_NODEFER)) sigaddset(&mask, sig);
  door::restore_signals(mask);
  if (has(action, SA_SIGINFO)) {
    action.sa_sigaction(sig, info, context);
  } else {
    action.sa_handler(sig);
  }
}

void on_signal(int sig, siginfo_t* info, void* context) {
  ErrnoKeeper keeper;
  const auto addr = reinterpret_cast<std::uintptr_t>(info->si_addr);
  const int code = sig == SIGBUS ? int{BUS_ADRERR} : int{SEGV_ACCERR};
  const bool ours = info->si_code == code && is_inline(addr);
  if (ours && resolve(addr, *static_cast<ucontext_t*>(context))) return;
  chain(sig, info, context);
}

}  // namespace

Errno start_inline_faults(FaultSink& sink, const InlineConfig& config) {
  if (config.workers == 0 || config.workers > kMaxWorkers) return {EINVAL};
  if (config.signal != SIGBUS && config.signal != SIGSEGV) return {EINVAL};
  if (g_inline.running.load(std::memory_order_acquire)) return {EBUSY};
  ErrnoKeeper keeper;
  g_inline.sink = &sink;
  g_inline.config = config;
  g_inline.free_workers.store(~std::uint64_t{0} >> (kMaxWorkers - config.workers),
                              std::memory_order_relaxed);
  struct sigaction theirs {};
  if (real_sigaction(config.signal, nullptr, &theirs) != 0) return {errno};
  g_inline.application.write(theirs);
  struct sigaction ours {};
  ours.sa_sigaction = on_signal;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
  sigfillset(&ours.sa_mask);
  if (real_sigaction(config.signal, &ours, nullptr) != 0) return {errno};
  g_inline.running.store(true, std::memory_order_release);
  return kOk;
}

void stop_inline_faults() {
  if (!g_inline.running.exchange(false, std::memory_order_acq_rel)) return;
  ErrnoKeeper keeper;
  struct sigaction theirs;
  g_inline.application.read(&theirs);
  real_sigaction(g_inline.config.signal, &theirs, nullptr);
  for (Range& r : g_inline.ranges) {
    r.end.store(0, std::memory_order_release);
    r.taken.store(false, std::memory_order_release);
  }
}

bool inline_faults_running() {
  return g_inline.running.load(std::memory_order_acquire);
}

void inline_faults_in_child() {
  g_inline.application.abandon_write();
  if (!inline_faults_running()) return;
  g_inline.free_workers.store(~std::uint64_t{0} >> (kMaxWorkers - g_inline.config.workers),
                              std::memory_order_relaxed);
}

Errno add_inline_range(std::uintptr_t at, std::size_t bytes) {
  for (Range& r : g_inline.ranges) {
    if (r.taken.exchange(true, std::memory_order_acq_rel)) continue;
    r.start.store(at, std::memory_order_relaxed);
    r.end.store(at + bytes, std::memory_order_release);
    return kOk;
  }
  return {ENOSPC};
}

Errno remove_inline_range(std::uintptr_t at) {
  for (Range& r : g_inline.ranges) {
    if (r.end.load(std::memory_order_acquire) == 0) continue;
    if (r.start.load(std::memory_order_relaxed) != at) continue;
    r.end.store(0, std::memory_order_release);
    r.taken.store(false, std::memory_order_release);
    return kOk;
  }
  return {ENOENT};
}

bool intercept_sigaction(int sig, const struct sigaction* action, struct sigaction* old,
                         int* result) {
  if (!inline_faults_running() || sig != g_inline.config.signal) return false;
  // `old` may be the same object as `action`.
  struct sigaction before;
  g_inline.application.read(&before);
  if (action != nullptr) g_inline.application.write(*action);
  if (old != nullptr) *old = before;
  *result = 0;
  return true;
}

InlineStats inline_stats() {
  InlineStats s;
  s.faults = g_inline.faults.load(std::memory_order_relaxed);
  s.busy_retries = g_inline.busy.load(std::memory_order_relaxed);
  s.worker_waits = g_inline.worker_waits.load(std::memory_order_relaxed);
  s.chained = g_inline.chained.load(std::memory_order_relaxed);
  return s;
}

}  // namespace heaptier
