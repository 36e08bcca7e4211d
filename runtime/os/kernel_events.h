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
  EventRing ring_;
};

class KernelThreadEvents final : public ThreadEventPort {
 public:
  Errno open(const AccessEvent& event, SamplePace pace, int thread, std::size_t bytes,
             EventRing* ring) override;
  void close(EventRing* ring) override;
};

}  // namespace heaptier
