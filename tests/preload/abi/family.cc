// Every entry point of the malloc family, by itself and with the others.
#include <dlfcn.h>
#include <malloc.h>

#include <cerrno>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "tests/preload/abi/check.h"

using abi::opaque;

namespace {

std::uintptr_t address(const void* p) {
  return reinterpret_cast<std::uintptr_t>(p);
}

bool all_bytes(const void* p, unsigned char value, std::size_t n) {
  const auto* bytes = static_cast<const unsigned char*>(p);
  for (std::size_t i = 0; i < n; ++i) {
    if (bytes[i] != value) return false;
  }
  return true;
}

// What C promises: fit for any object of that size.
std::size_t natural_alignment(std::size_t bytes) {
  return bytes >= 16 ? 16 : bytes >= 8 ? 8 : 1;
}

constexpr std::size_t kSizes[] = {0,
                                  1,
                                  7,
                                  8,
                                  9,
                                  15,
                                  16,
                                  17,
                                  100,
                                  255,
                                  1024,
                                  4095,
                                  4096,
                                  4097,
                                  32768,
                                  32769,
                                  65536,
                                  1 << 20,
                                  (2 << 20) - 1,
                                  2 << 20,
                                  (2 << 20) + 1,
                                  5 << 20,
                                  40 << 20};

}  // namespace

GROUP(come_from_heaptier) {
  for (const char* name : {"malloc",
                           "free",
                           "calloc",
                           "realloc",
                           "reallocarray",
                           "aligned_alloc",
                           "memalign",
                           "posix_memalign",
                           "valloc",
                           "pvalloc",
                           "malloc_usable_size",
                           "mallinfo",
                           "mallinfo2",
                           "malloc_trim",
                           "mallopt",
                           "malloc_stats",
                           "malloc_info",
                           "cfree",
                           "_Znwm",
                           "_Znam",
                           "_ZdlPv",
                           "_ZdaPv",
                           "_ZdlPvm",
                           "_ZnwmSt11align_val_t",
                           "_ZdlPvmSt11align_val_t",
                           "mmap",
                           "munmap",
                           "madvise",
                           "mprotect",
                           "mremap",
                           "mlock",
                           "pthread_create",
                           "sigaction",
                           "_Fork",
                           "heaptier_state",
                           "heaptier_heap_create"}) {
    void* at = dlsym(RTLD_DEFAULT, name);
    Dl_info info;
    const bool ours = at != nullptr && dladdr(at, &info) != 0 &&
                      std::strstr(info.dli_fname, "libheaptier") != nullptr;
    if (!ours) std::fprintf(stderr, "%s is not heaptier's\n", name);
    CHECK(ours);
  }
}

GROUP(shows_nothing_else) {
  for (const char* name : {"je_malloc", "je_free", "mi_malloc", "LZ4_compress_default"}) {
    CHECK(dlsym(RTLD_DEFAULT, name) == nullptr);
  }
}

GROUP(malloc_family) {
  for (std::size_t n : kSizes) {
    char* p = static_cast<char*>(std::malloc(opaque(n)));
    CHECK(p != nullptr);
    CHECK(address(p) % natural_alignment(n) == 0);
    CHECK(malloc_usable_size(p) >= n);
    std::memset(p, 0x5a, malloc_usable_size(p));
    std::free(p);

    p = static_cast<char*>(std::calloc(opaque(n), 1));
    CHECK(p != nullptr && all_bytes(p, 0, n));
    if (n > 0) std::memset(p, 0xa5, n);
    p = static_cast<char*>(std::realloc(p, n + 1));
    CHECK(p != nullptr && all_bytes(p, 0xa5, n));
    p = static_cast<char*>(reallocarray(p, 2, n + 1));
    CHECK(p != nullptr && all_bytes(p, 0xa5, n));
    p = static_cast<char*>(std::realloc(p, n / 2 + 1));
    CHECK(p != nullptr && all_bytes(p, 0xa5, n / 2));
    std::free(p);
    p = static_cast<char*>(std::realloc(nullptr, opaque(n)));
    CHECK(p != nullptr);
    std::free(p);
    p = static_cast<char*>(reallocarray(nullptr, n, 1));
    CHECK(p != nullptr);
    std::free(p);
  }
  std::free(nullptr);
  CHECK(malloc_usable_size(nullptr) == 0);
}

