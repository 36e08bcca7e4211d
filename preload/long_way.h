// malloc, realloc and free for everything that the short way (jemalloc, at once) is not for.
#pragma once

#include <cstddef>
#include <cstdint>

namespace heaptier::preload {

// `align` 0: 16. `caller`: the address malloc was called from. errno is set on failure.
[[nodiscard]] void* allocate_long(std::size_t bytes, std::size_t align, bool zeroed,
                                  std::uintptr_t caller);
[[nodiscard]] void* reallocate_long(void* p, std::size_t bytes, std::uintptr_t caller);
void release_long(void* p);  // keeps errno
// After an allocation: wakes the engine if it wants that, as call_gate.h has it. Returns p; keeps
// errno.
void* and_wake(void* p, std::uintptr_t caller);
std::size_t usable_size_long(void* p);

// After an allocation of `bytes` has failed: gives back what the heaps keep for reuse. True when
// trying again may help. Keeps errno.
bool make_room(std::size_t bytes);

}  // namespace heaptier::preload
