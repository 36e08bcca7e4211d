// The part of heaptier.h that is about heaps.
#include <atomic>
#include <bit>

#include "preload/next_heap.h"
#include "preload/process.h"
#include "runtime/base/errno.h"
#include "runtime/engine.h"
#include "runtime/heap/jemalloc_heap.h"
#include "runtime/include/heaptier/heaptier.h"

extern "C" void free(void*) noexcept;

struct heaptier_heap {
  std::atomic<bool> taken{false};
  heaptier::HeapArena arena;  // none: heaptier stands aside, the next heap serves
  unsigned flags = 0;         // of the arena, which is kept when the heap is given back
};

namespace {

constinit heaptier_heap heaps[64];

using heaptier::preload::Mode;

bool stands_aside() {
  return !heaptier::preload::boot() || heaptier::preload::mode() == Mode::kNext;
}

// A heap that was given back, with an arena of this kind.
heaptier_heap* take_given_back(unsigned flags) {
  for (heaptier_heap& heap : heaps) {
    if (heap.taken.load(std::memory_order_relaxed) || heap.taken.exchange(true)) continue;
    if (heap.arena != heaptier::HeapArena{} && heap.flags == flags) return &heap;
    heap.taken.store(false);
  }
  return nullptr;
}

}  // namespace

heaptier_heap* heaptier_heap_create(unsigned flags) {
  constexpr unsigned kKinds = HEAPTIER_HEAP_UNMOVABLE | HEAPTIER_HEAP_RECLAIMABLE;
  const unsigned kind = flags & kKinds;
  if ((flags & ~(kKinds | HEAPTIER_HEAP_USER_ONLY)) != 0 || kind == kKinds) return nullptr;
  const heaptier::Mobility mobility =
      kind == HEAPTIER_HEAP_UNMOVABLE     ? heaptier::Mobility::kUnmovable
      : kind == HEAPTIER_HEAP_RECLAIMABLE ? heaptier::Mobility::kReclaimable
                                          : heaptier::Mobility::kMovable;
  heaptier::ErrnoKeeper keep;
  if (heaptier_heap* again = take_given_back(flags)) return again;
  for (heaptier_heap& heap : heaps) {
    if (heap.taken.load(std::memory_order_relaxed) || heap.taken.exchange(true)) continue;
    if (stands_aside()) return &heap;
    if (heap.arena != heaptier::HeapArena{}) {  // of another kind
      heap.taken.store(false);
      continue;
    }
    heap.flags = flags;
    heap.arena = heaptier::jemalloc::create_arena(mobility, (flags & HEAPTIER_HEAP_USER_ONLY) != 0);
    if ((flags & HEAPTIER_HEAP_USER_ONLY) != 0) heaptier::engine().expect_user_only();
    if (heap.arena != heaptier::HeapArena{}) return &heap;
    heap.taken.store(false);
    return nullptr;
  }
  return nullptr;
}

void* heaptier_heap_alloc(heaptier_heap* heap, size_t bytes, size_t align) {
  if (heap == nullptr || (align != 0 && !std::has_single_bit(align))) return nullptr;
  heaptier::ErrnoKeeper keep;
  if (heap->arena == heaptier::HeapArena{})
    return heaptier::next_heap::allocate(bytes, align, false);
  return heaptier::jemalloc::allocate_in(heap->arena, bytes, align == 0 ? 16 : align, false);
}

void heaptier_heap_destroy(heaptier_heap* heap) {
  if (heap != nullptr) heap->taken.store(false);
}

void heaptier_free(void* p) {
  free(p);
}
