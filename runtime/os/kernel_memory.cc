#include "runtime/os/kernel_memory.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "runtime/os/advice.h"
#include "runtime/os/long_pins.h"
#include "runtime/os/pagemap.h"
#include "runtime/os/raw_syscall.h"

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

namespace heaptier {
namespace {

// PAGEMAP_SCAN as in Linux 6.7's <linux/fs.h>, which older distributions' headers lack.
struct PageRegion {
  std::uint64_t start, end, categories;
};
struct PmScanArg {
  std::uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages, category_inverted,
      category_mask, category_anyof_mask, return_mask;
};
constexpr unsigned long kPagemapScan = _IOWR('f', 16, PmScanArg);
constexpr std::uint64_t kIsPresent = 1u << 3;
constexpr std::uint64_t kIsSwapped = 1u << 4;
constexpr std::uint64_t kIsZeroPage = 1u << 5;
constexpr std::uint64_t kIsHuge = 1u << 6;

constexpr std::size_t kMaxIov = 512;

static_assert(os::kAdviceDontNeed == MADV_DONTNEED && os::kAdviceFree == MADV_FREE &&
              os::kAdviceHuge == MADV_HUGEPAGE && os::kAdviceNoHuge == MADV_NOHUGEPAGE &&
              os::kAdviceDontFork == MADV_DONTFORK && os::kAdviceDontDump == MADV_DONTDUMP &&
              os::kAdviceCold == MADV_COLD);
// Linux 5.14's, which older headers lack.
#ifdef MADV_POPULATE_WRITE
static_assert(os::kAdviceFillRead == MADV_POPULATE_READ &&
              os::kAdviceFillWrite == MADV_POPULATE_WRITE);
#endif

// The system calls below go round the library's wrappers: mmap and friends are interposed by
// preload/, and what heaptier does to its own memory is not the application's doing.
void* raw_mmap(std::uintptr_t hint, std::size_t bytes, int prot, int flags) {
  // NOLINTNEXTLINE(performance-no-int-to-ptr)
  return reinterpret_cast<void*>(os::raw_syscall(SYS_mmap, hint, bytes, prot, flags, -1, 0));
}

Errno last_error() {
  return {errno};
}

bool kernel_is_at_least(unsigned major, unsigned minor) {
  utsname names;
  unsigned found_major = 0;
  unsigned found_minor = 0;
  if (uname(&names) != 0) return false;
  if (std::sscanf(names.release, "%u.%u", &found_major, &found_minor) != 2) return false;
  return found_major > major || (found_major == major && found_minor >= minor);
}

void name_mapping(std::uintptr_t at, std::size_t bytes, const char* name) {
  prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, at, bytes, name);  // a courtesy: older kernels refuse
}

}  // namespace

KernelMemory& kernel_memory_ops() {
  static constinit KernelMemory ops;
  return ops;
}

