// Making room on behalf of a fault, when memory is above the high watermark: the fault pays for its
// page, as in the kernel's direct reclaim, but in batches.
#pragma once

#include <cstdint>

#include "runtime/core.h"

namespace heaptier {

enum class Reclaimed : std::uint8_t {
  kNotNeeded,
  kSome,
  kNothing,    // wait a little for the background thread
  kStoreFull,  // no use waiting: the fault goes on above the mark
};

// At most one batch: the longest fetched of the clean pages, as long as probation is as full as it
// should be; else pages of the main memory, by a clock hand that all faults share, through the park
// into the store. Touches no managed memory and waits for nobody. Any thread with a Worker of its
// own, holding no page lock.
Reclaimed reclaim_for_fault(Core& core, Worker& w);

}  // namespace heaptier
