// One sample of an access to memory, as ThreadEventPort has the kernel write it.
#pragma once

#include <cstdint>
#include <cstring>

#include "runtime/sampling/event_records.h"

namespace heaptier {

struct AccessSample {
  std::uintptr_t address = 0;
  std::uint64_t accesses = 0;  // that it stands for
  bool near = false;           // served by a cache of the processor core itself
};

// What the kernel says of the source (union perf_mem_data_src): L1 or L2, and not a miss there.
constexpr bool served_near(std::uint64_t source) {
  constexpr unsigned kLevel = 5;
  constexpr std::uint64_t kHit = 0x02 << kLevel;
  constexpr std::uint64_t kFirst = 0x08 << kLevel;
  constexpr std::uint64_t kSecond = 0x20 << kLevel;
  return (source & kHit) != 0 && (source & (kFirst | kSecond)) != 0;
}

// False: it is none, or of no memory that a program can have.
inline bool decode_access(const EventRecord& record, bool tells_source, AccessSample* out) {
  std::uint64_t fields[3] = {};
  const std::size_t bytes = (tells_source ? 3 : 2) * sizeof fields[0];
  if (record.bytes < bytes) return false;
  std::memcpy(fields, record.body, bytes);
  out->address = fields[0];
  out->accesses = fields[1];
  out->near = tells_source && served_near(fields[2]);
  return out->address != 0 && out->accesses != 0;
}

}  // namespace heaptier
