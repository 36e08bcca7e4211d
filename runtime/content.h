// Freed and purged memory: what was stored of it is dropped unread, what is resident goes back to
// the kernel.
#pragma once

#include <atomic>
#include <cstdint>

#include "runtime/core.h"

namespace heaptier {

// Lets fork wait until no thread is in the middle of changing pages on the application's behalf.
class OperationGate {
 public:
  void enter();
  void leave() { inside_.fetch_sub(1, std::memory_order_release); }
  // Closes the gate and waits until nobody is inside. The caller is not inside.
  void close();
  void open() { closed_.store(false, std::memory_order_release); }
  // In a forked child: whoever was inside does not exist here.
  void reset() {
    inside_.store(0, std::memory_order_relaxed);
    open();
  }

 private:
  std::atomic<std::uint32_t> inside_{0};
  std::atomic<bool> closed_{false};
};

// The range (whole pages of the Space) reads as zero afterwards. Safe in malloc's deepest places:
// waits only for page locks. False: a part could not be released (locked memory) and keeps its
// content. Any thread.
bool drop_content(Core& core, std::uintptr_t at, std::size_t bytes);

// What was stored of the range is dropped; the mapping itself is left alone (the application has
// replaced it or is about to).
void forget_content(Core& core, std::uintptr_t at, std::size_t bytes);

}  // namespace heaptier