GROUP(two_of_nothing_are_two) {
  void* a = std::malloc(opaque<std::size_t>(0));
  void* b = std::malloc(opaque<std::size_t>(0));
  CHECK(a != nullptr && b != nullptr && a != b);
  std::free(a);
  std::free(b);
}

GROUP(alignment_family) {
  for (std::size_t align = 8; align <= (64u << 20); align *= 2) {
    for (std::size_t n : {std::size_t{0}, std::size_t{1}, std::size_t{8}, std::size_t{100}, align,
                          align + 1, 3 * align}) {
      if (n > (80u << 20)) continue;
      void* p[3] = {};
      CHECK(posix_memalign(&p[0], align, n) == 0);
      p[1] = aligned_alloc(align, n);
      p[2] = memalign(align, n);
      for (void* q : p) {
        if (q == nullptr || address(q) % align != 0)
          std::fprintf(stderr, "align %zu, %zu bytes: %p\n", align, n, q);
        CHECK(q != nullptr && address(q) % align == 0);
        CHECK(malloc_usable_size(q) >= n);
        if (q != nullptr) std::memset(q, 1, n);
      }
      CHECK(p[0] != p[1] && p[1] != p[2]);
      std::free(p[0]);
      std::free(p[1]);
      p[2] = std::realloc(p[2], n + 100);
      CHECK(all_bytes(p[2], 1, n));
      std::free(p[2]);
    }
  }
  void* v = valloc(10);
  CHECK(v != nullptr && address(v) % 4096 == 0);
  std::free(v);
  v = pvalloc(5000);
  CHECK(v != nullptr && address(v) % 4096 == 0 && malloc_usable_size(v) >= 8192);
  std::free(v);
  v = memalign(opaque<std::size_t>(48), 100);  // libc takes the next power of two
  CHECK(v != nullptr && address(v) % 64 == 0);
  std::free(v);
}

GROUP(what_is_refused) {
  const std::size_t huge = opaque(SIZE_MAX);
  const std::size_t half = opaque(SIZE_MAX / 2 + 1);
  for (std::size_t n : {huge, huge - 4096, half, half - 1, std::size_t{1} << 60}) {
    errno = 0;
    CHECK(std::malloc(n) == nullptr && errno == ENOMEM);
    errno = 0;
    CHECK(std::calloc(n, 1) == nullptr && errno == ENOMEM);
    errno = 0;
    CHECK(aligned_alloc(4096, n & ~std::size_t{4095}) == nullptr && errno == ENOMEM);
    errno = 0;
    CHECK(valloc(n) == nullptr && errno == ENOMEM);
    errno = 0;
    CHECK(pvalloc(n) == nullptr && errno == ENOMEM);
  }
  errno = 0;
  CHECK(std::calloc(half, 2) == nullptr && errno == ENOMEM);
  errno = 0;
  CHECK(std::calloc(2, half) == nullptr && errno == ENOMEM);

  char* p = static_cast<char*>(std::malloc(100));
  std::memset(p, 7, 100);
  errno = 0;
  CHECK(std::realloc(opaque(p), huge - 4096) == nullptr && errno == ENOMEM);
  errno = 0;
  CHECK(reallocarray(opaque(p), half, 3) == nullptr && errno == ENOMEM);
  p = opaque(p);
  CHECK(all_bytes(p, 7, 100));
  std::free(p);

  void* out = &out;
  errno = 99;
  CHECK(posix_memalign(&out, 3, 10) == EINVAL);
  CHECK(posix_memalign(&out, 4, 10) == EINVAL);
  CHECK(posix_memalign(&out, 0, 10) == EINVAL);
  CHECK(posix_memalign(&out, 64, huge - 4096) == ENOMEM);
  CHECK(out == &out && errno == 99);
  errno = 0;
  CHECK(aligned_alloc(opaque<std::size_t>(24), 48) == nullptr && errno == EINVAL);
  errno = 0;
  CHECK(memalign(half + 1, 48) == nullptr && errno == EINVAL);
}

