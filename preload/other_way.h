// The way in between: not jemalloc at once, but another heap (mimalloc) after one more check.
#pragma once

#include "preload/long_way.h"
#include "runtime/heap/gates.h"

namespace heaptier::preload {

[[gnu::always_inline]] inline void* allocate_other(std::size_t bytes, std::uintptr_t caller) {
  auto* other = gates.other_malloc.load(std::memory_order_relaxed);
  if (other != nullptr && caller - gates.libc_start.load(std::memory_order_relaxed) >=
                              gates.libc_bytes.load(std::memory_order_relaxed)) {
    return other(bytes);
  }
  return allocate_long(bytes, 0, false, caller);
}

[[gnu::always_inline]] inline void release_other(void* p) {
  if (gates.other_way_for(p)) return gates.other_free.load(std::memory_order_relaxed)(p);
  release_long(p);
}

}  // namespace heaptier::preload
