// Pointers that are not heaptier's: libc's own, and none at all.
#include <dlfcn.h>
#include <malloc.h>

#include <cerrno>
#include <cstdint>
#include <initializer_list>

#include "tests/preload/abi/check.h"

namespace {

template <class F>
F* libc_function(const char* name) {
  void* libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
  return libc == nullptr ? nullptr : reinterpret_cast<F*>(dlsym(libc, name));
}

alignas(64) char never_allocated[4096];

}  // namespace

GROUP(pointers_of_libc) {
  auto* libc_malloc = libc_function<void*(std::size_t)>("malloc");
  auto* libc_memalign = libc_function<void*(std::size_t, std::size_t)>("memalign");
  CHECK(libc_malloc != nullptr && libc_malloc != std::malloc);
  for (std::size_t n : {1uL, 24uL, 100uL, 5000uL, 100000uL, 1uL << 20, 40uL << 20}) {
    std::free(libc_malloc(n));
    void* p = libc_malloc(n);
    std::memset(p, 3, n);
    CHECK(malloc_usable_size(p) >= n);
    p = std::realloc(p, 2 * n);
    CHECK(p != nullptr);
    for (std::size_t i = 0; i < n; i += 100) CHECK(static_cast<char*>(p)[i] == 3);
    std::free(p);
    std::free(libc_memalign(64, n));
  }
}

GROUP(pointers_of_nobody) {
  if (abi::heap_is("none")) throw abi::Skipped{"libc aborts on them, and libc serves"};
  errno = 5;
  for (int i = 0; i < 64; i += 16) std::free(abi::opaque(&never_allocated[64 + i]));
  std::memset(never_allocated, 0xff, sizeof(never_allocated));
  for (int i = 0; i < 64; ++i) std::free(abi::opaque(&never_allocated[64 + i]));
  CHECK(errno == 5);
  CHECK(std::realloc(abi::opaque(&never_allocated[64]), 10) == nullptr);
  CHECK(malloc_usable_size(abi::opaque(&never_allocated[64])) == 0);
}
