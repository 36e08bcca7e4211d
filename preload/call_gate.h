// When malloc takes the long way: never for an ordinary caller, unless the engine wants to be
// woken. Waking starts threads, which jemalloc's locks do not allow; so the heap's news only close
// the gate, and the next malloc, called from the application, wakes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/heap/content.h"
#include "runtime/heap/gates.h"

namespace heaptier::preload {

// Where the heap's news go: on to the engine.
ContentSink& content_sink();

// Opens the gate as it is to be in this mode: libc's own allocations take the long way, the rest
// the shortest there is. After libc's code has been learnt.
void open_call_gate();

// From the constructor, when threads can be started. Before it nothing is woken.
void allow_waking();

// On the long way, before memory is asked for. Wakes the engine if it wants that and `caller` is
// the application: libc and the dynamic linker may hold locks that starting a thread needs.
void wake_if_wanted(std::uintptr_t caller);

// While one of these lives every allocation comes from the early heap: in a forked child until
// faults are served again. Threads are started then, and the heap they would allocate from may be
// away. One thread runs besides heaptier's own.
class HeapAside {
 public:
  HeapAside();
  ~HeapAside();
  HeapAside(const HeapAside&) = delete;
  HeapAside& operator=(const HeapAside&) = delete;
  static bool now();

 private:
  std::size_t call_bytes_;
  bool givers_pass_;
  const OtherHeap* other_serves_;
};

}  // namespace heaptier::preload
