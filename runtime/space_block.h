// What the Space knows of one pageblock. For arena.cc and space_window.cc only.
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

}  // namespace heaptier
