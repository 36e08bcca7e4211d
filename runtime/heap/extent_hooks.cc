// jemalloc's extent hooks: where its arenas get their memory, and how they say that content is
// dead.
//
// Called with jemalloc's locks held: nothing here allocates from any heap. Every hook returns true
// for "did not happen", which is jemalloc's way.
#include "runtime/heap/gates.h"
#include "runtime/heap/jemalloc_link.h"

namespace heaptier::jemalloc {
namespace {

const Hooks& of(extent_hooks_t* table) {
  return *reinterpret_cast<const Hooks*>(table);
}

std::uintptr_t address(const void* p) {
  return reinterpret_cast<std::uintptr_t>(p);
}

void* on_alloc(extent_hooks_t* table, void* new_addr, std::size_t size, std::size_t align,
               bool* zero, bool* commit, unsigned) {
  const Hooks& hooks = of(table);
  void* p = new_addr;
  if (new_addr != nullptr) {  // an object grows in place, or not at all
    if (!link.space->extend(new_addr, size, hooks.mobility, hooks.owner)) return nullptr;
  } else {
    p = link.space->allocate(size, align, hooks.mobility, hooks.owner);
    if (p == nullptr) {
      gates.short_of_memory();
      return nullptr;
    }
  }
  const bool ordinary = hooks.mobility == Mobility::kMovable && hooks.owner == Owner::kJemalloc;
  // Its own zone is used up: from now on free() looks at every pointer.
  if (!ordinary && link.space->in_ordinary_zone(address(p))) {
    gates.free_bytes.store(0, std::memory_order_relaxed);
  }
  if (gates.other_way_for(p)) gates.other_bytes.store(0, std::memory_order_relaxed);
  *zero = true;
  *commit = true;
  link.sink->carved(link.space->carved_bytes());
  return p;
}

bool on_dalloc(extent_hooks_t*, void* addr, std::size_t size, bool, unsigned) {
  if (!link.sink->drop(address(addr), size)) return true;  // locked: jemalloc keeps it
  link.space->release(addr, size);
  return false;
}

void on_destroy(extent_hooks_t*, void* addr, std::size_t size, bool, unsigned) {
  if (link.sink->drop(address(addr), size)) link.space->release(addr, size);
}

bool on_purge(extent_hooks_t*, void* addr, std::size_t, std::size_t offset, std::size_t length,
              unsigned) {
  return !link.sink->drop(address(addr) + offset, length);
}

bool on_split(extent_hooks_t*, void*, std::size_t, std::size_t, std::size_t, bool, unsigned) {
  return false;
}

// jemalloc asks only for neighbours of one arena; they are of one mobility unless a fallback made
// one of the pageblocks stricter.
bool on_merge(extent_hooks_t*, void* a, std::size_t, void* b, std::size_t, bool, unsigned) {
  const Space& space = *link.space;
  const BlockIndex block_a = block_of(space.page_at(address(a)));
  const BlockIndex block_b = block_of(space.page_at(address(b)));
  return space.mobility_of(block_a) != space.mobility_of(block_b);
}

// No decommit and no lazy purge: forced purge does what both would, and the tiers learn of it.
constexpr extent_hooks_t kTable = {on_alloc, on_dalloc, on_destroy, nullptr, nullptr,
                                   nullptr,  on_purge,  on_split,   on_merge};

constinit Hooks movable{kTable, Mobility::kMovable, Owner::kJemalloc};
constinit Hooks reclaimable{kTable, Mobility::kReclaimable, Owner::kJemalloc};
constinit Hooks unmovable{kTable, Mobility::kUnmovable, Owner::kJemalloc};
constinit Hooks movable_user{kTable, Mobility::kMovable, Owner::kUserOnly};
constinit Hooks reclaimable_user{kTable, Mobility::kReclaimable, Owner::kUserOnly};
constinit Hooks unmovable_user{kTable, Mobility::kUnmovable, Owner::kUserOnly};

}  // namespace

const Hooks& hooks_for(Mobility mobility, bool user_only) {
  switch (mobility) {
    case Mobility::kMovable:
      return user_only ? movable_user : movable;
    case Mobility::kReclaimable:
      return user_only ? reclaimable_user : reclaimable;
    case Mobility::kUnmovable:
      break;
  }
  return user_only ? unmovable_user : unmovable;
}

}  // namespace heaptier::jemalloc
