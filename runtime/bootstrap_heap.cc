#include "runtime/bootstrap_heap.h"

#include <atomic>
#include <bit>
#include <cstdint>
#include <cstring>

#include "runtime/base/spinlock.h"
#include "runtime/base/units.h"
#include "runtime/os/advice.h"
#include "runtime/os/kernel_memory.h"
#include "runtime/os/process.h"

namespace heaptier::bootstrap {
namespace {

// Chunks are mapped 1 MiB at a time: large enough that mappings stay few, small enough that an idle
// process does not show it (untouched pages cost nothing).
constexpr std::size_t kChunkBytes = std::size_t{1} << 20;
constexpr unsigned kMinShift = 4;   // 16 bytes
constexpr unsigned kMaxShift = 16;  // larger blocks get a mapping of their own

struct FreeBlock {
  FreeBlock* next;
};

struct State {
  SpinLock lock;
  char* at = nullptr;  // the unused rest of the current chunk
  std::size_t left = 0;
  FreeBlock* free[kMaxShift + 1] = {};
  std::atomic<std::size_t> mapped{0};
  // Every mapping, for bytes_resident(). What does not fit is counted whole.
  struct Mapping {
    std::uintptr_t start;
    std::size_t bytes;
  };
  static constexpr std::size_t kMappings = 256;
  Mapping mappings[kMappings] = {};
  std::size_t uncounted = 0;
};
constinit State state;

unsigned shift_for(std::size_t bytes, std::size_t align) {
  const std::size_t n = bytes > align ? bytes : align;
  const auto shift = static_cast<unsigned>(std::bit_width(n - 1));
  return shift < kMinShift ? kMinShift : shift;
}

void* map(std::size_t bytes, const char* name) {
  std::uintptr_t at = 0;
  if (kernel_memory_ops().map_private(bytes, name, &at).failed()) return nullptr;
  state.mapped.fetch_add(bytes, std::memory_order_relaxed);
  return reinterpret_cast<void*>(at);  // NOLINT(performance-no-int-to-ptr)
}

// With the lock held.
void note(std::uintptr_t start, std::size_t bytes) {
  for (State::Mapping& m : state.mappings) {
    if (m.bytes != 0) continue;
    m = {start, bytes};
    return;
  }
  state.uncounted += bytes;
}

void note_gone(std::uintptr_t start, std::size_t bytes) {
  for (State::Mapping& m : state.mappings) {
    if (m.start != start || m.bytes != bytes) continue;
    m = {};
    return;
  }
  state.uncounted -= bytes < state.uncounted ? bytes : state.uncounted;
}

void unmap(std::uintptr_t at, std::size_t bytes) {
  if (bytes != 0 && kernel_memory_ops().unmap(at, bytes).ok()) {
    state.mapped.fetch_sub(bytes, std::memory_order_relaxed);
  }
}

// A mapping of its own, trimmed to the alignment. It is made for what a process may come to need
// and is used in parts: a huge page at its first touch would be 2 MiB for a few bytes.
void* map_large(std::size_t bytes, std::size_t align) {
  bytes = round_up(bytes, kPageSize);
  const std::size_t extra = align > kPageSize ? align - kPageSize : 0;
  void* p = map(bytes + extra, "heaptier-meta");
  if (p == nullptr) return p;
  const auto start = reinterpret_cast<std::uintptr_t>(p);
  (void)kernel_memory_ops().advise(start, bytes + extra, os::kAdviceNoHuge);
  if (extra == 0) return p;
  const std::uintptr_t aligned = round_up(start, align);
  unmap(start, aligned - start);
  unmap(aligned + bytes, start + extra - aligned);
  return reinterpret_cast<void*>(aligned);  // NOLINT(performance-no-int-to-ptr)
}

}  // namespace

void* allocate(std::size_t bytes, std::size_t align) {
  if (bytes == 0) bytes = 1;
  if (bytes > SIZE_MAX / 2) return nullptr;
  const unsigned shift = shift_for(bytes, align);
  if (shift > kMaxShift) {
    void* p = map_large(bytes, align);
    if (p != nullptr) {
      SpinGuard guard(state.lock);
      note(reinterpret_cast<std::uintptr_t>(p), round_up(bytes, kPageSize));
    }
    return p;
  }
  const std::size_t size = std::size_t{1} << shift;
  void* p = nullptr;
  bool recycled = false;
  {
    SpinGuard guard(state.lock);
    if (FreeBlock* block = state.free[shift]; block != nullptr) {
      state.free[shift] = block->next;
      p = block;
      recycled = true;
    } else {
      // Blocks are as aligned as they are large: skip to the next multiple; the gap is lost, at
      // most half.
      const auto at = reinterpret_cast<std::uintptr_t>(state.at);
      std::size_t gap = state.at == nullptr ? 0 : round_up(at, size) - at;
      if (state.left < gap + size) {
        state.at = static_cast<char*>(map(kChunkBytes, "heaptier-meta"));
        state.left = state.at == nullptr ? 0 : kChunkBytes;
        if (state.at != nullptr) note(reinterpret_cast<std::uintptr_t>(state.at), kChunkBytes);
        gap = state.at == nullptr ? 0
                                  : round_up(reinterpret_cast<std::uintptr_t>(state.at), size) -
                                        reinterpret_cast<std::uintptr_t>(state.at);
      }
      if (state.left >= gap + size) {
        p = state.at + gap;
        state.at += gap + size;
        state.left -= gap + size;
      }
    }
  }
  if (p == nullptr) return nullptr;
  if (recycled) std::memset(p, 0, size);
  return p;
}

void release(void* p, std::size_t bytes, std::size_t align) {
  if (p == nullptr) return;
  if (bytes == 0) bytes = 1;
  const unsigned shift = shift_for(bytes, align);
  if (shift > kMaxShift) {
    {
      SpinGuard guard(state.lock);
      note_gone(reinterpret_cast<std::uintptr_t>(p), round_up(bytes, kPageSize));
    }
    unmap(reinterpret_cast<std::uintptr_t>(p), round_up(bytes, kPageSize));
    return;
  }
  auto* block = static_cast<FreeBlock*>(p);
  SpinGuard guard(state.lock);
  block->next = state.free[shift];
  state.free[shift] = block;
}

std::size_t bytes_mapped() {
  return state.mapped.load(std::memory_order_relaxed);
}
std::size_t bytes_resident() {
  SpinGuard guard(state.lock);
  std::size_t resident = state.uncounted;
  for (const State::Mapping& m : state.mappings) {
    if (m.bytes != 0) resident += os::resident_bytes(m.start, m.bytes);
  }
  return resident;
}

void lock_for_fork() {
  state.lock.lock();
}
void unlock_after_fork() {
  state.lock.unlock();
}

}  // namespace heaptier::bootstrap
