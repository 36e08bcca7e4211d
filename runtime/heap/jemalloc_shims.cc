// What the embedded jemalloc calls instead of libc and instead of itself (embed_jemalloc.sh).
#include <cerrno>
#include <cstdint>

#include "runtime/heap/jemalloc_heap.h"
#include "runtime/heap/jemalloc_link.h"
#include "runtime/os/advice.h"

namespace heaptier {
namespace {

struct ForkHandlers {
  void (*prepare)() = nullptr;
  void (*parent)() = nullptr;
  void (*child)() = nullptr;
};
constinit ForkHandlers fork_handlers;

constexpr int kMapFixed = 0x10;  // MAP_FIXED; the header belongs to the kernel's door

}  // namespace

void jemalloc_fork_prepare() {
  jemalloc::lock_for_fork();
  if (fork_handlers.prepare != nullptr) fork_handlers.prepare();
}
void jemalloc_fork_parent() {
  if (fork_handlers.parent != nullptr) fork_handlers.parent();
  jemalloc::unlock_after_fork();
}
void jemalloc_fork_child() {
  if (fork_handlers.child != nullptr) fork_handlers.child();
  jemalloc::unlock_after_fork();
}

namespace jemalloc {

extern "C" {

// Metadata, and pages to try the kernel's behaviour on. Never at a given address: jemalloc asks for
// that only to change the protection of extents of the default hooks, of which there are none.
void* heaptier_je_mmap(void* addr, std::size_t bytes, int, int flags, int, long) {
  void* failed = reinterpret_cast<void*>(~std::uintptr_t{0});
  if (addr != nullptr || (flags & kMapFixed) != 0) {
    errno = ENOMEM;
    return failed;
  }
  bytes = round_up(bytes, kPageSize);
  void* p = link.space->allocate(bytes, kPageSize, Mobility::kUnmovable, Owner::kAllocatorMetadata);
  if (p == nullptr) {
    errno = ENOMEM;
    return failed;
  }
  // Blocks of 2 MiB, an arena each, of which little is used: a huge page would fill all of it.
  (void)link.ops->advise(reinterpret_cast<std::uintptr_t>(p), bytes, os::kAdviceNoHuge);
  return p;
}

int heaptier_je_munmap(void* addr, std::size_t bytes) {
  bytes = round_up(bytes, kPageSize);
  // Whoever has the place next may have huge pages there.
  if (link.ops->renew(reinterpret_cast<std::uintptr_t>(addr), bytes).ok()) {
    link.space->release(addr, bytes);
  }
  return 0;
}

int heaptier_je_madvise(void* addr, std::size_t bytes, int advice) {
  const Errno e = link.ops->advise(reinterpret_cast<std::uintptr_t>(addr), bytes, advice);
  if (e.ok()) return 0;
  errno = e.code;
  return -1;
}

// Only guard pages would need it, and they are off.
int heaptier_je_mprotect(void*, std::size_t, int) {
  errno = ENOTSUP;
  return -1;
}

void* heaptier_je_sbrk(std::intptr_t) {
  errno = ENOMEM;
  return reinterpret_cast<void*>(~std::uintptr_t{0});
}

int heaptier_je_pthread_atfork(void (*prepare)(), void (*parent)(), void (*child)()) {
  fork_handlers = {prepare, parent, child};
  return 0;
}

// Heap profiling is compiled into Debian's jemalloc and off here (jemalloc_heap.cc). Its needs
// would bring libm and the unwinder into every process; these are never called.
int heaptier_je__Unwind_Backtrace(void*, void*) {
  return 5;
}  // _URC_END_OF_STACK
std::uintptr_t heaptier_je__Unwind_GetIP(void*) {
  return 0;
}
double heaptier_je_exp(double) {
  return 0;
}
double heaptier_je_log(double) {
  return 0;
}
double heaptier_je_round(double x) {
  return x;
}

// jemalloc's own, with the signatures of 5.3.0 (CMakeLists.txt checks the version). Types it keeps
// to itself are void here.
void* je_base_new(void* tsdn, unsigned index, const extent_hooks_t* hooks, bool for_metadata);
extent_hooks_t* je_base_extent_hooks_set(void* base, extent_hooks_t* hooks);
void* je_b0get();
bool je_base_boot(void* tsdn);
bool je_pac_init(void* tsdn, void* pac, void* base, void* emap, void* edata_cache, void* now,
                 std::size_t oversize, std::ptrdiff_t dirty_ms, std::ptrdiff_t muzzy_ms,
                 void* stats, void* stats_mutex);
extern const extent_hooks_t je_ehooks_default_extent_hooks;

// Every arena but the first is made here: an automatic one with the movable hooks; all with their
// metadata on the default ones, which is mmap, above.
void* heaptier_je_base_new(void* tsdn, unsigned index, const extent_hooks_t* hooks, bool) {
  if (hooks == &je_ehooks_default_extent_hooks) hooks = &hooks_for(Mobility::kMovable, false).table;
  return je_base_new(tsdn, index, hooks, false);
}

// Arena 0 uses the base that is made here.
bool heaptier_je_base_boot(void* tsdn) {
  if (je_base_boot(tsdn)) return true;
  auto& hooks = const_cast<extent_hooks_t&>(hooks_for(Mobility::kMovable, false).table);
  je_base_extent_hooks_set(je_b0get(), &hooks);
  return false;
}

// Free extents that have grown together to `oversize` would be given back at once rather than as
// they age. Arena 0 is made before jemalloc has read our wish not to (oversize_threshold:0), and
// ours do grow together.
bool heaptier_je_pac_init(void* tsdn, void* pac, void* base, void* emap, void* edata_cache,
                          void* now, std::size_t, std::ptrdiff_t dirty_ms, std::ptrdiff_t muzzy_ms,
                          void* stats, void* stats_mutex) {
  return je_pac_init(tsdn, pac, base, emap, edata_cache, now, SIZE_MAX, dirty_ms, muzzy_ms, stats,
                     stats_mutex);
}

}  // extern "C"
}  // namespace jemalloc
}  // namespace heaptier
