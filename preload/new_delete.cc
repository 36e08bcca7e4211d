// operators new and delete, all of them. Compiled with exceptions: what the C++ library's own do
// when memory is short (the new-handler, std::bad_alloc) happens here too, through the C++ library
// that the program has loaded. The library itself is not linked to one, so that a C program does
// not get one.
#include <dlfcn.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#include "preload/other_way.h"
#include "runtime/heap/gates.h"
#include "runtime/heap/jemalloc_names.h"

#define HEAPTIER_EXPORT __attribute__((visibility("default")))
#define HEAPTIER_CALLER() reinterpret_cast<std::uintptr_t>(__builtin_return_address(0))

// The C++ library's, by the names they have in its ABI; null in a program without one.
extern "C" {
[[gnu::weak, noreturn]] void _ZSt17__throw_bad_allocv();
[[gnu::weak]] std::new_handler _ZSt15get_new_handlerv() noexcept;
}

namespace {

using heaptier::gates;
using heaptier::preload::allocate_long;

// A C++ library that was loaded after us with dlopen is not among what the linker bound.
template <class F>
F* in_cxx_library(F* bound, const char* name) {
  if (bound != nullptr) return bound;
  void* library = dlopen("libstdc++.so.6", RTLD_LAZY | RTLD_NOLOAD);
  if (library == nullptr) library = dlopen("libc++.so.1", RTLD_LAZY | RTLD_NOLOAD);
  return library == nullptr ? nullptr : reinterpret_cast<F*>(dlsym(library, name));
}

std::new_handler current_handler() {
  auto* get = in_cxx_library(&_ZSt15get_new_handlerv, "_ZSt15get_new_handlerv");
  return get == nullptr ? nullptr : get();
}

void* try_once(std::size_t bytes, std::size_t align, std::uintptr_t caller) {
  if (gates.long_way_from(caller)) {
    const heaptier::OtherHeap* other = align == 0 ? nullptr : gates.other_for(caller);
    if (other != nullptr && bytes < heaptier::preload::kAbsurd) {
      return other->aligned_alloc(align, bytes);
    }
    return allocate_long(bytes, align, false, caller);
  }
  if (align == 0) return je_malloc(bytes);
  return je_mallocx(bytes == 0 ? 1 : bytes, MALLOCX_LG_ALIGN(std::countr_zero(align)));
}

// What the standard wants after a failure: call the handler and try again, until there is none. May
// throw what the handler throws.
[[gnu::noinline, gnu::cold]] void* try_with_handler(std::size_t bytes, std::size_t align,
                                                    std::uintptr_t caller) {
  if (heaptier::preload::make_room(bytes)) {
    if (void* p = try_once(bytes, align, caller)) return p;
  }
  for (;;) {
    const std::new_handler handler = current_handler();
    if (handler == nullptr) return nullptr;
    handler();
    if (void* p = try_once(bytes, align, caller)) return p;
  }
}

[[gnu::always_inline]] inline void* try_aligned(std::size_t bytes, std::size_t align,
                                                std::uintptr_t caller) {
  return heaptier::preload::and_wake_if_large(try_once(bytes, align, caller), bytes, caller);
}

[[gnu::noinline, gnu::cold]] void* new_failed(std::size_t bytes, std::size_t align,
                                              std::uintptr_t caller) {
  if (void* p = try_with_handler(bytes, align, caller)) return p;
  auto* bad_alloc = in_cxx_library(&_ZSt17__throw_bad_allocv, "_ZSt17__throw_bad_allocv");
  if (bad_alloc != nullptr) bad_alloc();
  std::abort();  // operator new without any C++ library: nobody could catch
}

// The C++ library's own calls the throwing operator, ours, once more, and catches.
[[gnu::noinline, gnu::cold]] void* nothrow_failed(std::size_t bytes) {
  using New = void*(std::size_t, const std::nothrow_t&);
  auto* guarded = in_cxx_library<New>(nullptr, "_ZnwmRKSt9nothrow_t");
  return guarded == nullptr ? nullptr : guarded(bytes, std::nothrow_t{});
}

[[gnu::noinline, gnu::cold]] void* nothrow_failed(std::size_t bytes, std::align_val_t align) {
  using New = void*(std::size_t, std::align_val_t, const std::nothrow_t&);
  auto* guarded = in_cxx_library<New>(nullptr, "_ZnwmSt11align_val_tRKSt9nothrow_t");
  return guarded == nullptr ? nullptr : guarded(bytes, align, std::nothrow_t{});
}

[[gnu::always_inline]] inline void* short_or_long(std::size_t bytes, std::uintptr_t caller) {
  if (bytes >= heaptier::preload::kMayBeTheLast) [[unlikely]]
    return heaptier::preload::allocate_large(bytes, caller);
  if (gates.long_way_from(caller)) [[unlikely]]
    return heaptier::preload::allocate_other(bytes, caller);
  return je_malloc(bytes);
}

[[gnu::always_inline]] inline void release(void* p) {
  if (gates.short_way_for(p)) [[likely]]
    return je_free(p);
  heaptier::preload::release_other(p);
}

// jemalloc saves the look-up of the size where the caller knows it.
[[gnu::always_inline]] inline void release_sized(void* p, std::size_t bytes) {
  if (gates.short_way_for(p)) [[likely]]
    return je_sdallocx(p, bytes == 0 ? 1 : bytes, 0);
  heaptier::preload::release_other(p);
}

[[gnu::always_inline]] inline void release_aligned(void* p, std::size_t bytes, std::size_t align) {
  if (gates.short_way_for(p)) [[likely]] {
    return je_sdallocx(p, bytes == 0 ? 1 : bytes, MALLOCX_LG_ALIGN(std::countr_zero(align)));
  }
  heaptier::preload::release_other(p);
}

}  // namespace

