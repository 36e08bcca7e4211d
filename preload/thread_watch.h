// Threads make themselves known as they start, so that fault handlers can follow them
// (uffd/thread_cpu.h).
#pragma once

namespace heaptier::preload {

// From the constructor: notes the calling thread; threads started from now on note themselves.
void watch_threads();

// No other thread of the application's is alive.
bool is_last_thread();
// In a forked child.
void count_threads_in_child();

}  // namespace heaptier::preload
