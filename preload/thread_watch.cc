#include "preload/thread_watch.h"

#include <pthread.h>
#include <threads.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>

#include "preload/call_gate.h"
#include "preload/next_function.h"
#include "preload/process.h"
#include "runtime/base/errno.h"
#include "runtime/bootstrap_heap.h"
#include "runtime/engine.h"
#include "runtime/os/thread.h"
#include "uffd/thread_cpu.h"

namespace heaptier::preload {
namespace {

using CreateThread = int(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);

constinit NextFunction<CreateThread> create_thread{"pthread_create"};
// Calls libc's own pthread_create, past ours.
constinit NextFunction<int(thrd_t*, thrd_start_t, void*)> create_c11_thread{"thrd_create"};
constinit NextFunction<int(pthread_mutex_t*, const pthread_mutexattr_t*)> init_mutex{
    "pthread_mutex_init"};
constinit NextFunction<int(pthread_mutex_t*)> destroy_mutex{"pthread_mutex_destroy"};

// For heaptier's own threads, which do not fault.
int create_own_thread(pthread_t* thread, const pthread_attr_t* attributes, void* (*routine)(void*),
                      void* argument) {
  HeapAsideForThread own_memory;
  return create_thread.call(thread, attributes, routine, argument);
}

// Its destructor runs in every ending of a thread, pthread_exit and cancellation too.
pthread_key_t thread_ends;
constinit std::atomic<bool> watching{false};

// Threads of the application's. glibc ends a process with its last thread, but counts the engine's
// threads, too: when only those are left it is ours to end it.
constinit std::atomic<int> application_threads{1};

// The destructors of other keys are to have run before: this one asks for as many rounds as there
// are.
constexpr std::uintptr_t kLastRound = 4;  // PTHREAD_DESTRUCTOR_ITERATIONS

void on_thread_end(void* value) {
  const auto round = reinterpret_cast<std::uintptr_t>(value);
  if (round < kLastRound) {
    // NOLINTNEXTLINE(performance-no-int-to-ptr)
    pthread_setspecific(thread_ends, reinterpret_cast<void*>(round + 1));
    return;
  }
  note_thread_exit();
  if (application_threads.fetch_sub(1, std::memory_order_acq_rel) == 1 && mode() != Mode::kNext &&
      engine().state() == EngineState::kAwake) {
    std::exit(0);
  }
}

void expect_thread_end() {
  pthread_setspecific(thread_ends, reinterpret_cast<void*>(std::uintptr_t{1}));
}

struct Start {
  void* (*routine)(void*);
  int (*c11_routine)(void*);  // or this
  void* argument;
};

// The kernel serves no userfault for a thread that is exiting: it would skip clearing the word that
// pthread_join waits on, for ever, if that lay on a stack from the heap whose page is away. Such
// stacks stay at home until the thread is gone.
void keep_own_stack_home() {
  const auto self = reinterpret_cast<std::uintptr_t>(__builtin_thread_pointer());
  const Space& space = process().space;
  if (mode() == Mode::kNext || !space.contains(reinterpret_cast<void*>(self))) return;
  pthread_attr_t attributes;
  void* stack = nullptr;
  std::size_t bytes = 0;
  if (pthread_getattr_np(pthread_self(), &attributes) != 0) return;
  if (pthread_attr_getstack(&attributes, &stack, &bytes) == 0 && space.contains(stack)) {
    engine().pin_for_thread(os::thread_id(), reinterpret_cast<std::uintptr_t>(stack), bytes);
  }
  pthread_attr_destroy(&attributes);
}

void pin_mutex(pthread_mutex_t* mutex, bool pin) {
  if (mode() == Mode::kNext || !process().space.contains(mutex)) return;
  const auto at = reinterpret_cast<std::uintptr_t>(mutex);
  if (pin) {
    engine().pin(round_down(at, kPageSize), sizeof(*mutex) + at % kPageSize);
  } else {
    engine().unpin(round_down(at, kPageSize), sizeof(*mutex) + at % kPageSize);
  }
}

Start take_start(void* given) {
  const Start start = *static_cast<Start*>(given);
  bootstrap::release(given, sizeof(Start));
  note_thread_start();
  keep_own_stack_home();
  expect_thread_end();
  return start;
}

void* start_thread(void* given) {
  const Start start = take_start(given);
  return start.routine(start.argument);
}

int start_c11_thread(void* given) {
  const Start start = take_start(given);
  return start.c11_routine(start.argument);
}

// Counts the new thread in before it is there; `create` makes it, given its Start.
template <class Create>
int create_counted(const Start& what, int no_memory, Create create) {
  auto* start = static_cast<Start*>(bootstrap::allocate(sizeof(Start)));
  if (start == nullptr) return no_memory;
  *start = what;
  application_threads.fetch_add(1, std::memory_order_relaxed);
  const int error = create(start);
  if (error != 0) {
    application_threads.fetch_sub(1, std::memory_order_relaxed);
    bootstrap::release(start, sizeof(Start));
  }
  return error;
}

}  // namespace

void watch_threads() {
  if (pthread_key_create(&thread_ends, on_thread_end) != 0) return;
  (void)create_thread.look_up();
  os::use_thread_creator(create_own_thread);
  note_thread_start();
  expect_thread_end();
  watching.store(true, std::memory_order_release);
}

bool is_last_thread() {
  return application_threads.load(std::memory_order_acquire) == 1;
}

void count_threads_in_child() {
  application_threads.store(1, std::memory_order_relaxed);
}

}  // namespace heaptier::preload

