// The few system calls about threads that the fault room needs, and nothing else: thread_door.cc
// is, beside api.cc, the only file here that talks to the kernel. All are usable from signal
// handlers and fault handlers.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "runtime/base/errno.h"
#include "runtime/base/units.h"
#include "uffd/class_governor.h"

namespace heaptier {

// Up to 1024 CPUs, as the kernel's masks.
struct CpuSet {
  static constexpr int kMost = 1024;
  std::uint64_t words[kMost / 64] = {};
  friend bool operator==(const CpuSet&, const CpuSet&) = default;
  bool empty() const {
    for (std::uint64_t w : words) {
      if (w != 0) return false;
    }
    return true;
  }
  bool has(int cpu) const {
    if (cpu < 0 || cpu >= kMost) return false;
    const auto n = static_cast<unsigned>(cpu);
    return ((words[n / 64] >> (n % 64)) & 1) != 0;
  }
  void add(int cpu) {
    if (cpu < 0 || cpu >= kMost) return;
    const auto n = static_cast<unsigned>(cpu);
    words[n / 64] |= std::uint64_t{1} << (n % 64);
  }
  CpuSet without(const CpuSet& others) const {
    CpuSet rest;
    for (unsigned i = 0; i < kMost / 64; ++i) rest.words[i] = words[i] & ~others.words[i];
    return rest;
  }
};

namespace door {

std::uint32_t thread_id();
// Monotonic clock.
Nanos now();
// Lets another thread run on this CPU.
void yield();
// Lets also those of the idle class.
void sleep(Nanos at_least);
// Where the calling thread runs.
int current_cpu();

// CPUs that the calling thread may use.
Errno get_affinity(CpuSet* out);
// Moves the calling thread.
Errno set_affinity(const CpuSet& cpus);
// tid 0: the calling thread. To kNormal needs RLIMIT_NICE or CAP_SYS_NICE once in kIdle (EPERM).
Errno set_class(std::uint32_t tid, HandlerClass c);

// Sleeps while word == seen, `at_most` (negative: for ever); may return early.
void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t seen, Nanos at_most = {-1});
void futex_wake_all(std::atomic<std::uint32_t>& word);

// What a wait for a userfaultfd ended with.
struct PollOutcome {
  bool ready = false;  // messages are there
  bool stop = false;   // the second descriptor is readable
  bool lost = false;   // the first descriptor is closed or not a userfaultfd any more
};
// Waits for either; `second` may be -1. timeout_ms as poll(2).
PollOutcome poll_two(int first, int second, int timeout_ms);

// A descriptor that becomes readable, for good, when raised. Close-on-exec, a high number.
Errno make_event(int* out);
void raise_event(int fd);
void close_fd(int fd);

// Blocks every signal in the calling thread; *before gets the old mask.
void block_signals(sigset_t* before);
void restore_signals(const sigset_t& before);

// CPU time of a live thread of this process.
Nanos cpu_time(pthread_t thread);

}  // namespace door
}  // namespace heaptier
