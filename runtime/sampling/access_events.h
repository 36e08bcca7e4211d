// Which event of this processor's tells the addresses of memory accesses, as its files below
// /sys/bus/event_source/devices describe it: Intel's mem-loads and mem-stores (PEBS), AMD's ibs_op.
//
// Changes nothing, allocates nothing.
#pragma once

#include "runtime/base/event_port.h"
#include "runtime/base/file_tree.h"

namespace heaptier {

// A load has to take so many cycles to count: what comes from the near caches takes fewer.
inline constexpr std::uint64_t kLeastLatency = 30;

struct AccessEvents {
  static constexpr unsigned kMost = 2;
  AccessEvent of[kMost];  // loads and stores, or both in one
  unsigned count = 0;
};

// ENOTSUP: there are none; why_not says why, in one clause without an end. Whether they can be had
// is told by opening them. `precise` is 1 where addresses come only with some precision, 0 where
// there is none.
Errno find_access_events(FileTree& files, AccessEvents* out, const char** why_not);

// Of the values that its format file gives the bits for ("config1:0-15", "config:0-7,32-35"): puts
// this one there. False: it is no such text, or does not fit.
bool put_field(std::string_view format, std::uint64_t value, AccessEvent* event);

}  // namespace heaptier
