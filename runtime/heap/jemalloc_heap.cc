#include "runtime/heap/jemalloc_heap.h"

#include <atomic>
#include <bit>

#include "runtime/base/errno.h"
#include "runtime/base/spinlock.h"
#include "runtime/heap/gates.h"
#include "runtime/heap/jemalloc_link.h"

extern "C" {
// Read by jemalloc as it starts: the first gives way to the user's MALLOC_CONF, the second does
// not.
extern const char* je_malloc_conf_2_conf_harder;
// 5.3.0 has this setting, and no name for it in the two above.
extern bool je_opt_cache_oblivious;
}

namespace heaptier {

constinit Gates gates;

namespace jemalloc {

constinit Link link;

namespace {

// Not for the user to change: what heaptier relies on, and what could end the process. Nothing is
// retained: an extent that is not wanted goes back to the Space, where any arena finds it, and
// where pageblocks become free again as a whole.
constexpr char kFixedConf[] =
    "retain:false,oversize_threshold:0,metadata_thp:disabled,dss:disabled,hpa:false,"
    "background_thread:false,trust_madvise:true,prof:false,san_guard_small:0,san_guard_large:0,"
    "abort:false,abort_conf:false,experimental_infallible_new:false";

constexpr char kConf[] = "muzzy_decay_ms:0";

// The process-wide arena of a mobility, made at its first use, with a cache of its own: jemalloc's
// thread caches mix arenas, and going without costs a lock and a search for every object. Whoever
// finds the cache taken does go without.
struct SharedArena {
  constexpr explicit SharedArena(Mobility m) : mobility(m) {}
  const Mobility mobility;
  SpinLock lock;
  std::atomic<unsigned> arena{0};
  std::atomic<int> cache{-1};
};

constinit SharedArena reclaimable_arena{Mobility::kReclaimable};
constinit SharedArena unmovable_arena{Mobility::kUnmovable};

SharedArena* shared(Mobility mobility) {
  return mobility == Mobility::kReclaimable ? &reclaimable_arena : &unmovable_arena;
}

int align_flag(std::size_t align) {
  return align == 0 ? 0 : MALLOCX_LG_ALIGN(std::countr_zero(align));
}

// Makes the arena and its cache. The lock is not held meanwhile: two threads may both make one, and
// one of them is left unused.
HeapArena ready(SharedArena* s) {
  if (unsigned a = s->arena.load(std::memory_order_acquire); a != 0) return {a};
  unsigned made = create_arena(s->mobility, false).v;
  if (made == 0) return {};
  unsigned expected = 0;
  if (!s->arena.compare_exchange_strong(expected, made, std::memory_order_acq_rel)) {
    return {expected};
  }
  unsigned cache = 0;
  std::size_t size = sizeof(cache);
  if (je_mallctl("tcache.create", &cache, &size, nullptr, 0) == 0) {
    s->cache.store(static_cast<int>(cache), std::memory_order_release);
  }
  return {made};
}

// Takes the cache of `s` for one call, if there is one and nobody else has it.
class CacheHold {
 public:
  explicit CacheHold(SharedArena* s) : arena_(s) {
    if (s == nullptr) return;
    const int cache = s->cache.load(std::memory_order_acquire);
    if (cache < 0 || !s->lock.try_lock()) return;
    held_ = true;
    flags_ = MALLOCX_TCACHE(cache);
  }
  ~CacheHold() {
    if (held_) arena_->lock.unlock();
  }
  CacheHold(const CacheHold&) = delete;
  CacheHold& operator=(const CacheHold&) = delete;
  int flags() const { return flags_; }

