// What /proc/zoneinfo and /proc/buddyinfo say of the zones of memory nodes, and the one place that
// says how much of a zone is for the taking.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string_view>

#include "runtime/base/file_tree.h"
#include "runtime/base/lines.h"
#include "runtime/base/node_ops.h"
#include "runtime/base/words.h"

namespace heaptier {

// The zones that can hold user memory. The kernel's device memory is no zone to allocate from.
enum class ZoneName : std::uint8_t { kDma, kDma32, kNormal, kHighMem, kMovable };
inline constexpr std::size_t kZoneNames = 5;

struct NodeZone {
  unsigned node = 0;
  ZoneName name = ZoneName::kDma;
  std::uint64_t free_pages = 0;
  // What must stay free there for movable user memory to be served: the high watermark and what
  // the zone keeps for allocations that can use no other (lowmem_reserve).
  std::uint64_t reserve_pages = 0;

  // See NodeRoom.
  constexpr std::uint64_t usable_pages() const {
    return free_pages > reserve_pages ? free_pages - reserve_pages : 0;
  }
};

// "Node 0, zone   Normal" at the start of a line: node and name of *zone. `rest`: what follows.
// False: there is no zone, or one that holds no user memory.
constexpr bool parse_zone(std::string_view line, NodeZone* zone, std::string_view* rest) {
  constexpr std::string_view kNames[] = {"DMA", "DMA32", "Normal", "HighMem", "Movable"};
  static_assert(std::size(kNames) == kZoneNames);
  std::uint64_t node = 0;
  if (!line.starts_with("Node ")) return false;
  (void)next_word(&line);
  if (!next_number(&line, &node) || node > UINT32_MAX || next_word(&line) != "zone") return false;
  const std::string_view name = next_word(&line);
  const auto* const found = std::find(std::begin(kNames), std::end(kNames), name);
  if (found == std::end(kNames)) return false;
  zone->node = static_cast<unsigned>(node);
  zone->name = static_cast<ZoneName>(found - kNames);
  *rest = line;
  return true;
}

// Reads zoneinfo line by line: "pages free 3776", "high 264", "protection: (0, 954, 954)" and much
// else below each zone's heading.
class ZoneInfoReader {
 public:
  // True: *zone is complete. A zone whose figures are nonsense is passed over.
  constexpr bool line(std::string_view text, NodeZone* zone) {
    std::string_view rest;
    if (text.starts_with("Node ")) {
      zone_ = {};
      high_ = 0;
      in_zone_ = parse_zone(text, &zone_, &rest);
      return false;
    }
    if (!in_zone_) return false;
    const std::string_view key = next_word(&text);
    if (key == "pages" && next_word(&text) == "free") {
      in_zone_ = next_pages(&text, &zone_.free_pages);
    } else if (key == "high") {  // "high:" is a per-CPU list's
      in_zone_ = next_pages(&text, &high_);
    } else if (key == "protection:") {
      // It has a figure for each zone that an allocation may prefer to this one. The largest is
      // kept from those that have the most other zones to go to. Movable user memory is such.
      std::uint64_t kept = 0;
      for (std::uint64_t n = 0; next_number(&text, &n);) kept = std::max(kept, n);
      in_zone_ = false;
      if (kept > kMostPages) return false;
      zone_.reserve_pages = high_ + kept;
      *zone = zone_;
      return true;
    }
    return false;
  }

 private:
  // More than any machine has; keeps the sums in range.
  static constexpr std::uint64_t kMostPages = std::uint64_t{1} << 44;
  static constexpr bool next_pages(std::string_view* text, std::uint64_t* out) {
    return next_number(text, out) && *out <= kMostPages;
  }

  NodeZone zone_;
  std::uint64_t high_ = 0;
  bool in_zone_ = false;
};

// Calls f(zone) for every zone of every node, as /proc/zoneinfo has them. On failure, for those
// that could be read.
template <class F>
Errno each_zone(FileTree& files, F&& f) {
  ZoneInfoReader reader;
  return each_line(files, "/proc/zoneinfo", [&](std::string_view line) {
    NodeZone zone;
    if (reader.line(line, &zone)) f(zone);
  });
}

// Adds a zone, of which the reserve is known, to *room. `free_blocks`: from its line of buddyinfo,
// the free blocks of each order, 0 first. Blocks of more than 2 MiB count as the huge pages that
// they hold.
constexpr void add_zone(NodeZone zone, std::string_view free_blocks, NodeRoom* room) {
  constexpr unsigned kHugeOrder = kPageblockShift - kPageShift;
  std::uint64_t huge = 0;
  std::uint64_t count = 0;
  zone.free_pages = 0;
  for (unsigned order = 0; order < 32 && next_number(&free_blocks, &count); ++order) {
    zone.free_pages += count << order;
    if (order >= kHugeOrder) huge += count << (order - kHugeOrder);
  }
  const std::uint64_t usable = zone.usable_pages();
  room->free_pages += zone.free_pages;
  room->pages += usable;
  room->huge_blocks += std::min(huge, usable / kPagesPerBlock);
}

}  // namespace heaptier
