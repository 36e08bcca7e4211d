// Page-level heat from refault distance, after Linux mm/workingset.c: a page that comes back after
// few other pages were discarded was worth keeping. Arithmetic only; used by the fault path on
// every fetch.
#pragma once

#include <cstdint>

namespace heaptier {

struct RefaultInput {
  std::uint64_t discards = 0;  // discard counter now, in pages
  std::uint32_t stamp = 0;     // the page's stamp: low 16 bits of (counter at its discard >> shift)
  std::uint32_t shift =
      0;  // granularity of stamps: chosen so that 2^16 of them cover the heap twice
  std::uint32_t estimate = 0;    // smoothed log2 distance so far, half steps; 0: none yet
  std::uint64_t main_pages = 0;  // pages resident outside probation
};

struct RefaultVerdict {
  std::uint32_t estimate = 0;  // to keep in the page word
  bool promote = false;        // proven hot: drop the copy, keep it resident
  std::uint32_t credits = 0;   // clock passes it may survive, 0..5
};

// Promote when the smoothed distance is below 1/5 of main_pages. The constants were fitted on a
// zipfian key-value load at half memory.
RefaultVerdict judge_refault(const RefaultInput& in);

// Pages that probation (clean pages in the order they came in) should hold: long enough for a
// second touch and for the grace time of device writes, short enough to leave the room to proven
// pages. Above it, evict from probation's old end; below it, demote from the rest first (kSweep),
// which refills it.
constexpr std::uint64_t probation_target(std::uint64_t resident_pages) {
  return resident_pages * 6 / 100;
}

// The stamp for a page discarded when the counter is at `discards`.
std::uint32_t refault_stamp(std::uint64_t discards, std::uint32_t shift);

}  // namespace heaptier
