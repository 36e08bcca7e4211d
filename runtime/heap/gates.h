// The two questions malloc and free ask before they take the short way, each one subtraction and
// one comparison. Read by every call, written a handful of times in a process' life.
//
// Thread rule: relaxed loads. Whoever closes a gate does so before the pointer that needs the long
// way is handed out, so that no thread can hold such a pointer and still see the gate open.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace heaptier {

// A heap that serves in jemalloc's place.
struct OtherHeap {
  void* (*malloc)(std::size_t);
  void* (*calloc)(std::size_t, std::size_t);
  void* (*realloc)(void*, std::size_t);
  void* (*aligned_alloc)(std::size_t align, std::size_t bytes);
  void (*free)(void*);
};

struct alignas(64) Gates {
  // malloc: a caller in [call_start, +call_bytes) takes the long way. Everybody does until heaptier
  // is ready, while the engine wants to be woken, and where jemalloc is not the heap.
  std::atomic<std::uintptr_t> call_start{0};
  std::atomic<std::size_t> call_bytes{~std::size_t{0}};
  // free: a pointer in [free_start, +free_bytes) belongs to jemalloc's ordinary arenas and nothing
  // more need be known of it. 0 bytes: always the long way.
  std::atomic<std::uintptr_t> free_start{0};
  std::atomic<std::size_t> free_bytes{0};

  // The long way has two short cuts, both closed while nobody may pass. Callers in libc that ask on
  // the application's behalf (strdup), as they become known:
  static constexpr std::size_t kGivers = 64;
  std::atomic<bool> givers_pass{false};
  std::atomic<std::uintptr_t> givers[kGivers] = {};
  // And, where another heap serves, its functions, for callers outside of libc:
  std::atomic<const OtherHeap*> other_serves{nullptr};
  std::atomic<std::uintptr_t> libc_start{0};
  std::atomic<std::size_t> libc_bytes{0};
  // Pointers in [other_start, +other_bytes) are that heap's. No bytes while there is none.
  std::atomic<std::uintptr_t> other_start{0};
  std::atomic<std::size_t> other_bytes{0};
  std::atomic<const OtherHeap*> other_owns{nullptr};

  // Memory has run out once, or address space is limited. The long way knows what to do when a heap
  // has none left (give back what it keeps for reuse, and try again), so that everybody takes it
  // from then on.
  std::atomic<bool> memory_is_short{false};

  void close_calls() {
    givers_pass.store(false, std::memory_order_relaxed);
    other_serves.store(nullptr, std::memory_order_relaxed);
    call_bytes.store(~std::size_t{0}, std::memory_order_relaxed);
  }
  void short_of_memory() {
    memory_is_short.store(true, std::memory_order_relaxed);
    close_calls();
  }

  bool long_way_from(std::uintptr_t caller) const { return within(caller, call_start, call_bytes); }
  bool short_way_for(const void* p) const {
    return within(reinterpret_cast<std::uintptr_t>(p), free_start, free_bytes);
  }
  std::atomic<std::uintptr_t>& giver(std::uintptr_t caller) {
    return givers[(caller ^ (caller >> 6)) % kGivers];
  }
  bool gives(std::uintptr_t caller) {
    return givers_pass.load(std::memory_order_relaxed) &&
           giver(caller).load(std::memory_order_relaxed) == caller;
  }
  // The other heap, if it serves this caller.
  const OtherHeap* other_for(std::uintptr_t caller) {
    const OtherHeap* other = other_serves.load(std::memory_order_relaxed);
    if (other == nullptr) return nullptr;
    if (within(caller, libc_start, libc_bytes)) [[unlikely]]
      return gives(caller) ? other : nullptr;
    return other;
  }
  bool other_way_for(const void* p) const {
    return within(reinterpret_cast<std::uintptr_t>(p), other_start, other_bytes);
  }

 private:
  // at - start < bytes. Compilers load atomics into registers first, which is four instructions
  // more: 3 % of a malloc and free that take 20 cycles together.
  static bool within(std::uintptr_t at, const std::atomic<std::uintptr_t>& start,
                     const std::atomic<std::size_t>& bytes) {
#if defined(__x86_64__)
    bool below;
    asm("sub %[start], %[at]\n\tcmp %[bytes], %[at]"
        : "=@ccb"(below), [at] "+r"(at)
        : [start] "m"(start), [bytes] "m"(bytes));
    return below;
#else
    return at - start.load(std::memory_order_relaxed) < bytes.load(std::memory_order_relaxed);
#endif
  }
};

extern constinit Gates gates;

}  // namespace heaptier
