// The malloc that would serve if heaptier were not there: the next library's in search order, in
// the end libc's. It serves everything where heaptier stands aside, and gets back what is its own.
//
// Thread rule: any thread.
#pragma once

#include <cstddef>

namespace heaptier::next_heap {

// nullptr also while its functions are being looked up by this very call chain (the caller then
// takes early_heap). `align` 0: malloc's own.
[[nodiscard]] void* allocate(std::size_t bytes, std::size_t align, bool zeroed);
[[nodiscard]] void* reallocate(void* p, std::size_t bytes);
void release(void* p);
std::size_t usable_size(void* p);

// A pointer of unknown origin, while heaptier's heap serves: given to the next heap's free if it
// has the looks of libc's, passed over otherwise (a leak is better than an abort).
void release_foreign(void* p);
bool looks_like_libc(const void* p);

// The next definition of any function that heaptier replaces. nullptr: there is none.
void* next_symbol(const char* name);

}  // namespace heaptier::next_heap
