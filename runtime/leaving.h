// The process is about to end, and something of heaptier's is to be put in order before: by the
// background thread, since the thread that ends the process may be in a sandbox of its own.
//
// Thread rule: as said at each method.
#pragma once

#include <atomic>
#include <cstdint>

#include "runtime/base/units.h"
#include "runtime/os/futex.h"

namespace heaptier {

class Leaving {
 public:
  // The thread that ends the process; the background thread is to be woken then.
  void ask() { state_.store(kAsked, std::memory_order_release); }
  // Waits until it is done, for a moment: a background thread that gets no CPU is not waited for.
  void await(Nanos longest) {
    if (asked()) os::futex_wait(state_, kAsked, longest);
  }
  // Any thread.
  bool asked() const { return state_.load(std::memory_order_acquire) == kAsked; }
  // The background thread.
  void done() {
    state_.store(kLeft, std::memory_order_release);
    os::futex_wake_all(state_);
  }
  // In a forked child.
  void forget() { state_.store(kStays, std::memory_order_relaxed); }

 private:
  enum State : std::uint32_t { kStays, kAsked, kLeft };
  std::atomic<std::uint32_t> state_{kStays};
};

}  // namespace heaptier
