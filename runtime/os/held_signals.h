// The signals that a write raises where it fails, kept from ending the application for a line that
// is heaptier's: SIGPIPE (a pipe or socket without a reader) and SIGXFSZ (a file longer than
// RLIMIT_FSIZE allows).
#pragma once

#include <cstdint>

namespace heaptier::os {

// While one lives, the calling thread gets neither. What its own writes raise is taken back at the
// end; what others send, or what was pending before, is delivered then. Takes no lock, allocates
// nothing and asks nothing of libc: before constructors, in any thread, in a forked child.
class WriteSignalsHeld {
 public:
  WriteSignalsHeld();
  ~WriteSignalsHeld();
  WriteSignalsHeld(const WriteSignalsHeld&) = delete;
  WriteSignalsHeld& operator=(const WriteSignalsHeld&) = delete;

  // A write of this thread failed with `error` (an errno constant).
  void failed(int error);

 private:
  std::uint64_t before_ = 0;   // what the thread blocked, as the kernel counts: signal n is bit n-1
  std::uint64_t pending_ = 0;  // of the two, those that the application had waiting already
  std::uint64_t raised_ = 0;
  bool held_ = false;
};

}  // namespace heaptier::os
