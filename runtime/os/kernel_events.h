// The kernel's streams of records: perf_event_open(2).
#pragma once

#include "runtime/base/event_port.h"

namespace heaptier {

class KernelEvents final : public EventPort {
 public:
  Errno open_tracepoint(std::uint32_t id, int thread, EventRing* ring) override;
  void close() override;
  void forget() override;

 private:
  void* memory_ = nullptr;
};

}  // namespace heaptier
