// Memory of heaptier's own: page words, queues, stacks, codec state. Never registered with
// userfaultfd, never hinted, so that a fault thread may touch it. Serves sizes from 16 bytes to
// many MiB; small blocks come from power-of-two free lists, blocks of a page and more are whole
// pages, zeroed when fresh.
//
// Thread rule: any thread, also inside malloc and fault handlers (own spin lock, no other lock
// inside). Survives fork: take lock_for_fork() in prepare.
#pragma once

#include <cstddef>

namespace heaptier::bootstrap {

// Zeroed memory, aligned to `align` (a power of two, at most 2 MiB), or nullptr. Counted in
// bytes_mapped().
[[nodiscard]] void* allocate(std::size_t bytes, std::size_t align = 16);
// `bytes` and `align` as given to allocate.
void release(void* p, std::size_t bytes, std::size_t align = 16);

template <class T>
[[nodiscard]] T* allocate_array(std::size_t count) {
  return static_cast<T*>(allocate(count * sizeof(T), alignof(T) < 16 ? 16 : alignof(T)));
}

// Address space taken, and the memory behind it: large tables are used only where they are looked
// at. The second asks the kernel (mincore) and takes some microseconds a MiB.
std::size_t bytes_mapped();
std::size_t bytes_resident();

void lock_for_fork();
void unlock_after_fork();

}  // namespace heaptier::bootstrap