GROUP(free_keeps_errno) {
  for (std::size_t n : kSizes) {
    void* p = std::malloc(n);
    std::memset(p, 1, n);
    errno = 1234;
    std::free(p);
    CHECK(errno == 1234);
  }
  errno = 1234;
  std::free(nullptr);
  CHECK(errno == 1234);
}

GROUP(success_leaves_errno) {
  errno = 1234;
  for (std::size_t n : kSizes) {
    void* p = std::malloc(n);
    p = std::realloc(p, 2 * n + 1);
    std::free(p);
    std::free(std::calloc(n, 1));
  }
  CHECK(errno == 1234);
}

GROUP(calloc_is_zero_after_churn) {
  std::mt19937 random(1);
  std::vector<std::pair<unsigned char*, std::size_t>> live;
  for (int i = 0; i < 20000; ++i) {
    const std::size_t n = random() % 50 == 0 ? random() % (3 << 20) : random() % 5000;
    if (random() % 2 == 0) {
      auto* p = static_cast<unsigned char*>(std::calloc(1, n));
      CHECK(p != nullptr && all_bytes(p, 0, n));
      std::memset(p, 0xff, n);
      live.emplace_back(p, n);
    } else {
      auto* p = static_cast<unsigned char*>(std::malloc(n));
      std::memset(p, 0xff, n);
      live.emplace_back(p, n);
    }
    if (live.size() > 100) {
      std::swap(live[random() % live.size()], live.back());
      CHECK(all_bytes(live.back().first, 0xff, live.back().second));
      std::free(live.back().first);
      live.pop_back();
    }
  }
  for (auto& [p, n] : live) std::free(p);
}

GROUP(realloc_keeps_content) {
  std::mt19937 random(2);
  std::string model;
  char* p = nullptr;
  for (int i = 0; i < 3000; ++i) {
    const std::size_t n = random() % 10 == 0 ? random() % (4 << 20) : random() % 40000;
    p = static_cast<char*>(std::realloc(p, n + 1));
    const std::size_t common = std::min(model.size(), n);
    CHECK(std::memcmp(p, model.data(), common) == 0);
    model.resize(n);
    for (std::size_t k = common; k < n; k += 37) model[k] = static_cast<char>(random());
    std::memcpy(p, model.data(), n);
  }
  std::free(p);
}

GROUP(questions_about_the_heap) {
  const struct mallinfo2 before = mallinfo2();
  std::vector<void*> keep;
  for (int i = 0; i < 100; ++i) {
    keep.push_back(std::malloc(100000));
    std::memset(keep.back(), 1, 100000);
  }
  const struct mallinfo2 during = mallinfo2();
  // mimalloc's books cannot be read: there it is what it has taken, which may have been enough
  // before.
  CHECK(during.uordblks >= before.uordblks + (abi::heap_is("mimalloc") ? 0 : 9000000));
  CHECK(during.uordblks >= 10000000);
  auto* narrow = reinterpret_cast<struct mallinfo (*)()>(dlsym(RTLD_DEFAULT, "mallinfo"));
  CHECK(narrow().uordblks > 0);
  for (void* p : keep) std::free(p);
  CHECK(malloc_trim(0) == 0 || malloc_trim(0) == 1);
  CHECK(mallopt(M_MMAP_THRESHOLD, 1 << 20) == 1);
  char* text = nullptr;
  std::size_t length = 0;
  FILE* out = open_memstream(&text, &length);
  CHECK(malloc_info(0, out) == 0);
  std::fclose(out);
  CHECK(length > 0 && std::strstr(text, "<malloc") != nullptr);
  std::free(text);
  CHECK(malloc_info(1, stderr) != 0);
  malloc_stats();
}

GROUP(cfree_frees) {
  auto* cfree = reinterpret_cast<void (*)(void*)>(dlsym(RTLD_DEFAULT, "cfree"));
  CHECK(cfree != nullptr);
  for (int i = 0; i < 1000; ++i) cfree(std::malloc(1 << 20));
}
