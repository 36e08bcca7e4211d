#include "preload/fork_guard.h"

#include <pthread.h>

#include "preload/process.h"
#include "preload/tiering.h"
#include "runtime/bootstrap_heap.h"
#include "runtime/heap/jemalloc_heap.h"

namespace heaptier::preload {
namespace {

// From the outermost lock to the innermost: whoever holds one of these takes only later ones.
void before_fork() {
  tiering::fork_prepare();
  jemalloc_fork_prepare();
  process().space.lock_for_fork();
  bootstrap::lock_for_fork();
}

void after_fork_in_parent() {
  bootstrap::unlock_after_fork();
  process().space.unlock_after_fork();
  jemalloc_fork_parent();
  tiering::fork_parent();
}

void after_fork_in_child() {
  bootstrap::unlock_after_fork();
  process().space.unlock_after_fork();
  jemalloc_fork_child();
  tiering::fork_child();
}

}  // namespace

void guard_forks() {
  pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

}  // namespace heaptier::preload
