#include "runtime/os/kernel_events.h"

#include <linux/perf_event.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "runtime/base/units.h"
#include "runtime/os/raw_syscall.h"

namespace heaptier {
namespace {

// A page of the kernel's, and the records: 512 KiB, which hold what 5000 regions have to tell. What
// the user may lock without a limit counts for root as well, but does not stop it.
constexpr std::size_t kRecords = std::size_t{512} << 10;

// Opens the event and maps a ring for its records; all of it or nothing.
Errno open_ring(const perf_event_attr& attr, int thread, std::size_t records, EventRing* ring) {
  const long fd = os::raw_syscall(SYS_perf_event_open, &attr, thread, -1, -1, PERF_FLAG_FD_CLOEXEC);
  if (fd < 0) return {errno};
  const long mapped = os::raw_syscall(SYS_mmap, 0UL, kPageSize + records, PROT_READ | PROT_WRITE,
                                      MAP_SHARED, fd, 0);
  const int failed = mapped < 0 ? errno : 0;
  // The mapping keeps the event. The descriptor may be in the application's table, and not be ours
  // any more when we are done with it.
  ::close(static_cast<int>(fd));
  if (failed != 0) return {failed == EPERM ? ENOMEM : failed};  // locked memory
  void* const at = reinterpret_cast<void*>(mapped);             // NOLINT(performance-no-int-to-ptr)
  auto* const page = static_cast<perf_event_mmap_page*>(at);
  auto* const head = reinterpret_cast<std::uint64_t*>(&page->data_head);
  auto* const tail = reinterpret_cast<std::uint64_t*>(&page->data_tail);
  *ring = {static_cast<const unsigned char*>(at) + kPageSize, records, head, tail};
  return kOk;
}

// The page before the records is the kernel's.
void unmap(const EventRing& ring) {
  os::raw_syscall(SYS_munmap, ring.data - kPageSize, kPageSize + ring.bytes);
}

}  // namespace

Errno KernelEvents::open_tracepoint(std::uint32_t id, int thread, EventRing* ring) {
  close();
  perf_event_attr attr{};
  attr.size = sizeof attr;
  attr.type = PERF_TYPE_TRACEPOINT;
  attr.config = id;
  attr.sample_type = PERF_SAMPLE_RAW;
  attr.sample_period = 1;
  const Errno e = open_ring(attr, thread, kRecords, &ring_);
  if (e.ok()) *ring = ring_;
  return e;
}

void KernelEvents::close() {
  if (ring_.is_open()) unmap(ring_);
  forget();
}

void KernelEvents::forget() {
  ring_ = {};
}

Errno KernelThreadEvents::open(const AccessEvent& event, SamplePace pace, int thread,
                               std::size_t bytes, EventRing* ring) {
  perf_event_attr attr{};
  attr.size = sizeof attr;
  attr.type = event.type;
  attr.config = event.config[0];
  attr.config1 = event.config[1];
  attr.config2 = event.config[2];
  attr.sample_type = PERF_SAMPLE_ADDR | PERF_SAMPLE_PERIOD;
  if (event.tells_source) attr.sample_type |= PERF_SAMPLE_DATA_SRC;
  attr.freq = pace.per_second != 0 ? 1 : 0;
  if (pace.per_second != 0) {
    attr.sample_freq = pace.per_second;
  } else {
    attr.sample_period = pace.every;
  }
  attr.precise_ip = event.precise & 3;
  attr.exclude_kernel = attr.exclude_hv = event.counts_kernel ? 0 : 1;
  // Nobody waits for it: the kernel is to wake as seldom as it can.
  attr.watermark = 1;
  attr.wakeup_watermark = UINT32_MAX;
  return open_ring(attr, thread, bytes, ring);
}

void KernelThreadEvents::close(EventRing* ring) {
  if (ring->is_open()) unmap(*ring);
  *ring = {};
}

}  // namespace heaptier
