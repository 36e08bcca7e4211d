// Signals as the program sets them (signal_abi.cc, and the older ways in old_signals_abi.cc).
#pragma once

#include <signal.h>

#include <cstdint>

namespace heaptier::preload {

// Once, before the program runs.
void open_signals();
void open_old_signals();

// Whether SIGSEGV must not be blocked in this process, nor by the masks of handlers.
bool stays_open();

// A signal as a bit of a set; 0: there is no such signal.
std::uint64_t bit_of(int sig);

// What sigaction() and sigprocmask() do for the program. Any thread, also in signal handlers.
int set_disposition(int sig, const struct sigaction* action, struct sigaction* old);
int change_blocked(int how, const sigset_t* set, sigset_t* old);

}  // namespace heaptier::preload
