// The ways in between: jemalloc for a caller in libc, or another heap (mimalloc), after one more
// check.
#pragma once

#include "preload/long_way.h"
#include "runtime/heap/gates.h"
#include "runtime/heap/jemalloc_names.h"

namespace heaptier::preload {

inline constexpr std::size_t kAbsurd = std::size_t{1} << 62;
// A program that takes its memory at once and then computes may not ask for any again: after an
// allocation of this size the engine is woken if it wants that, after smaller ones by the next.
inline constexpr std::size_t kMayBeTheLast = std::size_t{1} << 20;

[[gnu::always_inline]] inline void* allocate_other(std::size_t bytes, std::uintptr_t caller) {
  // Sizes that no heap has are refused on the long way, where errno is set.
  if (const OtherHeap* other = gates.other_for(caller); other != nullptr && bytes < kAbsurd) {
    return other->malloc(bytes);
  }
  if (gates.gives(caller) && !gates.other_serves.load(std::memory_order_relaxed)) {
    return je_malloc(bytes);
  }
  return allocate_long(bytes, 0, false, caller);
}

// malloc and operator new of kMayBeTheLast and more. Apart, so that the short way needs no frame.
[[gnu::noinline]] inline void* allocate_large(std::size_t bytes, std::uintptr_t caller) {
  void* const p = gates.long_way_from(caller) ? allocate_other(bytes, caller) : je_malloc(bytes);
  return and_wake(p, caller);
}

[[gnu::always_inline]] inline void* and_wake_if_large(void* p, std::size_t bytes,
                                                      std::uintptr_t caller) {
  return bytes >= kMayBeTheLast ? and_wake(p, caller) : p;
}

[[gnu::always_inline]] inline void release_other(void* p) {
  if (gates.other_way_for(p)) return gates.other_owns.load(std::memory_order_relaxed)->free(p);
  release_long(p);
}

[[gnu::always_inline]] inline void* reallocate_other(void* p, std::size_t bytes,
                                                     std::uintptr_t caller) {
  if (gates.other_way_for(p) && bytes < kAbsurd) {
    return gates.other_owns.load(std::memory_order_relaxed)->realloc(p, bytes);
  }
  return reallocate_long(p, bytes, caller);
}

}  // namespace heaptier::preload
