// Page-level heat from refault distance, after Linux mm/workingset.c: a page that comes back after few other
// pages were discarded was worth keeping. Arithmetic only; used by the fault path on every fetch.
#pragma once

#include <cstdint>

namespace heaptier {

struct RefaultInput {
  std::uint64_t discards = 0;      // discard counter now, in pages
  std::uint32_t stamp = 0;         // the page's stamp: low 16 bits of (counter at its discard >> shift)
  std::uint32_t shift = 0;         // granularity of stamps: chosen so that 2^16 of them cover the heap twice
  std::uint32_t estimate = 0;      // smoothed log2 distance so far, half steps; 0: none yet
  std::uint64_t main_pages = 0;    // pages resident outside probation
};

struct RefaultVerdict {
  std::uint32_t estimate = 0;  // to keep in the page word
  bool promote = false;        // proven hot: drop the copy, keep it resident
  std::uint32_t credits = 0;   // clock passes it may survive, 0..5
};

// Promote when the smoothed distance is below 1/5 of main_pages. The constants were fitted on a zipfian
// key-value load at half memory.
RefaultVerdict judge_refault(const RefaultInput& in);

// The stamp for a page discarded when the counter is at `discards`.
std::uint32_t refault_stamp(std::uint64_t discards, std::uint32_t shift);

}  // namespace heaptier
