// What programs ask about the heap, and tell it: answered by jemalloc's books in the terms of
// libc's.
#include <malloc.h>
#include <stdio.h>

#include <algorithm>
#include <climits>

#include "preload/next_heap.h"
#include "preload/process.h"
#include "runtime/heap/jemalloc_heap.h"
#include "runtime/heap/mimalloc_heap.h"
#include "runtime/os/process.h"

#define HEAPTIER_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using heaptier::next_heap::next_symbol;

// True when heaptier stands aside; *next is then the function of that name of whoever serves.
template <class F>
bool stands_aside(const char* name, F** next) {
  if (!heaptier::preload::boot() || heaptier::preload::mode() != heaptier::preload::Mode::kNext) {
    return false;
  }
  *next = reinterpret_cast<F*>(next_symbol(name));
  return *next != nullptr;
}

// mimalloc keeps no books that can be read: what it has of the Space counts as in use.
heaptier::jemalloc::Usage heap_usage() {
  heaptier::jemalloc::Usage u = heaptier::jemalloc::usage();
  if (heaptier::preload::mode() != heaptier::preload::Mode::kMimalloc) return u;
  const std::size_t carved = heaptier::preload::process().space.carved_bytes();
  const std::size_t other = carved - std::min(carved, u.mapped + u.metadata);
  u.allocated += other;
  u.active += other;
  u.mapped += other;
  u.resident += other;
  return u;
}

}  // namespace

HEAPTIER_EXPORT struct mallinfo2 mallinfo2() noexcept {
  struct mallinfo2 (*next)();
  if (stands_aside("mallinfo2", &next)) return next();
  const heaptier::jemalloc::Usage u = heap_usage();
  struct mallinfo2 info = {};
  info.arena = u.mapped;
  info.uordblks = u.allocated;
  info.fordblks = u.mapped - std::min(u.mapped, u.allocated);
  info.keepcost = u.mapped - std::min(u.mapped, u.active);
  return info;
}

HEAPTIER_EXPORT struct mallinfo mallinfo() noexcept {
  struct mallinfo (*next)();
  if (stands_aside("mallinfo", &next)) return next();
  const struct mallinfo2 wide = mallinfo2();
  const auto narrow = [](std::size_t n) {
    return static_cast<int>(std::min<std::size_t>(n, INT_MAX));
  };
  struct mallinfo info = {};
  info.arena = narrow(wide.arena);
  info.uordblks = narrow(wide.uordblks);
  info.fordblks = narrow(wide.fordblks);
  info.keepcost = narrow(wide.keepcost);
  return info;
}

HEAPTIER_EXPORT int malloc_trim(std::size_t pad) noexcept {
  int (*next)(std::size_t);
  if (stands_aside("malloc_trim", &next)) return next(pad);
  heaptier::jemalloc::purge();
  if (heaptier::preload::mode() == heaptier::preload::Mode::kMimalloc) {
    heaptier::mimalloc::collect();
  }
  return 1;
}

// libc's parameters have no counterpart; a program that sets them is told that it worked, as libc
// does for values it then ignores.
HEAPTIER_EXPORT int mallopt(int parameter, int value) noexcept {
  int (*next)(int, int);
  if (stands_aside("mallopt", &next)) return next(parameter, value);
  return 1;
}

HEAPTIER_EXPORT void malloc_stats() noexcept {
  void (*next)();
  if (stands_aside("malloc_stats", &next)) return next();
  const heaptier::jemalloc::Usage u = heap_usage();
  char text[256];
  const int length =
      snprintf(text, sizeof(text),
               "heaptier: in use %zu bytes, mapped %zu, resident %zu, metadata %zu, retained %zu\n",
               u.allocated, u.mapped, u.resident, u.metadata, u.retained);
  if (length > 0) (void)heaptier::os::write_all(2, text, static_cast<std::size_t>(length));
}

HEAPTIER_EXPORT int malloc_info(int options, FILE* out) noexcept {
  int (*next)(int, FILE*);
  if (stands_aside("malloc_info", &next)) return next(options, out);
  if (options != 0) return 22;  // EINVAL, as libc says it
  const heaptier::jemalloc::Usage u = heap_usage();
  fprintf(out,
          "<malloc version=\"heaptier-1\">\n"
          "<total type=\"rest\" count=\"0\" size=\"%zu\"/>\n"
          "<system type=\"current\" size=\"%zu\"/>\n"
          "<system type=\"max\" size=\"%zu\"/>\n"
          "<aspace type=\"total\" size=\"%zu\"/>\n"
          "</malloc>\n",
          u.mapped - std::min(u.mapped, u.allocated), u.mapped, u.mapped, u.mapped + u.retained);
  return 0;
}
