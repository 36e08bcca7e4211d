// syscall(2) as a function: programs that go round libc's wrappers mostly go through it. What
// changes mappings or makes processes is led to the wrappers, which tell the engine, and so is what
// becomes of a signal that is heaptier's; it is told of memory policies, too, which libnuma asks
// for by this function; everything else is the kernel's, at once.
#include <sys/syscall.h>
#include <sys/types.h>

#include <cerrno>
#include <cstdarg>
#include <cstdint>

#include "preload/fork_guard.h"
#include "preload/next_function.h"
#include "preload/process.h"
#include "preload/raw_sigaction.h"
#include "preload/thread_watch.h"
#include "runtime/base/errno.h"
#include "runtime/base/ports.h"
#include "runtime/engine.h"

// The wrappers of mmap_abi.cc; <sys/mman.h> belongs to the doors.
extern "C" {
void* mmap(void*, std::size_t, int, int, int, off_t) noexcept;
int munmap(void*, std::size_t) noexcept;
void* mremap(void*, std::size_t, std::size_t, int, ...) noexcept;
int madvise(void*, std::size_t, int) noexcept;
int mprotect(void*, std::size_t, int) noexcept;
int pkey_mprotect(void*, std::size_t, int, int) noexcept;
int mlock(const void*, std::size_t) noexcept;
int mlock2(const void*, std::size_t, unsigned) noexcept;
int munlock(const void*, std::size_t) noexcept;
int mlockall(int) noexcept;
}

namespace heaptier::preload {
namespace {

constinit NextFunction<long(long, long, long, long, long, long, long)> next_syscall{"syscall"};
constinit NextFunction<int(int (*)(void*), void*, int, void*, void*, void*, void*)> next_clone{
    "clone"};

constexpr long kCloneVm = 0x100;

// struct clone_args of <linux/sched.h>, as far as it matters here.
struct CloneArgs {
  std::uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack;
};

void* pointer(long value) {
  return reinterpret_cast<void*>(value);  // NOLINT(performance-no-int-to-ptr)
}

// A process of its own that goes on where this one is: only then can the child come back here.
bool makes_process(long number, long a, long b) {
#ifdef SYS_fork
  if (number == SYS_fork) return true;
#endif
  if (number == SYS_clone) return (a & kCloneVm) == 0 && b == 0;
#ifdef SYS_clone3
  if (number == SYS_clone3 && a != 0) {
    const auto* args = static_cast<const CloneArgs*>(pointer(a));
    return (args->flags & kCloneVm) == 0 && args->stack == 0;
  }
#endif
  return false;
}

// What a child on a stack of its own runs first.
struct FirstAct {
  int (*routine)(void*);
  void* argument;
};

int in_clone(void* given) {
  const FirstAct act = *static_cast<FirstAct*>(given);
  after_fork_in_child(MadeBy::kSomebodyElse);
  // Returning would end this thread only, and the engine's would keep the process alive.
  return static_cast<int>(
      next_syscall.call(SYS_exit_group, act.routine(act.argument), 0, 0, 0, 0, 0));
}

// The parent writes to the child's stack after everything was stopped for the fork: what it touches
// must be there.
AddressRange top_of_stack(void* stack) {
  constexpr std::size_t kTop = std::size_t{64} << 10;
  const auto end = round_up(reinterpret_cast<std::uintptr_t>(stack), kPageSize);
  if (!process().space.contains(reinterpret_cast<void*>(end - kTop))) return {};  // NOLINT
  return {end - kTop, kTop};
}

// Early: the engine's own threads come through here too (uffd/), and a thread that serves faults
// must not wait for the dynamic linker's lock, whose holder may be waiting for it.
[[gnu::constructor]] void look_up() {
  next_syscall.look_up();
  next_clone.look_up();
}

// By the mode of set_mempolicy: anything but the kernel's own way (MPOL_DEFAULT, MPOL_LOCAL).
bool places_memory(int mode) {
  constexpr int kFlags = 7 << 13;  // MPOL_MODE_FLAGS
  constexpr int kLocal = 4;
  return (mode & ~kFlags) != 0 && (mode & ~kFlags) != kLocal;
}

bool stands_aside() {
  return !boot() || mode() == Mode::kNext;
}

}  // namespace
}  // namespace heaptier::preload

