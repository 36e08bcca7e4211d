#include "preload/fork_guard.h"

#include <pthread.h>
#include <sys/types.h>

#include "preload/call_gate.h"
#include "preload/next_function.h"
#include "preload/process.h"
#include "runtime/base/errno.h"
#include "runtime/engine.h"
#include "runtime/heap/jemalloc_heap.h"
#include "uffd/thread_cpu.h"

namespace heaptier::preload {

void before_fork() {
  engine().fork_stop();
  jemalloc_fork_prepare();
  engine().fork_freeze();
}

void after_fork_in_parent() {
  engine().fork_thaw();
  jemalloc_fork_parent();
  engine().fork_go_on();
}

void after_fork_in_child() {
  jemalloc_fork_child();
  note_fork_in_child();
  HeapAside no_heap_yet;
  engine().fork_child();
}

void guard_forks() {
  pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

}  // namespace heaptier::preload

// libc's fork() does not come through here; programs that call _Fork() want no handlers, but ours
// the child cannot do without.
extern "C" __attribute__((visibility("default"))) pid_t _Fork() noexcept {
  using namespace heaptier;
  static constinit preload::NextFunction<pid_t()> next{"_Fork"};
  const bool ours = preload::boot() && preload::mode() != preload::Mode::kNext;
  if (ours) preload::before_fork();
  const pid_t child = next.call();
  if (!ours) return child;
  ErrnoKeeper keep;
  if (child == 0) {
    preload::after_fork_in_child();
  } else {
    preload::after_fork_in_parent();
  }
  return child;
}
