// The records in a ring of the kernel's (event_port.h; the layout is that of perf_event_open(2)).
//
// Thread rule: one reader. Touches no managed memory, allocates nothing.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "runtime/base/event_port.h"

namespace heaptier {

struct EventRecord {
  static constexpr std::size_t kLongest = 256;  // of those that are wanted
  std::uint32_t type = 0;
  const unsigned char* body = nullptr;
  std::size_t bytes = 0;
};
inline constexpr std::uint32_t kRecordLost = 2;
inline constexpr std::uint32_t kRecordThrottle = 5;
inline constexpr std::uint32_t kRecordSample = 9;

struct RecordTally {
  std::uint64_t samples = 0;
  std::uint64_t lost = 0;       // nobody had read in time: as the kernel counts them
  std::uint64_t throttled = 0;  // times the kernel stopped for a moment what came too often
  std::uint64_t skipped = 0;    // of another kind, or longer than any that is wanted
  bool broken = false;          // what is in the ring makes no sense: all of it was left
};

// Copies what is in the ring from `at` on.
inline void copy_from_ring(const EventRing& ring, std::uint64_t at, void* to, std::size_t bytes) {
  const std::size_t from = at & (ring.bytes - 1);
  const std::size_t first = std::min(bytes, ring.bytes - from);
  std::memcpy(to, ring.data + from, first);
  std::memcpy(static_cast<unsigned char*>(to) + first, ring.data, bytes - first);
}

// Calls sample(record) for each sample that has come since the last time, and gives the room back
// to the kernel.
template <class Sample>
RecordTally read_records(const EventRing& ring, Sample sample) {
  // The kernel's struct perf_event_header.
  struct Header {
    std::uint32_t type;
    std::uint16_t misc;
    std::uint16_t bytes;
  };
  RecordTally tally;
  const std::uint64_t head = __atomic_load_n(ring.head, __ATOMIC_ACQUIRE);
  std::uint64_t tail = *ring.tail;
  if (head - tail > ring.bytes) {
    tally.broken = true;
    tail = head;
  }
  while (tail != head) {
    Header header{};
    if (head - tail >= sizeof header) copy_from_ring(ring, tail, &header, sizeof header);
    if (header.bytes < sizeof header || header.bytes > head - tail) {
      tally.broken = true;
      tail = head;
      break;
    }
    unsigned char body[EventRecord::kLongest];
    const std::size_t bytes = header.bytes - sizeof header;
    const bool fits = bytes <= sizeof body;
    if (fits) copy_from_ring(ring, tail + sizeof header, body, bytes);
    tail += header.bytes;
    if (header.type == kRecordSample && fits) {
      ++tally.samples;
      sample(EventRecord{header.type, body, bytes});
    } else if (header.type == kRecordLost && fits && bytes >= 2 * sizeof(std::uint64_t)) {
      std::uint64_t lost = 0;
      std::memcpy(&lost, body + sizeof lost, sizeof lost);  // after the event's number
      tally.lost += lost;
    } else if (header.type == kRecordThrottle) {
      ++tally.throttled;
    } else {
      ++tally.skipped;
    }
  }
  __atomic_store_n(ring.tail, tail, __ATOMIC_RELEASE);
  return tally;
}

}  // namespace heaptier
