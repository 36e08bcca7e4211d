#include "runtime/os/sandbox.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "runtime/os/process.h"
#include "runtime/os/raw_syscall.h"

#ifndef SYS_userfaultfd
#define SYS_userfaultfd 323
#endif

namespace heaptier::os {
namespace {

// The number behind a key ("\nSeccomp:") of the thread's status; -1: not there.
int status_number(const char* key) {
  char text[4096];
  if (read_file("/proc/thread-self/status", text, sizeof text) <= 0) return -1;
  const char* line = std::strstr(text, key);
  return line == nullptr ? -1 : std::atoi(line + std::strlen(key));
}

// 0: none, 1: strict, 2: filter.
int seccomp_mode() {
  const int mode = status_number("\nSeccomp:");
  return mode < 0 ? 0 : mode;
}

// Everything that heaptier's threads ask of the kernel, with arguments that do nothing. A filter
// that answers with an error is fine: every caller can live with that.
void try_all(bool nodes) {
  constexpr unsigned kCloexec = O_CLOEXEC;
  char page[64];
  char link[16];
  const long fd = raw_syscall(SYS_userfaultfd, kCloexec | O_NONBLOCK);
  raw_syscall(SYS_ioctl, fd, 0xc018aa3fUL, nullptr);  // UFFDIO_API without an argument: EFAULT
  const long device = raw_syscall(SYS_openat, AT_FDCWD, "/dev/userfaultfd", kCloexec | O_RDWR);
  raw_syscall(SYS_ioctl, device, 0xaa00UL, 0UL);
  const long map = raw_syscall(SYS_openat, AT_FDCWD, "/proc/self/pagemap", kCloexec);
  raw_syscall(SYS_ioctl, map, 0xc0606610UL, nullptr);  // PAGEMAP_SCAN
  raw_syscall(SYS_getdents64, map, page, 0);
  raw_syscall(SYS_readlinkat, AT_FDCWD, "/proc/self/exe", link, sizeof link);
  raw_syscall(SYS_pidfd_open, 0, 0);
  raw_syscall(SYS_process_vm_readv, 0, nullptr, 0UL, nullptr, 0UL, 0UL);
  raw_syscall(SYS_process_madvise, -1, nullptr, 0UL, MADV_DONTNEED, 0U);
  raw_syscall(SYS_madvise, 0UL, 0UL, MADV_DONTNEED);
  raw_syscall(SYS_mprotect, 0UL, 0UL, 0UL);
  raw_syscall(SYS_mincore, 0UL, 0UL, nullptr);
  raw_syscall(SYS_eventfd2, 0U, kCloexec);
  pollfd none{-1, 0, 0};
#ifdef SYS_poll
  raw_syscall(SYS_poll, &none, 1U, 0);
#endif
  timespec at_once{};
  raw_syscall(SYS_ppoll, &none, 1U, &at_once, nullptr, 0UL);
  raw_syscall(SYS_gettid);
  raw_syscall(SYS_sched_getaffinity, 0, 0UL, nullptr);
  raw_syscall(SYS_sched_setaffinity, 0, 0UL, nullptr);
  raw_syscall(SYS_sched_setscheduler, 0, -1, nullptr);
  raw_syscall(SYS_sched_yield);
  raw_syscall(SYS_futex, nullptr, 1, 0, nullptr, nullptr, 0);
  raw_syscall(SYS_close_range, ~0U, ~0U, 0U);
  timespec no_time{};
  raw_syscall(SYS_clock_nanosleep, CLOCK_REALTIME, 0, &no_time, nullptr);
  if (!nodes) return;
  raw_syscall(SYS_get_mempolicy, nullptr, nullptr, 0UL, nullptr, 0UL);
  raw_syscall(SYS_move_pages, 0, 0UL, nullptr, nullptr, nullptr, 0);
  raw_syscall(SYS_getcpu, nullptr, nullptr, nullptr);
  raw_syscall(SYS_mbind, 0UL, 0UL, 0, nullptr, 0UL, 0U);
}

void try_control() {
  constexpr unsigned kFlags = O_CLOEXEC | O_NONBLOCK;
  char none[16];
  raw_syscall(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  raw_syscall(SYS_connect, -1, nullptr, 0U);
  raw_syscall(SYS_bind, -1, nullptr, 0U);
  raw_syscall(SYS_listen, -1, 0);
  raw_syscall(SYS_accept4, -1, nullptr, nullptr, kFlags);
  raw_syscall(SYS_getsockopt, -1, SOL_SOCKET, SO_PEERCRED, nullptr, nullptr);
  raw_syscall(SYS_recvfrom, -1, none, 0UL, 0, nullptr, nullptr);
  raw_syscall(SYS_sendto, -1, none, 0UL, MSG_NOSIGNAL, nullptr, 0U);
  raw_syscall(SYS_openat, -1, "", kFlags);
  raw_syscall(SYS_newfstatat, -1, "", nullptr, 0);
  raw_syscall(SYS_fstat, -1, nullptr);
  raw_syscall(SYS_fchmod, -1, 0U);
  raw_syscall(SYS_fchmodat, -1, "", 0U);
  raw_syscall(SYS_mkdirat, -1, "", 0U);
  raw_syscall(SYS_mknodat, -1, "", 0U, 0U);
  raw_syscall(SYS_unlinkat, -1, "", 0);
#ifdef SYS_unlink
  raw_syscall(SYS_unlink, nullptr);
#endif
  raw_syscall(SYS_getdents64, -1, none, 0);
  raw_syscall(SYS_kill, 0x7fffffff, 0);  // beyond every process number
  raw_syscall(SYS_geteuid);
  raw_syscall(SYS_getpid);
}

void try_sampler() {
  char none[16];
  const long fd = raw_syscall(SYS_openat, AT_FDCWD, "/proc/self/stat", O_CLOEXEC);
  raw_syscall(SYS_openat, -1, "", O_WRONLY | O_CLOEXEC);
  raw_syscall(SYS_read, fd, none, sizeof none);
  raw_syscall(SYS_write, -1, none, 0UL);
  raw_syscall(SYS_getdents64, -1, none, 0);
  raw_syscall(SYS_perf_event_open, nullptr, 0, -1, -1, 0UL);
  raw_syscall(SYS_mmap, 0UL, 0UL, 0, MAP_SHARED, fd, 0UL);
  raw_syscall(SYS_munmap, 0UL, 0UL);
  raw_syscall(SYS_close, fd);
}

// Whether a process of its own dies of it.
bool would_kill(void (*what)()) {
  const int mode = seccomp_mode();
  if (mode == 0) return false;
  if (mode != 2) return true;
  // No exit signal: the application's SIGCHLD and wait() do not see it. No shared memory: nothing
  // it does is felt here.
  const long child = raw_syscall(SYS_clone, 0UL, nullptr, nullptr, nullptr, 0UL);
  if (child < 0) return true;
  if (child == 0) {
    what();
    for (;;) raw_syscall(SYS_exit_group, 0);
  }
  int status = 0;
  long got = 0;
  do {
    got = raw_syscall(SYS_wait4, child, &status, __WALL, nullptr);
  } while (got < 0 && errno == EINTR);
  return got != child || !WIFEXITED(status);
}

}  // namespace

bool filter_would_kill(bool nodes) {
  return would_kill(nodes ? [] { try_all(true); } : [] { try_all(false); });
}

bool filter_would_kill_control() {
  return would_kill(try_control);
}

bool filter_would_kill_sampler() {
  return would_kill(try_sampler);
}

unsigned seccomp_filters() {
  const int filters = status_number("\nSeccomp_filters:");
  return filters >= 0 ? static_cast<unsigned>(filters) : seccomp_mode() != 0 ? 1 : 0;
}

}  // namespace heaptier::os
