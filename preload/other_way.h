// The ways in between: jemalloc for a caller in libc, or another heap (mimalloc), after one more
// check.
#pragma once

#include "preload/long_way.h"
#include "runtime/heap/gates.h"
#include "runtime/heap/jemalloc_names.h"

namespace heaptier::preload {

inline constexpr std::size_t kAbsurd = std::size_t{1} << 62;

[[gnu::always_inline]] inline void* allocate_other(std::size_t bytes, std::uintptr_t caller) {
  // Sizes that no heap has are refused on the long way, where errno is set.
  if (gates.other_serves.load(std::memory_order_relaxed) != nullptr) {
    const OtherHeap* other = gates.other_for(caller);
    if (other != nullptr && bytes < kAbsurd) return other->malloc(bytes);
  } else if (gates.gives(caller)) {
    return je_malloc(bytes);
  }
  return allocate_long(bytes, 0, false, caller);
}

[[gnu::always_inline]] inline void release_other(void* p) {
  const OtherHeap* other = gates.other_owns.load(std::memory_order_relaxed);
  if (other != nullptr && gates.other_way_for(p)) return other->free(p);
  release_long(p);
}

[[gnu::always_inline]] inline void* reallocate_other(void* p, std::size_t bytes,
                                                     std::uintptr_t caller) {
  const OtherHeap* other = gates.other_owns.load(std::memory_order_relaxed);
  if (other != nullptr && gates.other_way_for(p) && bytes < kAbsurd)
    return other->realloc(p, bytes);
  return reallocate_long(p, bytes, caller);
}

}  // namespace heaptier::preload
