// rt_sigaction(2) as programs make it that go round libc.
#pragma once

namespace heaptier::preload {

// The arguments as of syscall(SYS_rt_sigaction, ...). True: the signal is one that heaptier
// handles, the application's disposition is kept, and *result is what syscall() returns (errno
// set). False: the kernel's business. Any thread, also in signal handlers.
bool raw_sigaction(long sig, long action, long old, long mask_bytes, long* result);

}  // namespace heaptier::preload
