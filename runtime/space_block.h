// What the Space knows of one pageblock. For its own files only (arena.cc, space_*.cc).
#pragma once

#include <atomic>
#include <cstdint>

#include "runtime/arena.h"
#include "runtime/usemap.h"

namespace heaptier {

struct Space::Block {
  Usemap used;
  std::atomic<std::uint16_t> pages{0};
  std::atomic<Mobility> mobility{Mobility::kMovable};
  std::atomic<Owner> owner{Owner::kNone};
  std::uint8_t bin = 0;  // the list it is on; 0: none
  std::uint32_t next = 0;
  std::uint32_t prev = 0;
};

inline void* pointer(std::uintptr_t at) {
  return reinterpret_cast<void*>(at);  // NOLINT(performance-no-int-to-ptr)
}

}  // namespace heaptier
