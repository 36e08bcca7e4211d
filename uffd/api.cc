#include "uffd/api.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "uffd/kernel_abi.h"
#include "uffd/thread_door.h"

namespace heaptier {
namespace {

static_assert(sizeof(RawEvent) == sizeof(uffd_msg) && alignof(RawEvent) == 8);
static_assert(offsetof(RawEvent, event) == offsetof(uffd_msg, event));
static_assert(offsetof(RawEvent, arg) == offsetof(uffd_msg, arg.pagefault.flags));
static_assert(offsetof(RawEvent, arg) + 8 == offsetof(uffd_msg, arg.pagefault.address));
static_assert(offsetof(RawEvent, arg) + 16 == offsetof(uffd_msg, arg.pagefault.feat.ptid));
static_assert(UFFD_EVENT_PAGEFAULT == 0x12 && UFFD_EVENT_FORK == 0x13 && UFFD_EVENT_REMAP == 0x14 &&
              UFFD_EVENT_REMOVE == 0x15 && UFFD_EVENT_UNMAP == 0x16);
static_assert(UFFD_PAGEFAULT_FLAG_WRITE == 1 && UFFD_PAGEFAULT_FLAG_WP == 2 &&
              UFFD_PAGEFAULT_FLAG_MINOR == 4);
static_assert(feature_bit::kWp == UFFD_FEATURE_PAGEFAULT_FLAG_WP &&
              feature_bit::kEventFork == UFFD_FEATURE_EVENT_FORK &&
              feature_bit::kSigbus == UFFD_FEATURE_SIGBUS &&
              feature_bit::kThreadId == UFFD_FEATURE_THREAD_ID &&
              feature_bit::kPoison == UFFD_FEATURE_POISON &&
              feature_bit::kWpAsync == UFFD_FEATURE_WP_ASYNC &&
              feature_bit::kMove == UFFD_FEATURE_MOVE);

constexpr int kFdFlags = O_CLOEXEC | O_NONBLOCK;
constexpr std::size_t kMaxEventsPerRead = 128;

// EAGAIN without progress means that the address space is just being changed (fork, mremap,
// munmap). That is over within milliseconds; a caller must not hang on it for ever.
constexpr unsigned kMaxFruitlessRounds = 10000;

// One ioctl on one userfaultfd; its errno, 0 for success. Never leaves a trace in the application's
// errno.
int control(int fd, unsigned long request, void* argument) {
  const int before = errno;
  const int failed = ioctl(fd, request, argument) == 0 ? 0 : errno;
  errno = before;
  return failed;
}

int open_by_syscall(int flags, int* fd) {
  const long got = syscall(SYS_userfaultfd, kFdFlags | flags);
  if (got < 0) return errno;
  *fd = static_cast<int>(got);
  return 0;
}

int open_by_device(int* fd) {
  const int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
  if (device < 0) return errno;
  const int got = ioctl(device, USERFAULTFD_IOC_NEW, kFdFlags);
  const int failed = got < 0 ? errno : 0;
  ::close(device);
  if (failed == 0) *fd = got;
  return failed;
}

bool sysctl_allows_everybody() {
  const int fd = open("/proc/sys/vm/unprivileged_userfaultfd", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  char value = '0';
  const bool is_one = read(fd, &value, 1) == 1 && value == '1';
  ::close(fd);
  return is_one;
}

// Programs expect the lowest free number from open(), redirect to numbers below ten and close
// everything up to some limit: the further up, the better. Falls back on the number there is.
int move_out_of_the_way(int fd) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return fd;
  const rlim_t top = std::min<rlim_t>(limit.rlim_cur, 1024);
  if (top < 128) return fd;
  const int high = fcntl(fd, F_DUPFD_CLOEXEC, static_cast<int>(top - 64));
  if (high < 0) return fd;
  ::close(fd);
  return high;
}

// Agrees with the kernel on the first of the feature sets that it knows. A refused set leaves the
// descriptor as it was, an accepted one is final; the answer names all that the kernel could do.
int agree_on_features(int fd, const std::uint64_t* sets, unsigned count, std::uint64_t* kernel) {
  int failed = EINVAL;
  for (unsigned i = 0; i < count; ++i) {
    uffdio_api api{};
    api.api = UFFD_API;
    api.features = sets[i];
    failed = control(fd, UFFDIO_API, &api);
    if (failed == 0) {
      *kernel = api.features;
      return 0;
    }
    if (failed != EINVAL) break;
  }
  return failed;
}

// Repeats `step(done)` until `bytes` are done. A step reports what the kernel says: the ioctl's
// errno and its result field, which holds bytes done or a negative errno; both speak of one call,
// and a partial success is EAGAIN.
struct StepResult {
  int failed = 0;
  std::int64_t field = 0;
};

template <class Step>
RunResult run_to_the_end(std::size_t bytes, Step step) {
  std::size_t done = 0;
  unsigned fruitless = 0;
  while (done < bytes) {
    const StepResult r = step(done);
    if (r.failed == 0) return {kOk, bytes};
    if (r.field > 0) {
      done += static_cast<std::size_t>(r.field);
      fruitless = 0;
      continue;  // the next call says what is wrong with the page at `done`
    }
    const int why = r.field < 0 ? static_cast<int>(-r.field) : r.failed;
    if ((why != EAGAIN && why != EINTR) || ++fruitless == kMaxFruitlessRounds) return {{why}, done};
    door::yield();
  }
  return {kOk, done};
}

}  // namespace

Errno Userfaultfd::open(OpenMode mode, Source* source, std::uint64_t feature_mask) {
  if (is_open()) return {EBUSY};
  ErrnoKeeper keeper;
  int fd = -1;
  Source from = Source::kNone;
  const int refused = open_by_syscall(0, &fd);
  if (refused == 0) {
    from = sysctl_allows_everybody() ? Source::kSysctl : Source::kSyscallPrivileged;
  } else if (open_by_device(&fd) == 0) {
    from = Source::kDevice;
  } else if (mode == OpenMode::kInline && open_by_syscall(UFFD_USER_MODE_ONLY, &fd) == 0) {
    from = Source::kUserModeOnly;
  }
  if (source != nullptr) *source = from;
  if (from == Source::kNone) return {refused};

  using namespace feature_bit;
  const std::uint64_t handler_sets[] = {(kThreadId | kMove) & feature_mask,
                                        kThreadId & feature_mask, 0};
  const std::uint64_t inline_sets[] = {(kSigbus | kMove) & feature_mask, kSigbus & feature_mask};
  std::uint64_t kernel = 0;
  const int failed = mode == OpenMode::kHandler ? agree_on_features(fd, handler_sets, 3, &kernel)
                                                : agree_on_features(fd, inline_sets, 2, &kernel);
  features_ = features_from_bits(kernel & feature_mask);
  if (failed != 0 || (mode == OpenMode::kInline && !features_.sigbus)) {
    ::close(fd);
    features_ = {};
    if (source != nullptr) *source = Source::kNone;
    return {failed == 0 ? ENOTSUP : failed};
  }
  fd_ = move_out_of_the_way(fd);
  return kOk;
}

void Userfaultfd::close() {
  if (!is_open()) return;
  ErrnoKeeper keeper;
  ::close(fd_);
  fd_ = -1;
  features_ = {};
}

Errno Userfaultfd::read_events(RawEvent* out, std::size_t max, std::size_t* n) {
  ErrnoKeeper keeper;
  *n = 0;
  for (;;) {
    const ssize_t got = read(fd_, out, std::min(max, kMaxEventsPerRead) * sizeof(RawEvent));
    if (got >= 0) {
      *n = static_cast<std::size_t>(got) / sizeof(RawEvent);
      return kOk;
    }
    if (errno == EAGAIN) return kOk;
    if (errno != EINTR) return {errno};
  }
}

Errno Userfaultfd::register_range(std::uintptr_t at, std::size_t bytes) {
  if (!features_.wp) return {ENOTSUP};
  uffdio_register arg{};
  arg.range = {at, bytes};
  arg.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP;
  return {control(fd_, UFFDIO_REGISTER, &arg)};
}

Errno Userfaultfd::unregister_range(std::uintptr_t at, std::size_t bytes) {
  uffdio_range arg{at, bytes};
  return {control(fd_, UFFDIO_UNREGISTER, &arg)};
}

RunResult Userfaultfd::copy(std::uintptr_t to, const void* from, std::size_t bytes, bool wp,
                            bool wake) {
  const auto source = reinterpret_cast<std::uintptr_t>(from);
  return run_to_the_end(bytes, [&](std::size_t done) {
    uffdio_copy arg{};
    arg.dst = to + done;
    arg.src = source + done;
    arg.len = bytes - done;
    arg.mode = (wp ? UFFDIO_COPY_MODE_WP : 0) | (wake ? 0 : UFFDIO_COPY_MODE_DONTWAKE);
    const int failed = control(fd_, UFFDIO_COPY, &arg);
    return StepResult{failed, arg.copy};
  });
}

RunResult Userfaultfd::zero(std::uintptr_t to, std::size_t bytes, bool wake) {
  return run_to_the_end(bytes, [&](std::size_t done) {
    uffdio_zeropage arg{};
    arg.range = {to + done, bytes - done};
    arg.mode = wake ? 0 : UFFDIO_ZEROPAGE_MODE_DONTWAKE;
    const int failed = control(fd_, UFFDIO_ZEROPAGE, &arg);
    return StepResult{failed, arg.zeropage};
  });
}

RunResult Userfaultfd::move(std::uintptr_t to, std::uintptr_t from, std::size_t bytes, bool wake) {
  if (!features_.move) return {{ENOTSUP}, 0};
  return run_to_the_end(bytes, [&](std::size_t done) {
    uffdio_move arg{};
    arg.dst = to + done;
    arg.src = from + done;
    arg.len = bytes - done;
    // Without ALLOW_SRC_HOLES: an absent page must not be taken for a moved one.
    arg.mode = wake ? 0 : UFFDIO_MOVE_MODE_DONTWAKE;
    const int failed = control(fd_, UFFDIO_MOVE, &arg);
    return StepResult{failed, arg.move};
  });
}

Errno Userfaultfd::write_protect(std::uintptr_t at, std::size_t bytes, bool on, bool wake) {
  const RunResult r = run_to_the_end(bytes, [&](std::size_t) {
    uffdio_writeprotect arg{};
    arg.range = {at, bytes};
    // Protecting wakes nobody, and the kernel refuses to be told so.
    arg.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : (wake ? 0 : UFFDIO_WRITEPROTECT_MODE_DONTWAKE);
    return StepResult{control(fd_, UFFDIO_WRITEPROTECT, &arg), 0};
  });
  return r.error;
}

Errno Userfaultfd::wake(std::uintptr_t at, std::size_t bytes) {
  uffdio_range arg{at, bytes};
  return {control(fd_, UFFDIO_WAKE, &arg)};
}

RunResult Userfaultfd::poison(std::uintptr_t at, std::size_t bytes) {
  if (!features_.poison) return {{ENOTSUP}, 0};
  return run_to_the_end(bytes, [&](std::size_t done) {
    uffdio_poison arg{};
    arg.range = {at + done, bytes - done};
    const int failed = control(fd_, UFFDIO_POISON, &arg);
    return StepResult{failed, arg.updated};
  });
}

ProbeResult probe() {
  ErrnoKeeper keeper;
  ProbeResult result;
  // Asks the descriptor what the kernel can do and gives it back.
  const auto ask_and_close = [&result](int fd) {
    const std::uint64_t none = 0;
    std::uint64_t kernel = 0;
    if (agree_on_features(fd, &none, 1, &kernel) == 0) {
      result.features = features_from_bits(kernel);
    }
    ::close(fd);
  };
  int fd = -1;
  result.errno_device = open_by_device(&fd);
  if (result.errno_device == 0) {
    result.source = Source::kDevice;
    ask_and_close(fd);
  }
  result.errno_syscall = open_by_syscall(0, &fd);
  if (result.errno_syscall == 0) {
    result.source = sysctl_allows_everybody() ? Source::kSysctl : Source::kSyscallPrivileged;
    ask_and_close(fd);
  }
  if (open_by_syscall(UFFD_USER_MODE_ONLY, &fd) == 0) {
    result.user_mode_only_works = true;
    ask_and_close(fd);
  }
  return result;
}

}  // namespace heaptier
