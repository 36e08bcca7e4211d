// jemalloc as heaptier's heap. It is linked in under the names je_* (embed_jemalloc.sh); every
// extent that any of its arenas uses comes from the Space, its metadata as unmovable pageblocks,
// and what it purges or gives back is dropped in the tiers, unread.
//
// Ordinary memory: je_malloc and je_free, called directly (preload/malloc_abi.cc). What is here is
// the rest: arenas for memory with a rule of its own. Their objects must not pass through
// jemalloc's thread caches, where an object freed to one arena is handed out again for another.
//
// Thread rule: any thread. Fork: jemalloc_fork_prepare() last before the clone, the others first
// after it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/arena.h"
#include "runtime/base/mobility.h"
#include "runtime/heap/content.h"

namespace heaptier {

// An arena of the heap; 0 is none.
struct HeapArena {
  unsigned v = 0;
  friend constexpr bool operator==(HeapArena, HeapArena) = default;
};

namespace jemalloc {

// Wires jemalloc to the Space and the sink, both living as long as the process. Before the first
// je_ call; jemalloc itself starts with that.
void init(Space& space, ContentSink& sink, MemoryOps& ops);

// Memory of the process-wide arena for this mobility (not for kMovable: that is je_malloc's),
// aligned to `align` (a power of two; 0: 16), or nullptr.
[[nodiscard]] void* allocate(Mobility mobility, std::size_t bytes, std::size_t align, bool zeroed);

// An arena of its own. 0: jemalloc has no memory or no number left for it.
HeapArena create_arena(Mobility mobility, bool user_only);
[[nodiscard]] void* allocate_in(HeapArena arena, std::size_t bytes, std::size_t align, bool zeroed);

// For pointers that did not come from je_malloc and its kin. The object stays in its arena.
void release(void* p);
[[nodiscard]] void* reallocate(void* p, std::size_t bytes);

// Gives the caches of unused memory back now, rather than as they age.
void purge();

// How long unused dirty memory is kept for reuse, in ms (-1: for good), for all arenas.
void set_dirty_decay(long ms);

struct Usage {
  std::size_t allocated = 0;  // bytes in objects
  std::size_t active = 0;     // bytes in pages that hold objects
  std::size_t metadata = 0;
  std::size_t resident = 0;  // by jemalloc's books: what the tiers took is in it
  std::size_t mapped = 0;
  std::size_t retained = 0;  // address space kept without memory
};
Usage usage();

}  // namespace jemalloc

// The handlers that jemalloc wanted to register with pthread_atfork.
void jemalloc_fork_prepare();
void jemalloc_fork_parent();
void jemalloc_fork_child();

}  // namespace heaptier
