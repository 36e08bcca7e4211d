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

// While one of these lives, what its thread asks for comes from the early heap. libc takes a little
// memory for every thread that it makes, and a thread that makes one of heaptier's own must not
// wait for the heap: for a page of it that is away, or for a lock of it held by somebody who waits
// for such a page. It may be the one that has to see to it that those who serve faults get a CPU.
//
// Thread rule: one at a time, which is up to whoever starts heaptier's threads (Engine::wake, then
// the background thread alone).
class HeapAsideForThread {
 public:
  HeapAsideForThread();
  ~HeapAsideForThread();
  HeapAsideForThread(const HeapAsideForThread&) = delete;
  HeapAsideForThread& operator=(const HeapAsideForThread&) = delete;
  // Of the calling thread.
  static bool now();

 private:
  bool was_open_;
};

}  // namespace heaptier::preload
