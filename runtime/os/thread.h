// Threads of heaptier's own, and what they need of the scheduler.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <cstddef>
#include <cstdint>

#include "runtime/base/errno.h"
#include "runtime/base/units.h"

namespace heaptier::os {

// libc's own pthread_create, for a process whose visible one is a wrapper. Set once, before
// start_thread.
using ThreadCreator = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
void use_thread_creator(ThreadCreator create);
ThreadCreator thread_creator();

// The same for sigaction.
using SignalSetter = int (*)(int, const struct sigaction*, struct sigaction*);
void use_signal_setter(SignalSetter set);
SignalSetter signal_setter();

// While one lives, its thread gets no signal but those that it causes itself.
class SignalsBlocked {
 public:
  SignalsBlocked();
  ~SignalsBlocked();
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};
// The same in two steps, for what does not end where it began (fork).
void block_signals(sigset_t* before);
void restore_signals(const sigset_t& before);

// Starts a detached thread with every signal blocked, running entry(arg) on the given stack.
Errno start_thread(const char* name, void* stack, std::size_t stack_bytes, void* (*entry)(void*),
                   void* arg);

// Gives the calling thread (and the threads it starts) a descriptor table of its own, empty: what
// heaptier opens afterwards the application neither sees nor closes, and nothing of the
// application's is kept open.
Errno leave_descriptor_table();

std::uint32_t thread_id();
// Whether a thread of this process with that id exists.
bool thread_is_alive(std::uint32_t tid);
void sleep_for(Nanos length);
// CPU time used by the calling thread.
Nanos thread_cpu_time();

}  // namespace heaptier::os
