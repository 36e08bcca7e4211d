#include "runtime/os/thread.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>

#include "runtime/base/spinlock.h"
#include "runtime/os/raw_syscall.h"

#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE (1U << 1)
#endif

namespace heaptier {

void yield_cpu() {
  sched_yield();
}

namespace os {
namespace {
constinit ThreadCreator creator = nullptr;
constinit SignalSetter setter = nullptr;
}  // namespace

void use_thread_creator(ThreadCreator create) {
  creator = create;
}
ThreadCreator thread_creator() {
  return creator != nullptr ? creator : pthread_create;
}

void use_signal_setter(SignalSetter set) {
  setter = set;
}
SignalSetter signal_setter() {
  return setter != nullptr ? setter : sigaction;
}

// One that a thread causes by its own access must reach it, blocked or not.
void block_signals(sigset_t* before) {
  sigset_t all;
  sigfillset(&all);
  for (const int own : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP}) sigdelset(&all, own);
  pthread_sigmask(SIG_BLOCK, &all, before);
}

void restore_signals(const sigset_t& before) {
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

SignalsBlocked::SignalsBlocked() {
  block_signals(&before_);
}
SignalsBlocked::~SignalsBlocked() {
  restore_signals(before_);
}

Errno start_thread(const char* name, void* stack, std::size_t stack_bytes, void* (*entry)(void*),
                   void* arg) {
  pthread_attr_t attr;
  if (int e = pthread_attr_init(&attr); e != 0) return {e};
  int error = pthread_attr_setstack(&attr, stack, stack_bytes);
  if (error == 0) error = pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
  if (error == 0) {
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    error = thread_creator()(&thread, &attr, entry, arg);
    if (error == 0) pthread_setname_np(thread, name);
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
  pthread_attr_destroy(&attr);
  return {error};
}

Errno leave_descriptor_table() {
  if (raw_syscall(SYS_close_range, 0U, ~0U, CLOSE_RANGE_UNSHARE) == 0) return kOk;
  return {errno};
}

std::uint32_t thread_id() {
  return static_cast<std::uint32_t>(raw_syscall(SYS_gettid));
}

bool thread_is_alive(std::uint32_t tid) {
  return raw_syscall(SYS_tgkill, getpid(), tid, 0) == 0 || errno != ESRCH;
}

void sleep_for(Nanos length) {
  timespec t{static_cast<time_t>(length.v / 1'000'000'000), length.v % 1'000'000'000};
  nanosleep(&t, nullptr);
}

Nanos thread_cpu_time() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return {std::int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec};
}

}  // namespace os
}  // namespace heaptier
