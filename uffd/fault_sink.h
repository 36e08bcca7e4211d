// Who resolves faults, as the threads that read them see it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "uffd/event.h"

namespace heaptier {

enum class FaultVerdict : std::uint8_t {
  kWake,  // resolved without waking: the caller wakes wake_at..+wake_bytes as its very last act
  kBusy,  // someone holds the page: ask again soon
  kLost,  // the content cannot be had again (failed its checksum): inline, the application gets the
          // SIGBUS; for a handler thread the page has been poisoned, and the access is tried again
  kGone,  // needs nothing (resolved by another, or no longer managed): the access is simply tried
          // again
};

struct FaultReply {
  FaultVerdict verdict = FaultVerdict::kGone;
  std::uintptr_t wake_at = 0;
  std::size_t wake_bytes = 0;  // 0 with kWake: the faulting page alone
};

class FaultSink {
 public:
  // Resolves one fault, or says why not. `worker`: number of the calling worker, from 0; never the
  // same for two calls at the same time, so scratch memory can be kept by it. Never touches managed
  // memory, never allocates from it, never waits for a page lock (that is what kBusy is for).
  virtual FaultReply on_fault(const FaultEvent& event, unsigned worker) = 0;

 protected:
  ~FaultSink() = default;
};

}  // namespace heaptier
