// How much the fast tier may hold, and the watermarks that follow. Arithmetic; the figures of the
// machine come in.
#pragma once

#include <cstdint>

#include "runtime/config/options.h"

namespace heaptier {

struct MemorySituation {
  std::uint64_t heap_bytes = 0;     // present, stored and same-filled together
  std::uint64_t present_bytes = 0;  // at home and in the park
  std::uint64_t store_bytes = 0;    // memory the store holds
  std::uint64_t stuck_bytes = 0;    // present and cannot leave: will not shrink, pinned
  std::uint64_t physical_bytes = 0;
  std::uint64_t available_bytes = 0;   // of the machine, 0: unknown
  std::uint64_t cgroup_limit = 0;      // 0: none
  std::uint64_t cgroup_anonymous = 0;  // what all its processes hold that cannot be dropped
};

struct Watermarks {
  std::uint64_t fast_bytes = 0;  // as asked for; 0: no limit
  std::uint64_t high_bytes = 0;  // of all that is present
  std::uint64_t low_bytes = 0;
  std::uint64_t stuck_bytes = 0;  // of each mark, what is stuck
};

// The marks are those of what can leave: to them comes what is stuck. Where that leaves less than
// an eighth of the budget, the rest gets an eighth all the same, since to squeeze it to nothing
// would gain little and make every touch a fault; but in a cgroup, whose limit kills, next to
// nothing.
Watermarks derive_watermarks(const FastBudget& budget, const MemorySituation& now);

// Bytes carved from which on the dormant engine is worth waking.
std::uint64_t wake_threshold(const Options& options);

}  // namespace heaptier
