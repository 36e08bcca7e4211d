// The malloc family, as libc's manual lists it for replacements, and what programs call besides.
//
// The short way is a check and a jump into jemalloc. Everything else is long_way.cc's.
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdint>

#include "preload/next_heap.h"
#include "preload/other_way.h"
#include "preload/process.h"
#include "runtime/base/errno.h"
#include "runtime/base/units.h"
#include "runtime/heap/gates.h"
#include "runtime/heap/jemalloc_heap.h"
#include "runtime/heap/jemalloc_names.h"

#define HEAPTIER_EXPORT extern "C" __attribute__((visibility("default")))
#define HEAPTIER_CALLER() reinterpret_cast<std::uintptr_t>(__builtin_return_address(0))

using heaptier::gates;
using heaptier::preload::allocate_long;
using heaptier::preload::and_wake;
using heaptier::preload::and_wake_if_large;
using heaptier::preload::kMayBeTheLast;

namespace {

constexpr std::size_t kHalfWord = std::size_t{1} << 32;

// Apart, so that the short way needs no frame.
[[gnu::noinline]] void* calloc_long(std::size_t count, std::size_t bytes, std::uintptr_t caller) {
  std::size_t all = 0;
  if (__builtin_mul_overflow(count, bytes, &all)) {
    errno = ENOMEM;
    return nullptr;
  }
  return allocate_long(all, 0, true, caller);
}

// The long ways of calloc and of the aligned family, with the other heap's short cut.
void* calloc_other(std::size_t count, std::size_t bytes, std::uintptr_t caller) {
  if (const heaptier::OtherHeap* other = gates.other_for(caller)) {
    if ((count | bytes) < kHalfWord) return other->calloc(count, bytes);
  }
  return calloc_long(count, bytes, caller);
}

[[gnu::noinline]] void* aligned_other(std::size_t align, std::size_t bytes, std::uintptr_t caller) {
  if (!std::has_single_bit(align)) {
    errno = EINVAL;
    return nullptr;
  }
  const heaptier::OtherHeap* other = gates.other_for(caller);
  if (other != nullptr && bytes < heaptier::preload::kAbsurd) {
    return other->aligned_alloc(align, bytes);
  }
  return allocate_long(bytes, align, false, caller);
}

[[gnu::noinline]] void* calloc_large(std::size_t count, std::size_t bytes, std::uintptr_t caller) {
  void* const p =
      gates.long_way_from(caller) ? calloc_other(count, bytes, caller) : je_calloc(count, bytes);
  return and_wake(p, caller);
}

// The long way tries again, and sets errno, which jemalloc's realloc does not.
[[gnu::always_inline]] inline void* resize(void* p, std::size_t bytes, std::uintptr_t caller) {
  if (gates.short_way_for(p)) [[likely]] {
    void* moved = je_realloc(p, bytes);
    if (moved == nullptr) moved = heaptier::preload::reallocate_long(p, bytes, caller);
    return and_wake_if_large(moved, bytes, caller);
  }
  return and_wake_if_large(heaptier::preload::reallocate_other(p, bytes, caller), bytes, caller);
}

[[gnu::noinline]] int posix_memalign_other(void** out, std::size_t align, std::size_t bytes,
                                           std::uintptr_t caller) {
  if (!std::has_single_bit(align) || align < sizeof(void*)) return EINVAL;
  heaptier::ErrnoKeeper keep;
  void* p = aligned_other(align, bytes, caller);
  if (p == nullptr) return ENOMEM;
  *out = p;
  return 0;
}

}  // namespace

HEAPTIER_EXPORT void* malloc(std::size_t bytes) {
  if (bytes >= kMayBeTheLast) [[unlikely]]
    return heaptier::preload::allocate_large(bytes, HEAPTIER_CALLER());
  if (gates.long_way_from(HEAPTIER_CALLER())) [[unlikely]] {
    return heaptier::preload::allocate_other(bytes, HEAPTIER_CALLER());
  }
  return je_malloc(bytes);
}

