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
constexpr std::size_t kMapped = kPageSize + kRecords;

}  // namespace

Errno KernelEvents::open_tracepoint(std::uint32_t id, int thread, EventRing* ring) {
  close();
  perf_event_attr attr{};
  attr.size = sizeof attr;
  attr.type = PERF_TYPE_TRACEPOINT;
  attr.config = id;
  attr.sample_type = PERF_SAMPLE_RAW;
  attr.sample_period = 1;
  const long fd = os::raw_syscall(SYS_perf_event_open, &attr, thread, -1, -1, PERF_FLAG_FD_CLOEXEC);
  if (fd < 0) return {errno};
  const long mapped =
      os::raw_syscall(SYS_mmap, 0UL, kMapped, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  const int failed = mapped < 0 ? errno : 0;
  // The mapping keeps the event. The descriptor may be in the application's table, and not be ours
  // any more when we are done with it.
  ::close(static_cast<int>(fd));
  if (failed != 0) return {failed};
  void* const at = reinterpret_cast<void*>(mapped);  // NOLINT(performance-no-int-to-ptr)
  memory_ = at;
  auto* const page = static_cast<perf_event_mmap_page*>(at);
  auto* const head = reinterpret_cast<std::uint64_t*>(&page->data_head);
  auto* const tail = reinterpret_cast<std::uint64_t*>(&page->data_tail);
  *ring = {static_cast<const unsigned char*>(at) + kPageSize, kRecords, head, tail};
  return kOk;
}

void KernelEvents::close() {
  if (memory_ != nullptr) os::raw_syscall(SYS_munmap, memory_, kMapped);
  forget();
}

void KernelEvents::forget() {
  memory_ = nullptr;
}

}  // namespace heaptier