// NOLINTBEGIN(misc-use-internal-linkage)
using namespace heaptier::preload;

extern "C" __attribute__((visibility("default"))) long syscall(long number, ...) noexcept {
  va_list rest;
  va_start(rest, number);
  const long a = va_arg(rest, long);
  const long b = va_arg(rest, long);
  const long c = va_arg(rest, long);
  const long d = va_arg(rest, long);
  const long e = va_arg(rest, long);
  const long f = va_arg(rest, long);
  va_end(rest);
  const auto size = static_cast<std::size_t>(b);
  switch (number) {
#ifdef SYS_mmap
    case SYS_mmap:
      return reinterpret_cast<long>(
          mmap(pointer(a), size, static_cast<int>(c), static_cast<int>(d), static_cast<int>(e), f));
#endif
    case SYS_munmap:
      return munmap(pointer(a), size);
    case SYS_mremap:
      return reinterpret_cast<long>(
          mremap(pointer(a), size, static_cast<std::size_t>(c), static_cast<int>(d), pointer(e)));
    case SYS_madvise:
      return madvise(pointer(a), size, static_cast<int>(c));
    case SYS_mprotect:
      return mprotect(pointer(a), size, static_cast<int>(c));
#ifdef SYS_pkey_mprotect
    case SYS_pkey_mprotect:
      return pkey_mprotect(pointer(a), size, static_cast<int>(c), static_cast<int>(d));
#endif
    case SYS_mlock:
      return mlock(pointer(a), size);
#ifdef SYS_mlock2
    case SYS_mlock2:
      return mlock2(pointer(a), size, static_cast<unsigned>(c));
#endif
    case SYS_munlock:
      return munlock(pointer(a), size);
    case SYS_mlockall:
      return mlockall(static_cast<int>(a));
    case SYS_rt_sigaction: {
      long result = 0;
      if (!stands_aside() && raw_sigaction(a, b, c, d, &result)) return result;
      break;
    }
    case SYS_exit:
      // Ends the thread; if it is the last of the application's, that is the end of the process.
      if (!stands_aside() && is_last_thread()) number = SYS_exit_group;
      break;
    default:
      break;
  }
  if (!makes_process(number, a, b) || stands_aside()) {
    const long result = next_syscall.call(number, a, b, c, d, e, f);
    if (number == SYS_set_mempolicy && result == 0 && places_memory(static_cast<int>(a)) &&
        !stands_aside()) {
      heaptier::ErrnoKeeper keep;
      heaptier::engine().let_threads_place();
    }
    return result;
  }
  before_fork();
  const long child = next_syscall.call(number, a, b, c, d, e, f);
  heaptier::ErrnoKeeper keep;
  if (child == 0) {
    after_fork_in_child(MadeBy::kSomebodyElse);
  } else {
    after_fork_in_parent();
  }
  return child;
}

extern "C" __attribute__((visibility("default"))) int clone(int (*routine)(void*), void* stack,
                                                            int flags, void* argument,
                                                            ...) noexcept {
  va_list rest;
  va_start(rest, argument);
  void* parent_tid = va_arg(rest, void*);
  void* tls = va_arg(rest, void*);
  void* child_tid = va_arg(rest, void*);
  va_end(rest);
  if ((flags & kCloneVm) != 0 || stands_aside()) {
    return next_clone.call(routine, stack, flags, argument, parent_tid, tls, child_tid);
  }
  FirstAct act{routine, argument};
  const heaptier::AddressRange top = top_of_stack(stack);
  if (top.bytes != 0) {
    heaptier::engine().pin(top.start, top.bytes);
    // Written, not only read: it must be there, and writable.
    auto* last = reinterpret_cast<volatile char*>(top.end() - 1);  // NOLINT
    *last = *last;
    last[-static_cast<std::ptrdiff_t>(heaptier::kPageSize)] =
        last[-static_cast<std::ptrdiff_t>(heaptier::kPageSize)];
  }
  before_fork();
  const int child = next_clone.call(in_clone, stack, flags, &act, parent_tid, tls, child_tid);
  heaptier::ErrnoKeeper keep;
  after_fork_in_parent();
  if (top.bytes != 0) heaptier::engine().unpin(top.start, top.bytes);
  return child;
}
// NOLINTEND(misc-use-internal-linkage)
