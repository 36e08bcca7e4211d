// Whether others are at work on this machine.
#ifndef HEAPTIER_BENCH_HARNESS_CPUS_H_
#define HEAPTIER_BENCH_HARNESS_CPUS_H_

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <string>

namespace heaptier::bench {

struct CpuTime {
  std::uint64_t all = 0;
  std::uint64_t idle = 0;
};

inline CpuTime cpu_time() {
  std::ifstream stat("/proc/stat");
  std::string cpu;
  stat >> cpu;
  CpuTime time;
  std::uint64_t ticks = 0;
  for (int field = 0; field < 8 && stat >> ticks; ++field) {
    time.all += ticks;
    if (field == 3 || field == 4) time.idle += ticks;  // idle, waiting for a disk
  }
  return time;
}

// Of all CPUs' time, how much is used at this moment; takes a second. (The load average would
// remember the build.)
inline double busy_share() {
  const CpuTime before = cpu_time();
  sleep(1);
  const CpuTime after = cpu_time();
  if (after.all <= before.all) return 0;
  const double all = static_cast<double>(after.all) - static_cast<double>(before.all);
  const double idle = static_cast<double>(after.idle) - static_cast<double>(before.idle);
  return std::clamp(1 - idle / all, 0.0, 1.0);  // waiting for a disk may be taken back
}

}  // namespace heaptier::bench

#endif  // HEAPTIER_BENCH_HARNESS_CPUS_H_
