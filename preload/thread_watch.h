// Threads make themselves known as they start, so that fault handlers can follow them
// (uffd/thread_cpu.h).
#pragma once

namespace heaptier::preload {

// From the constructor: notes the calling thread; threads started from now on note themselves.
void watch_threads();

}  // namespace heaptier::preload
