#include "preload/next_heap.h"

#include <dlfcn.h>

#include <atomic>
#include <cstdint>

#include "preload/early_heap.h"
#include "runtime/base/units.h"

// Without its header, which belongs to the kernel's door; with 0 it only tells libc's idea of the
// break.
extern "C" void* sbrk(std::intptr_t) noexcept;

namespace heaptier::next_heap {
namespace {

struct Functions {
  void* (*malloc)(std::size_t);
  void* (*calloc)(std::size_t, std::size_t);
  void* (*realloc)(void*, std::size_t);
  void* (*memalign)(std::size_t, std::size_t);
  void (*free)(void*);
  std::size_t (*malloc_usable_size)(void*);
};

constinit Functions functions{};
constinit std::atomic<bool> ready{false};
// The thread that is looking them up (its thread pointer); dlsym may allocate.
constinit std::atomic<const void*> looking{nullptr};

template <class F>
void look_up(F*& out, const char* name) {
  out = reinterpret_cast<F*>(dlsym(RTLD_NEXT, name));
}

const Functions* table() {
  if (ready.load(std::memory_order_acquire)) return &functions;
  const void* self = __builtin_thread_pointer();
  const void* nobody = nullptr;
  if (!looking.compare_exchange_strong(nobody, self)) return nullptr;
  look_up(functions.malloc, "malloc");
  look_up(functions.calloc, "calloc");
  look_up(functions.realloc, "realloc");
  look_up(functions.memalign, "memalign");
  look_up(functions.free, "free");
  look_up(functions.malloc_usable_size, "malloc_usable_size");
  const bool complete = functions.malloc && functions.calloc && functions.realloc &&
                        functions.memalign && functions.free && functions.malloc_usable_size;
  ready.store(complete, std::memory_order_release);
  looking.store(nullptr, std::memory_order_release);
  return complete ? &functions : nullptr;
}

}  // namespace

void* next_symbol(const char* name) {
  return dlsym(RTLD_NEXT, name);
}

void* allocate(std::size_t bytes, std::size_t align, bool zeroed) {
  const Functions* f = table();
  if (f == nullptr) return early_heap::allocate(bytes, align);
  if (align > 16) return f->memalign(align, bytes);
  return zeroed ? f->calloc(1, bytes) : f->malloc(bytes);
}

void* reallocate(void* p, std::size_t bytes) {
  const Functions* f = table();
  return f == nullptr ? nullptr : f->realloc(p, bytes);
}

void release(void* p) {
  if (const Functions* f = table()) f->free(p);
}

std::size_t usable_size(void* p) {
  const Functions* f = table();
  return f == nullptr ? 0 : f->malloc_usable_size(p);
}

// glibc keeps the size of a chunk and three flags just below the object.
bool looks_like_libc(const void* p) {
  const auto at = reinterpret_cast<std::uintptr_t>(p);
  if (at % 16 != 0 || at % kPageSize == 0) return false;  // below the latter nothing may be mapped
  const std::size_t size = static_cast<const std::size_t*>(p)[-1];
  const std::size_t before = static_cast<const std::size_t*>(p)[-2];
  const std::size_t length = size & ~std::size_t{15};
  constexpr std::size_t kMapped = 2;
  constexpr std::size_t kOtherArena = 4;
  if (length < 32 || (size & 8) != 0) return false;
  if ((size & kMapped) != 0) {
    return (at - 16 - before) % kPageSize == 0 && (length + before) % kPageSize == 0;
  }
  if ((size & kOtherArena) != 0) return true;
  const auto end = reinterpret_cast<std::uintptr_t>(sbrk(0));
  constexpr std::uintptr_t kLongestBreak = std::uintptr_t{1} << 40;
  return at < end && end - at < kLongestBreak && length <= end - at + 16;
}

void release_foreign(void* p) {
  if (looks_like_libc(p)) release(p);
}

}  // namespace heaptier::next_heap
