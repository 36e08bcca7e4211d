// The pages that are mapped in 2 MiB, at home or in the park, as the kernel says. A huge page is
// one.
//
// Thread rule: the background thread. They may go elsewhere while one looks.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/base/ports.h"
#include "runtime/base/units.h"

namespace heaptier {

struct PresentPages {
  std::size_t count = 0;
  std::uintptr_t at[kPagesPerBlock];
  bool huge[kPagesPerBlock];

  // Of the 2 MiB at `start`. On failure (scan's own) there are none.
  Errno look(MemoryOps& ops, std::uintptr_t start);

 private:
  void add(const ScannedRun& run);
};

}  // namespace heaptier
