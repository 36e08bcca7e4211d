// What the application does to mappings. On memory of its own that is the kernel's business alone.
// On memory of the heap's it is told to the engine first: pages that are away come back, and what
// heaptier cannot follow (other protections, locks, moves) stays resident from then on.
//
// This file defines what <sys/mman.h> declares, and calls only the next definitions of it.
#include <sys/types.h>

#include <cerrno>
#include <cstdarg>
#include <cstdint>

#include "preload/mapping_flags.h"
#include "preload/next_function.h"
#include "preload/process.h"
#include "runtime/base/errno.h"
#include "runtime/engine.h"
#include "runtime/heap/mimalloc_heap.h"
#include "runtime/os/advice.h"

namespace heaptier::preload {
namespace {

constinit NextFunction<void*(void*, std::size_t, int, int, int, off_t)> next_mmap{"mmap"};
constinit NextFunction<int(void*, std::size_t)> next_munmap{"munmap"};
constinit NextFunction<void*(void*, std::size_t, std::size_t, int, void*)> next_mremap{"mremap"};
constinit NextFunction<int(void*, std::size_t, int)> next_madvise{"madvise"};
constinit NextFunction<int(void*, std::size_t, int)> next_mprotect{"mprotect"};
constinit NextFunction<int(void*, std::size_t, int, int)> next_pkey_mprotect{"pkey_mprotect"};
constinit NextFunction<int(const void*, std::size_t)> next_mlock{"mlock"};
constinit NextFunction<int(const void*, std::size_t, unsigned)> next_mlock2{"mlock2"};
constinit NextFunction<int(const void*, std::size_t)> next_munlock{"munlock"};
constinit NextFunction<int(int)> next_mlockall{"mlockall"};

bool heaptier_serves() {
  return mode() == Mode::kJemalloc || mode() == Mode::kMimalloc;
}

// The whole pages of [p, p+bytes) that lie in the Space and have been carved; bytes 0: none.
AddressRange in_heap(const void* p, std::size_t bytes) {
  if (!heaptier_serves()) return {};
  const Space& space = process().space;
  const std::uintptr_t carved_end = space.address_of(BlockIndex{space.block_limit()});
  std::uintptr_t start = round_down(reinterpret_cast<std::uintptr_t>(p), kPageSize);
  std::uintptr_t end = reinterpret_cast<std::uintptr_t>(p) + bytes;
  if (end < start) return {};  // wraps around: the kernel's to refuse
  end = round_up(end, kPageSize);
  if (start < space.base()) start = space.base();
  if (end > carved_end) end = carved_end;
  return start < end ? AddressRange{start, end - start} : AddressRange{};
}

// Before a call that heaptier cannot follow.
void surrender(const AddressRange& range) {
  if (range.bytes == 0) return;
  ErrnoKeeper keep;
  engine().surrender(range.start, range.bytes);
}

// After a call that has undone what surrendered the range.
void restored(const AddressRange& range) {
  if (range.bytes == 0) return;
  ErrnoKeeper keep;
  engine().restored(range.start, range.bytes);
}

// After a call that has replaced or removed the mapping.
void forget(const AddressRange& range) {
  if (range.bytes == 0) return;
  ErrnoKeeper keep;
  engine().forget(range.start, range.bytes);
  engine().restored(range.start,
                    range.bytes);  // what was surrendered for the call is not there any more
}

// What a heap asks for when it wants memory anywhere.
bool is_plain_memory(int flags) {
  return (flags & kMapAnonymous) != 0 && (flags & (kMapFixed | kMapShared | kMapHugetlb)) == 0;
}

void* map_failed() {
  return reinterpret_cast<void*>(~std::uintptr_t{0});  // NOLINT(performance-no-int-to-ptr)
}

// mremap(MAYMOVE, perhaps DONTUNMAP) of readable memory, by copying. On failure everything is as
// before, errno EFAULT.
void* move_by_hand(void* at, std::size_t bytes, std::size_t new_bytes, bool unmap) {
  ErrnoKeeper keep;
  void* fresh =
      next_mmap.call(nullptr, new_bytes, kProtReadWrite, kMapPrivate | kMapAnonymous, -1, 0);
  if (fresh == map_failed()) return fresh;
  __builtin_memcpy(fresh, at, bytes < new_bytes ? bytes : new_bytes);
  if (unmap) {
    next_munmap.call(at, bytes);
  } else {
    next_madvise.call(at, bytes, heaptier::os::kAdviceDontNeed);
  }
  return fresh;
}

std::uintptr_t caller_of(const void* return_address) {
  return reinterpret_cast<std::uintptr_t>(return_address);
}

}  // namespace
}  // namespace heaptier::preload

#define HEAPTIER_EXPORT extern "C" __attribute__((visibility("default")))
#define HEAPTIER_CALLER() caller_of(__builtin_return_address(0))

// NOLINTBEGIN(misc-use-internal-linkage)
using namespace heaptier::preload;

