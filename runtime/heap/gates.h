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

struct alignas(64) Gates {
  // malloc: a caller in [call_start, +call_bytes) takes the long way. Everybody does until heaptier
  // is ready, while the engine wants to be woken, and where jemalloc is not the heap.
  std::atomic<std::uintptr_t> call_start{0};
  std::atomic<std::size_t> call_bytes{~std::size_t{0}};
  // free: a pointer in [free_start, +free_bytes) belongs to jemalloc's ordinary arenas and nothing
  // more need be known of it. 0 bytes: always the long way.
  std::atomic<std::uintptr_t> free_start{0};
  std::atomic<std::size_t> free_bytes{0};

  // Where jemalloc is not the heap, the long way has a short cut: pointers in [other_start,
  // +other_bytes) are the other heap's, and these are its functions. Null: there is none.
  std::atomic<std::uintptr_t> other_start{0};
  std::atomic<std::size_t> other_bytes{0};
  std::atomic<void* (*)(std::size_t)> other_malloc{nullptr};
  std::atomic<void (*)(void*)> other_free{nullptr};
  // libc's code, for the callers that even then take the long way.
  std::atomic<std::uintptr_t> libc_start{0};
  std::atomic<std::size_t> libc_bytes{0};

  bool long_way_from(std::uintptr_t caller) const {
    return caller - call_start.load(std::memory_order_relaxed) <
           call_bytes.load(std::memory_order_relaxed);
  }
  bool short_way_for(const void* p) const {
    return reinterpret_cast<std::uintptr_t>(p) - free_start.load(std::memory_order_relaxed) <
           free_bytes.load(std::memory_order_relaxed);
  }
  bool other_way_for(const void* p) const {
    return reinterpret_cast<std::uintptr_t>(p) - other_start.load(std::memory_order_relaxed) <
           other_bytes.load(std::memory_order_relaxed);
  }
};

extern constinit Gates gates;

}  // namespace heaptier
