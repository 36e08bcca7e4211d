#include "runtime/os/held_signals.h"

#include <signal.h>
#include <sys/syscall.h>
#include <time.h>

#include <cerrno>
#include <initializer_list>

#include "runtime/os/raw_syscall.h"

namespace heaptier::os {
namespace {

constexpr std::uint64_t bit(int signal) {
  return std::uint64_t{1} << (signal - 1);
}
constexpr std::uint64_t kBoth = bit(SIGPIPE) | bit(SIGXFSZ);

}  // namespace

// Straight to the kernel: libc's own may be the application's (or our wrapper's) to see.
WriteSignalsHeld::WriteSignalsHeld() {
  const std::uint64_t both = kBoth;
  held_ = raw_syscall(SYS_rt_sigprocmask, SIG_BLOCK, &both, &before_, sizeof both) == 0;
  if (!held_) return;
  // What was not blocked until now cannot be waiting. A sandbox is asked for this by those only who
  // block the signals themselves.
  if ((before_ & kBoth) == 0) return;
  if (raw_syscall(SYS_rt_sigpending, &pending_, sizeof pending_) != 0) pending_ = kBoth;
  pending_ &= before_ & kBoth;
}

void WriteSignalsHeld::failed(int error) {
  if (error == EPIPE) raised_ |= bit(SIGPIPE);
  if (error == EFBIG) raised_ |= bit(SIGXFSZ);
}

// The kernel hands out a thread's own signals before those sent to the process: one of the
// latter that came meanwhile stays. It raises these for the writing thread alone.
WriteSignalsHeld::~WriteSignalsHeld() {
  if (!held_) return;
  const std::uint64_t ours = raised_ & ~pending_;
  const timespec at_once{};
  for (const std::uint64_t one : {ours & bit(SIGPIPE), ours & bit(SIGXFSZ)}) {
    if (one != 0) raw_syscall(SYS_rt_sigtimedwait, &one, nullptr, &at_once, sizeof one);
  }
  raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before_, nullptr, sizeof before_);
}

}  // namespace heaptier::os
