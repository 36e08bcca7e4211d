// What /proc/zoneinfo and /proc/buddyinfo say of a node's zones. Arithmetic on their lines: the
// files themselves are read by kernel_nodes.cc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "runtime/base/node_ops.h"

namespace heaptier::os {

// The zones that can hold user memory. The kernel's device memory is no zone to allocate from.
enum class ZoneName : std::uint8_t { kDma, kDma32, kNormal, kHighMem, kMovable, kOther };
inline constexpr std::size_t kZones = 6;

struct ZoneId {
  unsigned node = 0;
  ZoneName name = ZoneName::kOther;
};

// "Node 0, zone   Normal" at the start of a line. `rest`: what follows.
bool parse_zone(std::string_view line, ZoneId* zone, std::string_view* rest);

// Reads zoneinfo line by line. For each zone it says what must stay free there for movable user
// memory to be served: the high watermark and what the zone keeps for allocations that can use no
// other (lowmem_reserve).
class ZoneInfoReader {
 public:
  // True: *zone is complete and keeps *reserve pages.
  bool line(std::string_view text, ZoneId* zone, std::uint64_t* reserve);

 private:
  ZoneId zone_;
  bool in_zone_ = false;
  std::uint64_t high_ = 0;
};

// One line of buddyinfo: free blocks of each order, 0 first. Adds the zone, less its reserve, to
// *room. Blocks of more than 2 MiB count as the huge pages that they hold.
void add_zone(std::string_view free_blocks, std::uint64_t reserve, NodeRoom* room);

}  // namespace heaptier::os
