// Sandboxes that the application has put itself into.
#pragma once

namespace heaptier::os {

// True if a seccomp filter is in force for the calling thread that kills the process for a system
// call that heaptier would make. Found out in a process of its own, which shares nothing and which
// the application cannot see end. Costs a read of /proc where there is no filter. `nodes`: with
// what a chain of memory nodes needs.
bool filter_would_kill(bool nodes);

// The same for what the control socket needs (control_door.h).
bool filter_would_kill_control();

// The same for what DAMON needs (runtime/sampling/damon.h).
bool filter_would_kill_sampler();

// How many filters are in force for the calling thread; before Linux 5.9: 1 for any number. Opens,
// reads and closes a file, and nothing else.
unsigned seccomp_filters();

}  // namespace heaptier::os
