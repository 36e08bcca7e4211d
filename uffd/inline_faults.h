// Inline mode: the faulting thread resolves its own fault in a signal handler. The fastest way
// there is (3 us, scales with threads), but a system call on such memory fails with EFAULT: only
// for heaps that the application declares user-only, or when asked for by name. The signal is
// SIGBUS where pages are away (with a port opened in kInline mode), SIGSEGV where access to them
// was taken away (events with `denied` set).
//
// A signal's disposition belongs to the process, so there is one of these. The application's own
// handler is kept here and called for every such signal that is not ours, as the kernel would have
// called it.
#pragma once

#include <signal.h>

#include <cstddef>
#include <cstdint>

#include "runtime/base/errno.h"
#include "uffd/fault_sink.h"

namespace heaptier {

struct InlineConfig {
  unsigned first_worker =
      0;  // on_fault() gets worker numbers first_worker .. first_worker + workers - 1
  unsigned workers = 8;  // faults served at the same time, at most 64; more wait
  int signal = SIGBUS;   // or SIGSEGV
  // libc's own sigaction; null: the one that the linker finds (a preloaded wrapper would ask us).
  int (*real_sigaction)(int, const struct sigaction*, struct sigaction*) = nullptr;
};

// Installs the handler. EBUSY: already there, for whichever signal. `sink` outlives it. One thread
// at a time, as stop_inline_faults.
Errno start_inline_faults(FaultSink& sink, const InlineConfig& config);
// Gives the signal back to the application's handler. Requires: no inline range is left registered.
void stop_inline_faults();
bool inline_faults_running();
// In a fork's child: forgets what the threads that are not there were doing.
void inline_faults_in_child();

// Faults in these ranges are ours. Before the range is registered with the kernel, and until after
// it is not any more. ENOSPC: more than 64 ranges. Any thread.
Errno add_inline_range(std::uintptr_t at, std::size_t bytes);
// ENOENT: not added with this start.
Errno remove_inline_range(std::uintptr_t at);

// For the preload's sigaction() and signal(). True: dealt with here, *result is what the wrapper
// returns. False: not our signal, call libc's. `action` and `old` may be null. Any thread, also in
// signal handlers.
bool intercept_sigaction(int sig, const struct sigaction* action, struct sigaction* old,
                         int* result);

struct InlineStats {
  std::uint64_t faults = 0;  // resolved
  std::uint64_t busy_retries = 0;
  std::uint64_t worker_waits = 0;  // faults that found every worker taken
  std::uint64_t chained = 0;       // signals passed on to the application's disposition
};
InlineStats inline_stats();

}  // namespace heaptier
