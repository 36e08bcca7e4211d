#include "uffd/thread_door.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>

namespace heaptier::door {
namespace {

Nanos to_nanos(const timespec& t) {
  return seconds(t.tv_sec) + Nanos{t.tv_nsec};
}

}  // namespace

std::uint32_t thread_id() {
  return static_cast<std::uint32_t>(syscall(SYS_gettid));
}

Nanos now() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return to_nanos(t);
}

void yield() {
  sched_yield();
}

void sleep(Nanos at_least) {
  ErrnoKeeper keeper;
  const timespec time{at_least.v / seconds(1).v, at_least.v % seconds(1).v};
  (void)nanosleep(&time, nullptr);
}

int current_cpu() {
  ErrnoKeeper keeper;
  return sched_getcpu();
}

// The raw calls: glibc's wrappers want cpu_set_t, which is the same words.
Errno get_affinity(CpuSet* out) {
  ErrnoKeeper keeper;
  *out = {};
  const long got = syscall(SYS_sched_getaffinity, 0, sizeof out->words, out->words);
  return got < 0 ? Errno{errno} : kOk;
}

Errno set_affinity(const CpuSet& cpus) {
  ErrnoKeeper keeper;
  const long got = syscall(SYS_sched_setaffinity, 0, sizeof cpus.words, cpus.words);
  return got < 0 ? Errno{errno} : kOk;
}

Errno set_class(std::uint32_t tid, HandlerClass c) {
  ErrnoKeeper keeper;
  const sched_param none{};
  const int policy = c == HandlerClass::kIdle ? SCHED_IDLE : SCHED_OTHER;
  return sched_setscheduler(static_cast<pid_t>(tid), policy, &none) == 0 ? kOk : Errno{errno};
}

void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t seen, Nanos at_most) {
  ErrnoKeeper keeper;
  timespec limit{};
  limit.tv_sec = at_most.v / seconds(1).v;
  limit.tv_nsec = at_most.v % seconds(1).v;
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, seen, at_most.v < 0 ? nullptr : &limit);
}

void futex_wake_all(std::atomic<std::uint32_t>& word) {
  ErrnoKeeper keeper;
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 0x7fffffff);
}

PollOutcome poll_two(int first, int second, int timeout_ms) {
  ErrnoKeeper keeper;
  pollfd fds[2] = {{first, POLLIN, 0}, {second, POLLIN, 0}};
  PollOutcome outcome;
  if (poll(fds, 2, timeout_ms) <= 0) return outcome;
  outcome.ready = (fds[0].revents & POLLIN) != 0;
  outcome.lost = (fds[0].revents & (POLLNVAL | POLLERR)) != 0;
  outcome.stop = fds[1].revents != 0;
  return outcome;
}

Errno make_event(int* out) {
  ErrnoKeeper keeper;
  const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) return {errno};
  const int high = fcntl(fd, F_DUPFD_CLOEXEC, 512);
  if (high < 0) {
    *out = fd;
    return kOk;
  }
  close(fd);
  *out = high;
  return kOk;
}

void raise_event(int fd) {
  ErrnoKeeper keeper;
  const std::uint64_t one = 1;
  // Fails only when the counter is full, and then it is readable anyway.
  [[maybe_unused]] const ssize_t written = write(fd, &one, sizeof one);
}

void close_fd(int fd) {
  ErrnoKeeper keeper;
  close(fd);
}

void block_signals(sigset_t* before) {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, before);
}

void restore_signals(const sigset_t& before) {
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Nanos cpu_time(pthread_t thread) {
  ErrnoKeeper keeper;
  clockid_t clock{};
  timespec t{};
  if (pthread_getcpuclockid(thread, &clock) != 0 || clock_gettime(clock, &t) != 0) return {};
  return to_nanos(t);
}

}  // namespace heaptier::door