HEAPTIER_EXPORT void* mmap(void* at, std::size_t bytes, int protection, int flags, int file,
                           off_t offset) noexcept {
  if (heaptier::mimalloc::is_caller(HEAPTIER_CALLER()) && is_plain_memory(flags)) {
    if (void* p = heaptier::mimalloc::map(bytes)) return p;
    errno = ENOMEM;
    return map_failed();
  }
  const bool replaces = (flags & kMapFixed) != 0;
  const heaptier::AddressRange heap = replaces ? in_heap(at, bytes) : heaptier::AddressRange{};
  surrender(heap);
  void* mapped = next_mmap.call(at, bytes, protection, flags, file, offset);
  mapped != map_failed() ? forget(heap) : restored(heap);
  return mapped;
}

HEAPTIER_EXPORT void* mmap64(void* at, std::size_t bytes, int protection, int flags, int file,
                             off64_t offset) noexcept {
  return mmap(at, bytes, protection, flags, file, offset);
}

HEAPTIER_EXPORT int munmap(void* at, std::size_t bytes) noexcept {
  const heaptier::AddressRange heap = in_heap(at, bytes);
  if (heap.bytes != 0 && heaptier::mimalloc::is_caller(HEAPTIER_CALLER())) {
    heaptier::mimalloc::unmap(heap.start, heap.bytes);
    return 0;
  }
  surrender(heap);
  const int result = next_munmap.call(at, bytes);
  result == 0 ? forget(heap) : restored(heap);
  return result;
}

HEAPTIER_EXPORT void* mremap(void* at, std::size_t bytes, std::size_t new_bytes, int flags,
                             ...) noexcept {
  void* target = nullptr;
  if ((flags & kMremapFixed) != 0) {
    va_list rest;
    va_start(rest, flags);
    target = va_arg(rest, void*);
    va_end(rest);
  }
  // Growing takes nothing from the neighbours: those are mapped, so what grows moves.
  const heaptier::AddressRange from = in_heap(at, bytes);
  const heaptier::AddressRange to =
      target != nullptr ? in_heap(target, new_bytes) : heaptier::AddressRange{};
  surrender(from);
  surrender(to);
  void* mapped = next_mremap.call(at, bytes, new_bytes, flags, target);
  const bool unmap = (flags & kMremapDontUnmap) == 0;
  if (mapped == map_failed() && errno == EFAULT && from.bytes != 0 &&
      (flags & ~kMremapDontUnmap) == kMremapMayMove) {
    // What is one mapping to the application may be several to the kernel, which are registered or
    // not: moved by hand.
    mapped = move_by_hand(at, bytes, new_bytes, unmap);
  }
  if (mapped != map_failed()) {
    forget(from);
    forget(to);
  } else {
    restored(from);
    restored(to);
  }
  return mapped;
}

HEAPTIER_EXPORT int madvise(void* at, std::size_t bytes, int advice) noexcept {
  const heaptier::AddressRange heap = in_heap(at, bytes);
  const auto start = reinterpret_cast<std::uintptr_t>(at);
  if (heap.bytes != 0 && start % heaptier::kPageSize == 0) {
    const std::size_t whole = heaptier::round_up(bytes, heaptier::kPageSize);
    if (heap.start != start || heap.bytes != whole) {
      surrender(heap);  // partly heap: the kernel does it, on pages that are there
    } else {
      const int saved = errno;
      int result = 0;
      const bool handled = heaptier::engine().app_advise(start, whole, advice, &result);
      errno = result == 0 ? saved : result;
      if (handled) return result == 0 ? 0 : -1;
    }
  }
  return next_madvise.call(at, bytes, advice);
}

// libc's own, which calls its madvise past us: it ignores the one advice that changes content.
HEAPTIER_EXPORT int posix_madvise(void* at, std::size_t bytes, int advice) noexcept {
  if (advice == kPosixDontNeed) return 0;
  heaptier::ErrnoKeeper keep;
  return madvise(at, bytes, advice) == 0 ? 0 : errno;
}

HEAPTIER_EXPORT int mprotect(void* at, std::size_t bytes, int protection) noexcept {
  // Read and write is what the heap has, or gets back after other protections.
  const bool as_ever = protection == kProtReadWrite;
  if (!as_ever) surrender(in_heap(at, bytes));
  const int result = next_mprotect.call(at, bytes, protection);
  if (as_ever && result == 0) restored(in_heap(at, bytes));
  return result;
}

HEAPTIER_EXPORT int pkey_mprotect(void* at, std::size_t bytes, int protection, int key) noexcept {
  surrender(in_heap(at, bytes));
  return next_pkey_mprotect.call(at, bytes, protection, key);
}

HEAPTIER_EXPORT int mlock(const void* at, std::size_t bytes) noexcept {
  surrender(in_heap(at, bytes));
  return next_mlock.call(at, bytes);
}

HEAPTIER_EXPORT int mlock2(const void* at, std::size_t bytes, unsigned flags) noexcept {
  surrender(in_heap(at, bytes));
  return next_mlock2.call(at, bytes, flags);
}

HEAPTIER_EXPORT int munlock(const void* at, std::size_t bytes) noexcept {
  const int result = next_munlock.call(at, bytes);
  if (result == 0) restored(in_heap(at, bytes));
  return result;
}

// All memory, and usually all that will come: there is nothing left to demote.
HEAPTIER_EXPORT int mlockall(int flags) noexcept {
  if (heaptier_serves()) {
    heaptier::ErrnoKeeper keep;
    heaptier::engine().retire();
  }
  return next_mlockall.call(flags);
}
// NOLINTEND(misc-use-internal-linkage)