#define HEAPTIER_EXPORT extern "C" __attribute__((visibility("default")))

HEAPTIER_EXPORT int pthread_create(pthread_t* thread, const pthread_attr_t* attributes,
                                   void* (*routine)(void*), void* argument) noexcept {
  using namespace heaptier;
  using namespace heaptier::preload;
  if (!watching.load(std::memory_order_acquire)) {
    return create_thread.call(thread, attributes, routine, argument);
  }
  return create_counted({routine, nullptr, argument}, EAGAIN, [&](Start* start) {
    return create_thread.call(thread, attributes, start_thread, start);
  });
}

HEAPTIER_EXPORT int thrd_create(thrd_t* thread, thrd_start_t routine, void* argument) {
  using namespace heaptier;
  using namespace heaptier::preload;
  if (!watching.load(std::memory_order_acquire)) {
    return create_c11_thread.call(thread, routine, argument);
  }
  static_assert(thrd_success == 0);
  return create_counted({nullptr, routine, argument}, thrd_nomem, [&](Start* start) {
    return create_c11_thread.call(thread, start_c11_thread, start);
  });
}

// A robust mutex is handed on by the kernel when its owner dies, which it does while the owner
// exits: its page must be at home then, as above.
HEAPTIER_EXPORT int pthread_mutex_init(pthread_mutex_t* mutex,
                                       const pthread_mutexattr_t* attributes) noexcept {
  using namespace heaptier::preload;
  const int error = init_mutex.call(mutex, attributes);
  int robust = PTHREAD_MUTEX_STALLED;
  if (error == 0 && attributes != nullptr &&
      pthread_mutexattr_getrobust(attributes, &robust) == 0 && robust == PTHREAD_MUTEX_ROBUST) {
    pin_mutex(mutex, true);
  }
  return error;
}

HEAPTIER_EXPORT int pthread_mutex_destroy(pthread_mutex_t* mutex) noexcept {
  using namespace heaptier::preload;
  // glibc's own mark of a robust mutex (PTHREAD_MUTEX_ROBUST_NORMAL_NP, bit 4 of the kind).
  constexpr int kRobustBit = 16;
  const bool robust = (mutex->__data.__kind & kRobustBit) != 0;
  const int error = destroy_mutex.call(mutex);
  if (error == 0 && robust) pin_mutex(mutex, false);
  return error;
}
