// Memory for the calls that come before, or while, heaptier finds out what the heap is (dlsym's own
// calloc, above all), and for those that libc makes on behalf of heaptier's own threads. A static
// buffer; nothing in it is ever used again.
//
// Thread rule: any thread.
#pragma once

#include <cstddef>

namespace heaptier::early_heap {

// Zeroed, aligned to `align` (a power of two), or nullptr when the buffer is full.
[[nodiscard]] void* allocate(std::size_t bytes, std::size_t align);
bool owns(const void* p);
// Room behind a pointer that it owns.
std::size_t usable_size(const void* p);

}  // namespace heaptier::early_heap
