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

// An access to memory, as a processor counts it (perf_event_open(2): type, config to config2,
// precise_ip).
struct AccessEvent {
  std::uint32_t type = 0;
  std::uint64_t config[3] = {};
  std::uint8_t precise = 0;
  bool counts_kernel = false;  // what the kernel does for the thread as well: it cannot be left out
  bool tells_source = false;   // each sample tells which cache or memory served the access
};

// One of the two: so many samples in a second, for which the kernel looks how many accesses that
// is, or a sample of every so many accesses.
struct SamplePace {
  std::uint32_t per_second = 0;
  std::uint64_t every = 0;
};

// Samples of what single threads of this process do. A sample's fields are the address, how many
// accesses it stands for, and where asked for the source, 64 bits each. Nobody is woken for them
// and no signal is sent.
//
// Thread rule: one thread. In a forked child the rings are not there, and are simply forgotten.
class ThreadEventPort {
 public:
  // `thread`: 0 for the calling one. `bytes`: room for records, a power of two, at least a page.
  // ESRCH: the thread has ended. ENOMEM: no more memory may be locked (perf_event_mlock_kb,
  // RLIMIT_MEMLOCK). EOPNOTSUPP, EINVAL: not this event, or not so. EACCES, EPERM: not for us.
  virtual Errno open(const AccessEvent& event, SamplePace pace, int thread, std::size_t bytes,
                     EventRing* ring) = 0;
  virtual void close(EventRing* ring) = 0;

 protected:
  ~ThreadEventPort() = default;
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
