// A lock for sections of a few hundred nanoseconds that never touch managed memory. Spins briefly,
// then yields: the holder may be an idle-class handler on the same CPU.
#pragma once

#include <atomic>

namespace heaptier {

// Lets another thread run on this CPU. Implemented behind the kernel door (runtime/os/thread.cc).
void yield_cpu();

inline void cpu_relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  asm volatile("" ::: "memory");
#endif
}

// Bounded politeness for retry loops: 32 pauses, then a yield each round.
class Backoff {
 public:
  void pause() {
    if (++rounds_ % 32 != 0) {
      cpu_relax();
    } else {
      yield_cpu();
    }
  }
  unsigned rounds() const { return rounds_; }

 private:
  unsigned rounds_ = 0;
};

class SpinLock {
 public:
  constexpr SpinLock() = default;
  void lock() {
    Backoff backoff;
    while (held_.exchange(true, std::memory_order_acquire)) {
      while (held_.load(std::memory_order_relaxed)) backoff.pause();
    }
  }
  bool try_lock() { return !held_.exchange(true, std::memory_order_acquire); }
  void unlock() { held_.store(false, std::memory_order_release); }
  // In a fork's child: whoever held it is not there.
  void free_in_child() {
    if (held_.load(std::memory_order_relaxed)) unlock();
  }

 private:
  std::atomic<bool> held_{false};
};

class SpinGuard {
 public:
  explicit SpinGuard(SpinLock& l) : lock_(l) { lock_.lock(); }
  ~SpinGuard() { lock_.unlock(); }
  SpinGuard(const SpinGuard&) = delete;
  SpinGuard& operator=(const SpinGuard&) = delete;

 private:
  SpinLock& lock_;
};

}  // namespace heaptier
