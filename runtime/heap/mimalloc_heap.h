// mimalloc as the heap (HEAPTIER_HEAP=mimalloc). Debian has it only as a shared library, so that it
// is loaded at start, apart from the application's symbols, and called through pointers. Its system
// calls for memory reach the preload's mmap and friends like everybody's; told apart by where they
// come from, they are served here, from the Space.
//
// Thread rule: load() once, before main; everything else any thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/arena.h"
#include "runtime/heap/content.h"
#include "runtime/heap/gates.h"

namespace heaptier::mimalloc {

// What the short ways need of it, and what only the long ones do.
const OtherHeap& heap();
void* zalloc(std::size_t bytes, std::size_t align);  // align 0: 16
std::size_t usable_size(const void* p);
void collect();

// False: the library is not there, or not one we know. Otherwise its pointers are told apart from
// then on (gates.h); calls are not yet routed to it.
bool load(Space& space, ContentSink& sink);

// Whether a call comes from mimalloc's code.
bool is_caller(std::uintptr_t caller);

// Its mmap of anonymous memory: `bytes` rounded up to pages; nullptr: none left. Runs of a segment
// (32 MiB) and more are aligned to one, which saves mimalloc its cutting to size.
void* map(std::size_t bytes);
// Its munmap and its madvise(DONTNEED or FREE), of memory of the Space.
void unmap(std::uintptr_t at, std::size_t bytes);
bool discard(std::uintptr_t at, std::size_t bytes);

}  // namespace heaptier::mimalloc
