#include "preload/long_way.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "preload/call_gate.h"
#include "preload/early_heap.h"
#include "preload/libc_callers.h"
#include "preload/next_heap.h"
#include "preload/process.h"
#include "runtime/base/errno.h"
#include "runtime/heap/jemalloc_heap.h"
#include "runtime/heap/jemalloc_names.h"
#include "runtime/heap/mimalloc_heap.h"

namespace heaptier::preload {
namespace {

void* failed() {
  errno = ENOMEM;
  return nullptr;
}

void* from_jemalloc(std::size_t bytes, std::size_t align, bool zeroed) {
  if (align == 0) return zeroed ? je_calloc(1, bytes) : je_malloc(bytes);
  const int flags = MALLOCX_LG_ALIGN(std::countr_zero(align)) | (zeroed ? MALLOCX_ZERO : 0);
  return je_mallocx(std::max(bytes, std::size_t{1}), flags);
}

void* from_mimalloc(std::size_t bytes, std::size_t align, bool zeroed) {
  if (zeroed) return mimalloc::zalloc(bytes, align);
  return align == 0 ? mimalloc::heap().malloc(bytes) : mimalloc::heap().aligned_alloc(align, bytes);
}

void* from_heap(std::size_t bytes, std::size_t align, bool zeroed, bool libc_internal) {
  if (libc_internal) {
    if (void* p = jemalloc::allocate(Mobility::kUnmovable, bytes, align, zeroed)) return p;
  }
  // mimalloc takes 32 MiB at a time; where that cannot be had, a pageblock may.
  if (mode() == Mode::kMimalloc) {
    if (void* p = from_mimalloc(bytes, align, zeroed)) return p;
  }
  return from_jemalloc(bytes, align, zeroed);
}

enum class Whose { kNobody, kEarly, kShort, kSpecial, kMimalloc, kForeign };

// Whose an object is, while jemalloc or mimalloc serves.
Whose whose(const void* p) {
  const Space& space = process().space;
  if (space.contains(p)) {
    const auto at = reinterpret_cast<std::uintptr_t>(p);
    const BlockIndex block = block_of(space.page_at(at));
    if (block.v >= space.block_limit()) return Whose::kNobody;
    switch (space.owner_of(block)) {
      case Owner::kJemalloc:
        return space.mobility_of(block) == Mobility::kMovable ? Whose::kShort : Whose::kSpecial;
      case Owner::kUserOnly:
        return Whose::kSpecial;
      case Owner::kMimalloc:
        return Whose::kMimalloc;
      case Owner::kAllocatorMetadata:
      case Owner::kNone:
        return Whose::kNobody;
    }
  }
  return early_heap::owns(p) ? Whose::kEarly : Whose::kForeign;
}

void* grow(void* p, std::size_t bytes, Whose owner) {
  if (owner == Whose::kMimalloc) return mimalloc::heap().realloc(p, bytes);
  return owner == Whose::kShort ? je_realloc(p, bytes) : jemalloc::reallocate(p, bytes);
}

// Moves an object whose heap cannot grow it.
void* copy_to_new(void* p, std::size_t old_bytes, std::size_t bytes, std::uintptr_t caller) {
  void* fresh = allocate_long(bytes, 0, false, caller);
  if (fresh == nullptr) return nullptr;
  std::memcpy(fresh, p, std::min(old_bytes, bytes));
  release_long(p);
  return fresh;
}

}  // namespace

bool make_room(std::size_t bytes) {
  if (mode() == Mode::kNext || mode() == Mode::kUnknown || bytes > process().space.bytes()) {
    return false;
  }
  ErrnoKeeper keep;
  jemalloc::purge();
  if (mode() == Mode::kMimalloc) mimalloc::collect();
  return true;
}

void* allocate_long(std::size_t bytes, std::size_t align, bool zeroed, std::uintptr_t caller) {
  if (!boot() || HeapAside::now()) {
    void* p = early_heap::allocate(bytes, align);
    return p != nullptr ? p : failed();
  }
  if (HeapAsideForThread::now()) {
    if (void* p = early_heap::allocate(bytes, align)) return p;
  }
  start_other_heap(caller);
  wake_if_wanted(caller);
  void* p = nullptr;
  if (mode() == Mode::kNext) {
    p = next_heap::allocate(bytes, align, zeroed);
  } else {
    const bool internal = is_libc_internal(caller);
    p = from_heap(bytes, align, zeroed, internal);
    if (p == nullptr && make_room(bytes)) p = from_heap(bytes, align, zeroed, internal);
  }
  return p != nullptr ? p : failed();
}

void* and_wake(void* p, std::uintptr_t caller) {
  if (p == nullptr || HeapAside::now() || HeapAsideForThread::now()) return p;
  ErrnoKeeper keep;
  wake_if_wanted(caller);
  return p;
}

void* reallocate_long(void* p, std::size_t bytes, std::uintptr_t caller) {
  if (p == nullptr) return allocate_long(bytes, 0, false, caller);
  if (early_heap::owns(p)) return copy_to_new(p, early_heap::usable_size(p), bytes, caller);
  if (!boot()) return failed();  // an object of a heap that is being looked up
  if (mode() == Mode::kNext) return next_heap::reallocate(p, bytes);
  switch (const Whose owner = whose(p)) {
    case Whose::kShort:
    case Whose::kSpecial:
    case Whose::kMimalloc:
      if (void* moved = grow(p, bytes, owner)) return moved;
      if (make_room(bytes)) {
        if (void* moved = grow(p, bytes, owner)) return moved;
      }
      break;
    case Whose::kForeign:
      if (next_heap::looks_like_libc(p)) {
        return copy_to_new(p, next_heap::usable_size(p), bytes, caller);
      }
      break;
    case Whose::kEarly:
    case Whose::kNobody:
      break;
  }
  return failed();
}

void release_long(void* p) {
  if (p == nullptr || early_heap::owns(p)) return;
  ErrnoKeeper keep;
  if (!boot()) return;
  if (mode() == Mode::kNext) {
    next_heap::release(p);
    return;
  }
  switch (whose(p)) {
    case Whose::kShort:
      je_free(p);
      return;
    case Whose::kSpecial:
      jemalloc::release(p);
      return;
    case Whose::kMimalloc:
      mimalloc::heap().free(p);
      return;
    case Whose::kForeign:
      next_heap::release_foreign(p);
      return;
    case Whose::kEarly:
    case Whose::kNobody:
      return;
  }
}

std::size_t usable_size_long(void* p) {
  if (p == nullptr) return 0;
  if (early_heap::owns(p)) return early_heap::usable_size(p);
  if (!boot()) return 0;
  if (mode() == Mode::kNext) return next_heap::usable_size(p);
  switch (whose(p)) {
    case Whose::kShort:
    case Whose::kSpecial:
      return je_malloc_usable_size(p);
    case Whose::kMimalloc:
      return mimalloc::usable_size(p);
    case Whose::kForeign:
      return next_heap::looks_like_libc(p) ? next_heap::usable_size(p) : 0;
    case Whose::kEarly:
    case Whose::kNobody:
      break;
  }
  return 0;
}

}  // namespace heaptier::preload
