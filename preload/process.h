// What heaptier is in this process: who serves malloc, with which options, from which Space.
//
// The first call of any entry point may come before main, before any constructor, before libc has
// set `environ`. boot() makes everything ready then.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "runtime/arena.h"
#include "runtime/config/options.h"
#include "runtime/config/stats.h"

namespace heaptier::preload {

enum class Mode : std::uint8_t {
  kUnknown,  // boot() has not finished
  kJemalloc,
  kMimalloc,  // jemalloc serves libc and heaps of the application's
  kNext,      // heaptier stands aside
};

struct Process {
  std::atomic<Mode> mode{Mode::kUnknown};
  Space space;
  Options options;
  Stats stats;
  // Why kNext, for HEAPTIER_VERBOSE; nullptr: by option, or not kNext.
  const char* stands_aside = nullptr;
};

Process& process();
inline Mode mode() {
  return process().mode.load(std::memory_order_acquire);
}

// Decides the mode and makes the heap ready. True when that is done; false when it is under way
// further up in this thread's stack: the caller takes early_heap. Another thread waits.
bool boot();

// Loads mimalloc if the options want it and it can be done from here. On the long way of an
// allocation.
void start_other_heap(std::uintptr_t caller);

}  // namespace heaptier::preload