void KernelMemory::open_files() {
  pagemap_ = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  pidfd_ = static_cast<int>(os::raw_syscall(SYS_pidfd_open, getpid(), 0));
  abilities_ = {};
  abilities_.refuses_held_parts = kernel_is_at_least(6, 18);
  // Try each on one page of our own.
  void* probe = raw_mmap(0, kPageSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  if (probe == MAP_FAILED) return;
  *static_cast<char*>(probe) = 1;
  const auto at = reinterpret_cast<std::uintptr_t>(probe);
  ScannedRun run;
  std::size_t found = 0;
  std::uintptr_t next = 0;
  abilities_.pagemap_scan = true;
  abilities_.pagemap_scan = scan(at, kPageSize, &run, 1, &found, &next).ok() && found == 1;
  if (!abilities_.pagemap_scan) {
    page_flags_ = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
    abilities_.pagemap_read = true;
    abilities_.pagemap_read = scan(at, kPageSize, &run, 1, &found, &next).ok() && found == 1;
  }
  char buffer[kPageSize];
  iovec local{buffer, kPageSize};
  iovec remote{probe, kPageSize};
  abilities_.process_vm_readv =
      process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == static_cast<ssize_t>(kPageSize);
  abilities_.batched_discard =
      pidfd_ >= 0 && os::raw_syscall(SYS_process_madvise, pidfd_, &remote, 1UL, MADV_DONTNEED,
                                     0U) == static_cast<long>(kPageSize);
  os::raw_syscall(SYS_munmap, probe, kPageSize);
}

Errno KernelMemory::reserve(std::uintptr_t hint, std::size_t bytes, std::uintptr_t* out) {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (hint ? MAP_FIXED_NOREPLACE : 0);
  void* p = raw_mmap(hint, bytes, PROT_NONE, flags);
  if (p == MAP_FAILED) return last_error();
  if (hint != 0 && reinterpret_cast<std::uintptr_t>(p) != hint) {
    // A kernel before 4.17 takes the flag for a hint.
    os::raw_syscall(SYS_munmap, p, bytes);
    return {EEXIST};
  }
  *out = reinterpret_cast<std::uintptr_t>(p);
  name_mapping(*out, bytes, "heaptier");
  // Debuggers that save a core would write hundreds of GiB of holes.
  (void)advise(*out, bytes, MADV_DONTDUMP);
  return kOk;
}

Errno KernelMemory::commit(std::uintptr_t at, std::size_t bytes) {
  if (os::raw_syscall(SYS_mprotect, at, bytes, PROT_READ | PROT_WRITE) != 0) return last_error();
  (void)advise(at, bytes, MADV_DODUMP);
  return kOk;
}

Errno KernelMemory::renew(std::uintptr_t at, std::size_t bytes) {
  // In one call: between two another thread could be given the place. And without access first,
  // which no limit on memory refuses: kernels before 6.12 have unmapped the place by then.
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
  if (raw_mmap(at, bytes, PROT_NONE, flags) == MAP_FAILED) return last_error();
  name_mapping(at, bytes, "heaptier");
  return commit(at, bytes);
}

Errno KernelMemory::protect_none(std::uintptr_t at, std::size_t bytes) {
  if (os::raw_syscall(SYS_mprotect, at, bytes, PROT_NONE) != 0) return last_error();
  (void)advise(at, bytes, MADV_DONTDUMP);
  return kOk;
}

Errno KernelMemory::set_access(std::uintptr_t at, std::size_t bytes, bool on) {
  const int protection = on ? PROT_READ | PROT_WRITE : PROT_NONE;
  return os::raw_syscall(SYS_mprotect, at, bytes, protection) == 0 ? kOk : last_error();
}

Errno KernelMemory::map_private(std::size_t bytes, const char* name, std::uintptr_t* out) {
  void* p = raw_mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
  if (p == MAP_FAILED) return last_error();
  *out = reinterpret_cast<std::uintptr_t>(p);
  if (name != nullptr) name_mapping(*out, bytes, name);
  return kOk;
}

Errno KernelMemory::unmap(std::uintptr_t at, std::size_t bytes) {
  if (os::raw_syscall(SYS_munmap, at, bytes) != 0) return last_error();
  return kOk;
}

Errno KernelMemory::advise(std::uintptr_t at, std::size_t bytes, int advice) {
  for (int tries = 0; tries < 16; ++tries) {
    if (os::raw_syscall(SYS_madvise, at, bytes, advice) == 0) return kOk;
    if (errno != EAGAIN) break;  // a fork or another mapping change is under way
  }
  return last_error();
}

Errno KernelMemory::discard(const AddressRange* ranges, std::size_t count, std::size_t* done) {
  *done = 0;
  bool batched = abilities_.batched_discard;
  while (*done < count) {
    if (!batched) {
      const AddressRange& r = ranges[*done];
      if (Errno e = advise(r.start, r.bytes, MADV_DONTNEED); e.failed()) return e;
      ++*done;
      continue;
    }
    iovec iov[kMaxIov];
    const std::size_t n = std::min(count - *done, kMaxIov);
    for (std::size_t i = 0; i < n; ++i) {
      // NOLINTNEXTLINE(performance-no-int-to-ptr)
      iov[i] = {reinterpret_cast<void*>(ranges[*done + i].start), ranges[*done + i].bytes};
    }
    long released = os::raw_syscall(SYS_process_madvise, pidfd_, iov, n, MADV_DONTNEED, 0U);
    if (released < 0) {
      // An application's thread does not have our descriptor. Or the first range is refused: then
      // the plain call says so.
      batched = false;
      continue;
    }
    std::size_t left = static_cast<std::size_t>(released);
    std::size_t whole = 0;
    while (whole < n && left >= iov[whole].iov_len) left -= iov[whole++].iov_len;
    *done += whole;
    if (whole < n) {
      // Stopped inside: the plain call on that range says why, or finishes it.
      const AddressRange& r = ranges[*done];
      if (Errno e = advise(r.start, r.bytes, MADV_DONTNEED); e.failed()) return e;
      ++*done;
    }
  }
  return kOk;
}

Errno KernelMemory::copy_pages(const std::uintptr_t* from, std::size_t count, void* to,
                               std::size_t* done) {
  *done = 0;
  char* out = static_cast<char*>(to);
  while (*done < count) {
    const std::size_t n = std::min(count - *done, kMaxIov);
    iovec remote[kMaxIov];
    for (std::size_t i = 0; i < n; ++i) {
      // NOLINTNEXTLINE(performance-no-int-to-ptr)
      remote[i] = {reinterpret_cast<void*>(from[*done + i]), kPageSize};
    }
    iovec local{out + *done * kPageSize, n * kPageSize};
    const ssize_t got = process_vm_readv(getpid(), &local, 1, remote, n, 0);
    if (got < 0) return last_error();
    *done += static_cast<std::size_t>(got) / kPageSize;
    if (static_cast<std::size_t>(got) < n * kPageSize) return {EFAULT};
  }
  return kOk;
}

Errno KernelMemory::scan(std::uintptr_t at, std::size_t bytes, ScannedRun* out, std::size_t max,
                         std::size_t* found, std::uintptr_t* next) {
  *found = 0;
  *next = at;
  if (!abilities_.scans() || pagemap_ < 0) return {ENOTSUP};
  if (!abilities_.pagemap_scan) {
    return os::read_pagemap(pagemap_, page_flags_, at, bytes, out, max, found, next);
  }
  constexpr std::size_t kBatch = 64;
  PageRegion regions[kBatch];
  const std::uintptr_t end = at + bytes;
  while (*next < end && *found < max) {
    PmScanArg arg{};
    arg.size = sizeof arg;
    arg.start = *next;
    arg.end = end;
    arg.vec = reinterpret_cast<std::uintptr_t>(regions);
    arg.vec_len = std::min(kBatch, max - *found);
    arg.category_anyof_mask = kIsPresent | kIsSwapped;
    arg.return_mask = kIsPresent | kIsSwapped | kIsZeroPage | kIsHuge;
    const int n = ioctl(pagemap_, kPagemapScan, &arg);
    if (n < 0) {
      if (errno == EINTR) continue;
      return errno == ENOTTY || errno == EINVAL ? Errno{ENOTSUP} : last_error();
    }
    for (int i = 0; i < n; ++i) {
      out[(*found)++] = {regions[i].start, regions[i].end - regions[i].start,
                         (regions[i].categories & kIsHuge) != 0,
                         (regions[i].categories & kIsZeroPage) != 0};
    }
    if (arg.walk_end <= *next && n == 0) break;
    *next = arg.walk_end;
  }
  return kOk;
}

bool KernelMemory::may_hold_long_pins() {
  return os::process_may_hold_long_pins();
}

Nanos KernelMemory::now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return {std::int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec};
}

}  // namespace heaptier
