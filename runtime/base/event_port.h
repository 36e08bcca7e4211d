// What the kernel reports as a stream of records (perf_event_open(2)), as an interface: tests hand
// out rings that they make themselves.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/base/errno.h"

namespace heaptier {

// A ring that the kernel writes records to and we read them from. `head` and `tail` count bytes
// since it was opened and never wrap; the kernel moves the head, the reader the tail.
struct EventRing {
  const unsigned char* data = nullptr;
  std::size_t bytes = 0;  // a power of two
  std::uint64_t* head = nullptr;
  std::uint64_t* tail = nullptr;
  bool is_open() const { return data != nullptr; }
};

// One ring at a time. Thread rule: one thread, the one that reads; forget() where it is not there.
class EventPort {
 public:
  // What a thread of the kernel's does at a tracepoint, by the number in its `id` file. Each record
  // is a sample whose only field is the raw data. ESRCH: no such thread is to be seen from here.
  virtual Errno open_tracepoint(std::uint32_t id, int thread, EventRing* ring) = 0;
  virtual void close() = 0;
  // In a forked child: neither the descriptor nor the memory is there.
  virtual void forget() = 0;

 protected:
  ~EventPort() = default;
};

}  // namespace heaptier