#define HEAPTIER_NEW(OPERATOR)                                                    \
  HEAPTIER_EXPORT void* OPERATOR(std::size_t n) {                                 \
    void* p = short_or_long(n, HEAPTIER_CALLER());                                \
    if (p != nullptr) [[likely]]                                                  \
      return p;                                                                   \
    return new_failed(n, 0, HEAPTIER_CALLER());                                   \
  }                                                                               \
  HEAPTIER_EXPORT void* OPERATOR(std::size_t n, const std::nothrow_t&) noexcept { \
    void* p = short_or_long(n, HEAPTIER_CALLER());                                \
    if (p != nullptr) [[likely]]                                                  \
      return p;                                                                   \
    return nothrow_failed(n);                                                     \
  }                                                                               \
  HEAPTIER_EXPORT void* OPERATOR(std::size_t n, std::align_val_t a) {             \
    const auto align = static_cast<std::size_t>(a);                               \
    if (void* p = try_aligned(n, align, HEAPTIER_CALLER())) return p;             \
    return new_failed(n, align, HEAPTIER_CALLER());                               \
  }                                                                               \
  HEAPTIER_EXPORT void* OPERATOR(std::size_t n, std::align_val_t a,               \
                                 const std::nothrow_t&) noexcept {                \
    const auto align = static_cast<std::size_t>(a);                               \
    if (void* p = try_aligned(n, align, HEAPTIER_CALLER())) return p;             \
    return nothrow_failed(n, a);                                                  \
  }

#define HEAPTIER_DELETE(OPERATOR)                                                            \
  HEAPTIER_EXPORT void OPERATOR(void* p) noexcept {                                          \
    release(p);                                                                              \
  }                                                                                          \
  HEAPTIER_EXPORT void OPERATOR(void* p, const std::nothrow_t&) noexcept {                   \
    release(p);                                                                              \
  }                                                                                          \
  HEAPTIER_EXPORT void OPERATOR(void* p, std::size_t n) noexcept {                           \
    release_sized(p, n);                                                                     \
  }                                                                                          \
  HEAPTIER_EXPORT void OPERATOR(void* p, std::align_val_t) noexcept {                        \
    release(p);                                                                              \
  }                                                                                          \
  HEAPTIER_EXPORT void OPERATOR(void* p, std::align_val_t, const std::nothrow_t&) noexcept { \
    release(p);                                                                              \
  }                                                                                          \
  HEAPTIER_EXPORT void OPERATOR(void* p, std::size_t n, std::align_val_t a) noexcept {       \
    release_aligned(p, n, static_cast<std::size_t>(a));                                      \
  }

HEAPTIER_NEW(operator new)
HEAPTIER_NEW(operator new[])
HEAPTIER_DELETE(operator delete)
HEAPTIER_DELETE(operator delete[])
