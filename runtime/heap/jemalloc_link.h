// What the files that tie jemalloc to the Space share. Not for anyone outside runtime/heap.
#pragma once

#include <cstddef>

#include "runtime/arena.h"
#include "runtime/base/ports.h"
#include "runtime/heap/content.h"
#include "runtime/heap/jemalloc_names.h"

namespace heaptier::jemalloc {

struct Link {
  Space* space = nullptr;
  ContentSink* sink = nullptr;
  MemoryOps* ops = nullptr;
};
extern constinit Link link;

// The hooks of an arena: jemalloc passes the first member back.
struct Hooks {
  extent_hooks_t table;
  Mobility mobility;
  Owner owner;
};
const Hooks& hooks_for(Mobility mobility, bool user_only);

// The locks of jemalloc_heap.cc, which are taken before jemalloc's own.
void lock_for_fork();
void unlock_after_fork();

}  // namespace heaptier::jemalloc