HEAPTIER_EXPORT void* calloc(std::size_t count, std::size_t bytes) {
  std::size_t all = 0;
  if (__builtin_mul_overflow(count, bytes, &all) || all >= kMayBeTheLast) [[unlikely]] {
    return calloc_large(count, bytes, HEAPTIER_CALLER());
  }
  if (gates.long_way_from(HEAPTIER_CALLER())) [[unlikely]] {
    return calloc_other(count, bytes, HEAPTIER_CALLER());
  }
  return je_calloc(count, bytes);
}

HEAPTIER_EXPORT void* realloc(void* p, std::size_t bytes) {
  return resize(p, bytes, HEAPTIER_CALLER());
}

HEAPTIER_EXPORT void* reallocarray(void* p, std::size_t count, std::size_t bytes) noexcept {
  std::size_t all = 0;
  if (__builtin_mul_overflow(count, bytes, &all)) {
    errno = ENOMEM;
    return nullptr;
  }
  return resize(p, all, HEAPTIER_CALLER());
}

HEAPTIER_EXPORT void free(void* p) {
  if (gates.short_way_for(p)) [[likely]]
    return je_free(p);
  heaptier::preload::release_other(p);
}

HEAPTIER_EXPORT void cfree(void* p) {
  free(p);
}

// The sizes and alignments that are refused, and with what, are libc's and POSIX'.
HEAPTIER_EXPORT void* aligned_alloc(std::size_t align, std::size_t bytes) noexcept {
  if (!gates.long_way_from(HEAPTIER_CALLER())) [[likely]]
    return and_wake_if_large(je_aligned_alloc(align, bytes), bytes, HEAPTIER_CALLER());
  return and_wake_if_large(aligned_other(align, bytes, HEAPTIER_CALLER()), bytes,
                           HEAPTIER_CALLER());
}

HEAPTIER_EXPORT int posix_memalign(void** out, std::size_t align, std::size_t bytes) noexcept {
  const int failed = gates.long_way_from(HEAPTIER_CALLER())
                         ? posix_memalign_other(out, align, bytes, HEAPTIER_CALLER())
                         : je_posix_memalign(out, align, bytes);
  if (failed == 0) (void)and_wake_if_large(*out, bytes, HEAPTIER_CALLER());
  return failed;
}

HEAPTIER_EXPORT void* memalign(std::size_t align, std::size_t bytes) noexcept {
  constexpr std::size_t kHighest = std::size_t{1} << 62;
  if (align > kHighest) {
    errno = EINVAL;
    return nullptr;
  }
  // libc rounds an alignment up to a power of two.
  align = std::bit_ceil(std::max(align, std::size_t{1}));
  if (!gates.long_way_from(HEAPTIER_CALLER())) [[likely]]
    return and_wake_if_large(je_memalign(align, bytes), bytes, HEAPTIER_CALLER());
  return and_wake_if_large(aligned_other(align, bytes, HEAPTIER_CALLER()), bytes,
                           HEAPTIER_CALLER());
}

HEAPTIER_EXPORT void* valloc(std::size_t bytes) noexcept {
  if (!gates.long_way_from(HEAPTIER_CALLER())) [[likely]]
    return je_memalign(heaptier::kPageSize, bytes);
  return aligned_other(heaptier::kPageSize, bytes, HEAPTIER_CALLER());
}

HEAPTIER_EXPORT void* pvalloc(std::size_t bytes) noexcept {
  const std::size_t rounded =
      heaptier::round_up(std::max(bytes, std::size_t{1}), heaptier::kPageSize);
  if (rounded < bytes) {
    errno = ENOMEM;
    return nullptr;
  }
  if (!gates.long_way_from(HEAPTIER_CALLER())) [[likely]]
    return je_memalign(heaptier::kPageSize, rounded);
  return aligned_other(heaptier::kPageSize, rounded, HEAPTIER_CALLER());
}

HEAPTIER_EXPORT std::size_t malloc_usable_size(void* p) noexcept {
  if (gates.short_way_for(p)) [[likely]]
    return je_malloc_usable_size(p);
  return heaptier::preload::usable_size_long(p);
}
