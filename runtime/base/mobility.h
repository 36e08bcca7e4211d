// Mobility of a pageblock: what may be done with the memory in it. The word and the idea (grouping
// pages by mobility, so that one pinned page does not block a whole region) are those of Linux'
// pageblocks.
#pragma once

#include <cstdint>

namespace heaptier {

enum class Mobility : std::uint8_t {
  kMovable = 0,      // ordinary memory: may be hinted, demoted, stored
  kReclaimable = 1,  // the application agreed that the content may be discarded and made again
  kUnmovable =
      2,  // pinned: libc's own buffers, API-marked memory, allocator metadata; never touched
};
inline constexpr int kMobilities = 3;

constexpr const char* to_string(Mobility m) {
  switch (m) {
    case Mobility::kMovable:
      return "movable";
    case Mobility::kReclaimable:
      return "reclaimable";
    case Mobility::kUnmovable:
      return "unmovable";
  }
  return "?";
}

}  // namespace heaptier