 private:
  SharedArena* arena_;
  bool held_ = false;
  int flags_ = MALLOCX_TCACHE_NONE;
};

// The shared arena whose cache may take the object: all memory of one mobility is alike, be it of
// the process-wide arena or of a heap of the application's. nullptr: none may.
SharedArena* cache_for(const void* p) {
  const BlockIndex block = block_of(link.space->page_at(reinterpret_cast<std::uintptr_t>(p)));
  if (link.space->owner_of(block) != Owner::kJemalloc) return nullptr;
  const Mobility mobility = link.space->mobility_of(block);
  return mobility == Mobility::kMovable ? nullptr : shared(mobility);
}

}  // namespace

void init(Space& space, ContentSink& sink, MemoryOps& ops) {
  link = {&space, &sink, &ops};
  je_malloc_conf = kConf;
  // A large object fills its pageblocks, without a page in front of it to colour the cache.
  je_opt_cache_oblivious = false;
  je_malloc_conf_2_conf_harder = kFixedConf;
  const AddressRange zone = space.ordinary_zone();
  gates.free_start.store(zone.start, std::memory_order_relaxed);
  gates.free_bytes.store(zone.bytes, std::memory_order_relaxed);
}

HeapArena create_arena(Mobility mobility, bool user_only) {
  ErrnoKeeper keep;
  auto* hooks = const_cast<extent_hooks_t*>(&hooks_for(mobility, user_only).table);
  unsigned arena = 0;
  std::size_t size = sizeof(arena);
  if (je_mallctl("arenas.create", &arena, &size, static_cast<void*>(&hooks), sizeof(hooks)) != 0) {
    return {};
  }
  return {arena};
}

void* allocate(Mobility mobility, std::size_t bytes, std::size_t align, bool zeroed) {
  SharedArena* s = shared(mobility);
  const HeapArena arena = ready(s);
  if (arena.v == 0) return nullptr;
  CacheHold cache(s);
  return je_mallocx(bytes == 0 ? 1 : bytes, static_cast<int>(MALLOCX_ARENA(arena.v)) |
                                                cache.flags() | align_flag(align) |
                                                (zeroed ? MALLOCX_ZERO : 0));
}

void* allocate_in(HeapArena arena, std::size_t bytes, std::size_t align, bool zeroed) {
  return je_mallocx(bytes == 0 ? 1 : bytes, static_cast<int>(MALLOCX_ARENA(arena.v)) |
                                                MALLOCX_TCACHE_NONE | align_flag(align) |
                                                (zeroed ? MALLOCX_ZERO : 0));
}

void release(void* p) {
  ErrnoKeeper keep;
  CacheHold cache(cache_for(p));
  je_dallocx(p, cache.flags());
}

void* reallocate(void* p, std::size_t bytes) {
  unsigned arena = 0;
  std::size_t size = sizeof(arena);
  void* key = p;
  if (je_mallctl("arenas.lookup", &arena, &size, static_cast<void*>(&key), sizeof(key)) != 0) {
    return nullptr;
  }
  CacheHold cache(cache_for(p));
  return je_rallocx(p, bytes == 0 ? 1 : bytes,
                    static_cast<int>(MALLOCX_ARENA(arena)) | cache.flags());
}

void purge() {
  je_mallctl("thread.tcache.flush", nullptr, nullptr, nullptr, 0);
  je_mallctl(
      "arena."
      "4096"
      ".purge",
      nullptr, nullptr, nullptr, 0);  // MALLCTL_ARENAS_ALL
}

void set_dirty_decay(long ms) {
  std::ptrdiff_t value = ms;
  je_mallctl("arenas.dirty_decay_ms", nullptr, nullptr, &value, sizeof(value));
  unsigned count = 0;
  std::size_t size = sizeof(count);
  if (je_mallctl("arenas.narenas", &count, &size, nullptr, 0) != 0) return;
  std::size_t mib[3];
  std::size_t depth = 3;
  if (je_mallctlnametomib("arena.0.dirty_decay_ms", mib, &depth) != 0) return;
  for (unsigned i = 0; i < count; ++i) {
    mib[1] = i;
    je_mallctlbymib(mib, depth, nullptr, nullptr, &value, sizeof(value));  // ENOENT: not made yet
  }
}

void lock_for_fork() {
  reclaimable_arena.lock.lock();
  unmovable_arena.lock.lock();
}

void unlock_after_fork() {
  unmovable_arena.lock.unlock();
  reclaimable_arena.lock.unlock();
}

Usage usage() {
  std::uint64_t epoch = 1;
  std::size_t size = sizeof(epoch);
  je_mallctl("epoch", &epoch, &size, &epoch, sizeof(epoch));
  Usage u;
  const struct {
    const char* name;
    std::size_t* out;
  } fields[] = {{"stats.allocated", &u.allocated}, {"stats.active", &u.active},
                {"stats.metadata", &u.metadata},   {"stats.resident", &u.resident},
                {"stats.mapped", &u.mapped},       {"stats.retained", &u.retained}};
  for (const auto& f : fields) {
    size = sizeof(*f.out);
    je_mallctl(f.name, f.out, &size, nullptr, 0);
  }
  return u;
}

}  // namespace jemalloc
}  // namespace heaptier
