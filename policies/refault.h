// Page-level heat from refault distance, after Linux mm/workingset.c: a page that comes back after
// few other pages were discarded was worth keeping. Arithmetic only; used by the fault path on
// every fetch.
#pragma once

#include <cstdint>

namespace heaptier {

struct RefaultInput {
  std::uint64_t discards = 0;  // discard counter now, in pages
  std::uint32_t stamp = 0;     // the page's stamp: low 16 bits of (counter at its discard >> shift)
  std::uint32_t shift = 0;     // granularity of stamps: stamp_shift() of the heap
  std::uint32_t estimate = 0;  // smoothed log2 distance so far, half steps; 0: none yet
  std::uint64_t main_pages = 0;  // pages resident outside probation
  // Pages that only the store holds. 0: not known, main_pages stands in for it (they are equal
  // where half of the memory is fast).
  std::uint64_t stored_pages = 0;
};

struct RefaultVerdict {
  std::uint32_t estimate = 0;  // to keep in the page word
  bool promote = false;        // proven hot: drop the copy, keep it resident
  std::uint32_t credits = 0;   // clock passes it may survive, 0..5
};

// The knobs, for bench/simulate; the library uses the values given here, which were chosen there
// (zipf, budgets of 25, 50, 75 and 90 %). theta: from 18 to 40 % misses differ by 3 %, while
// promotions, each of which costs a compression later, grow fivefold. keep: 2/4 follows a hot set
// that moves 2 % better and misses 5 % more when nothing moves. credits: hardly matter beyond 2.
struct RefaultTuning {
  // On a real heap of 1 GiB at half memory a larger theta finds the hot set sooner (after 10 M
  // operations .127 misses with 50, .141 with 25); above a third a heap that is all hot is promoted
  // around in circles.
  std::uint32_t theta_percent = 33;
  std::uint32_t keep_quarters = 3;
  std::uint32_t max_credits = 5;
};

// Promotes a page whose smoothed distance is below theta of stored_pages. The measure is what is
// stored, because an average stored page comes back after just so many discards (Little's law): hot
// is what comes back several times sooner than that, whatever share of memory is fast.
RefaultVerdict judge_refault(const RefaultInput& in, const RefaultTuning& tuning = {});

// Pages that probation (clean pages in the order they came in) should hold: long enough for a
// second touch and for the grace time of device writes, short enough to leave the room to proven
// pages. Above it, evict from probation's old end; below it, demote from the rest first (kSweep).
// bench/simulate: from 3 to 15 % misses differ by 2 % either way and CPU grows by 2 %.
constexpr std::uint64_t probation_target(std::uint64_t resident_pages) {
  return resident_pages * 6 / 100;
}

// The stamp for a page discarded when the counter is at `discards`.
std::uint32_t refault_stamp(std::uint64_t discards, std::uint32_t shift);

// The shift with which 2^16 stamps cover a heap of so many pages twice: a distance beyond that says
// no more than "cold", and stamps that have gone round are rare.
std::uint32_t stamp_shift(std::uint64_t heap_pages);

}  // namespace heaptier
