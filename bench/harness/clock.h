// Time for the measuring programs: wall and CPU time in nanoseconds, and a cheap tick counter for
// single operations.
#ifndef HEAPTIER_BENCH_HARNESS_CLOCK_H_
#define HEAPTIER_BENCH_HARNESS_CLOCK_H_

#include <time.h>

#include <cstdint>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

namespace heaptier::bench {

inline std::uint64_t nanos_of(clockid_t clock) {
  timespec t{};
  clock_gettime(clock, &t);
  return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000u +
         static_cast<std::uint64_t>(t.tv_nsec);
}
inline std::uint64_t wall_nanos() {
  return nanos_of(CLOCK_MONOTONIC);
}
inline std::uint64_t process_cpu_nanos() {
  return nanos_of(CLOCK_PROCESS_CPUTIME_ID);
}
inline std::uint64_t thread_cpu_nanos() {
  return nanos_of(CLOCK_THREAD_CPUTIME_ID);
}

// The time stamp counter where there is one: clock_gettime would cost a tenth of an operation that
// takes 300 ns.
inline std::uint64_t ticks() {
#if defined(__x86_64__)
  return __rdtsc();
#else
  return wall_nanos();
#endif
}

// Ticks in a nanosecond, measured against the wall clock. Takes 20 ms.
inline double ticks_per_nano() {
  const std::uint64_t wall = wall_nanos();
  const std::uint64_t tick = ticks();
  std::uint64_t now = wall;
  while (now - wall < 20'000'000) now = wall_nanos();
  return static_cast<double>(ticks() - tick) / static_cast<double>(now - wall);
}

}  // namespace heaptier::bench

#endif  // HEAPTIER_BENCH_HARNESS_CLOCK_H_
