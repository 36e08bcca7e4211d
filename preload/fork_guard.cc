#include "preload/fork_guard.h"

#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <sys/types.h>

#include "preload/call_gate.h"
#include "preload/next_function.h"
#include "preload/process.h"
#include "preload/thread_watch.h"
#include "runtime/base/errno.h"
#include "runtime/engine.h"
#include "runtime/heap/jemalloc_heap.h"
#include "runtime/os/thread.h"
#include "uffd/inline_faults.h"
#include "uffd/thread_cpu.h"

namespace heaptier::preload {

namespace {

constexpr std::size_t kForkStack =
    12 * kPageSize / 4;  // 12 KiB: what a fork needs below this frame

// A thread that runs on a stack from the heap (coroutines) must not fault between freeze and thaw,
// when nobody serves faults: the part that it is about to use is put in place.
[[gnu::noinline]] void settle_stack() {
  volatile char room[kForkStack];
  for (std::size_t i = 0; i < sizeof(room); i += kPageSize / 4) room[i] = 0;
}

thread_local std::uintptr_t pinned_stack = 0;
// From fork_stop to its end: the lock that it holds is this one's, too.
constinit sigset_t signals_before{};

void hold_own_stack() {
  const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  if (!process().space.contains(reinterpret_cast<void*>(here - kForkStack))) return;  // NOLINT
  pinned_stack = round_down(here, kPageSize);
  engine().pin(pinned_stack - 4 * kPageSize, 8 * kPageSize);
  settle_stack();
}

// Starting a thread, which a child does before its pages are served, has the dynamic linker look at
// the link_map of every library with thread-local storage. Those of libraries opened later lie in
// the heap: were one away, the kernel would put zeros in its place. They stay at home.
int surrender_link_maps(dl_phdr_info*, std::size_t, void*) {
  constexpr std::size_t kMapBytes = 2048;  // more than glibc's private struct link_map
  for (const link_map* map = _r_debug.r_map; map != nullptr; map = map->l_next) {
    if (!process().space.contains(map)) continue;
    engine().surrender(round_down(reinterpret_cast<std::uintptr_t>(map), kPageSize),
                       kMapBytes + kPageSize);
  }
  return 1;  // once is enough: the call is for its lock
}

void let_own_stack_go() {
  if (pinned_stack == 0) return;
  engine().unpin(pinned_stack - 4 * kPageSize, 8 * kPageSize);
  pinned_stack = 0;
}

}  // namespace

void before_fork() {
  dl_iterate_phdr(surrender_link_maps, nullptr);
  hold_own_stack();
  // Until faults are served again no handler of the application's may touch what is away.
  sigset_t before;
  os::block_signals(&before);
  engine().fork_stop();
  signals_before = before;
  jemalloc_fork_prepare();
  engine().fork_freeze();
}

void after_fork_in_parent() {
  engine().fork_thaw();
  jemalloc_fork_parent();
  const sigset_t before = signals_before;
  engine().fork_go_on();
  os::restore_signals(before);
  let_own_stack_go();
}

void after_fork_in_child(MadeBy by) {
  inline_faults_in_child();
  jemalloc_fork_child();
  note_fork_in_child();
  count_threads_in_child();
  HeapAside no_heap_yet;
  engine().fork_child(by == MadeBy::kLibcsFork);
  os::restore_signals(signals_before);
  let_own_stack_go();
}

void guard_forks() {
  pthread_atfork(before_fork, after_fork_in_parent,
                 [] { after_fork_in_child(MadeBy::kLibcsFork); });
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
    preload::after_fork_in_child(preload::MadeBy::kSomebodyElse);
  } else {
    preload::after_fork_in_parent();
  }
  return child;
}
