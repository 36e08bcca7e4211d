// The threads that serve faults.
//
// Each shard has workers of class SCHED_IDLE and one of the normal class; those of one class serve,
// the others sleep (several threads, because an unprivileged thread cannot leave SCHED_IDLE again).
// ClassGovernor chooses. The handler follows the faulter: before it serves, the worker moves to the
// CPU of the faulting thread, where the data is and where the wake-up is a switch of threads
// instead of an interrupt to a sleeping CPU.
//
// The idle-class workers of a shard are its lanes: each keeps to a CPU, so that a thread that moves
// between two CPUs, or threads that fault on two, find a handler at either. A lane that reads a
// message from another CPU serves it and calls the lane of that CPU, or one that is free; a lane
// that finds no message of its own CPU any more steps off, as long as another is there.
//
// Thread rule: start, restart_in_child, supervise, stop: by one thread at a time (the background
// thread, or who holds its place in fork). pause and resume: any one thread, in pairs; supervise
// may run meanwhile. stats and is_worker_thread: any thread, any time but during stop.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "runtime/base/errno.h"
#include "runtime/base/units.h"
#include "uffd/class_governor.h"
#include "uffd/fault_sink.h"
#include "uffd/latency_histogram.h"
#include "uffd/shard.h"
#include "uffd/supervisor_place.h"
#include "uffd/thread_door.h"

namespace heaptier {

struct LoopConfig {
  // (lanes + 1) * shards stacks of `stack_bytes` each, one after the other, without guards; memory
  // that is never managed and outlives the loop. glibc puts the static thread-local storage of the
  // whole program there too: start() gives EINVAL if it does not fit. 256 KiB suit nearly every
  // program.
  void* stack_base = nullptr;
  std::size_t stack_bytes = 0;  // a multiple of 4 KiB, at least 64 KiB
  // libc's own pthread_create; null: the one that the linker finds (a preloaded wrapper would run
  // around ours).
  int (*create_thread)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*) = nullptr;
  // Idle-class workers a shard; at most kMaxWorkers / shards - 1.
  unsigned lanes = 1;
  // CPUs that workers may use at all. Empty: wherever a faulting thread runs, and for those that
  // are not known, the CPUs of the thread that calls start().
  CpuSet allowed;
  // False: the handler floats, wherever the scheduler puts it (for comparison).
  bool follow = true;
  // supervise() moves its caller away from the CPUs where handlers serve.
  bool step_aside = false;
  // The class is chosen by the governor; otherwise it stays `fixed_class` (for comparison, and for
  // hosts that refuse SCHED_IDLE).
  bool adaptive_class = true;
  HandlerClass fixed_class = HandlerClass::kIdle;
};

struct LoopStats {
  std::uint64_t faults = 0;        // messages answered
  std::uint64_t reads = 0;         // reads that brought at least one
  std::uint64_t busy_retries = 0;  // kBusy answers
  std::uint64_t repins = 0;        // moves to another CPU
  std::uint64_t class_switches = 0;
  std::uint64_t rescues = 0;       // starving workers raised to the normal class
  std::uint64_t other_events = 0;  // messages that are not faults (never asked for)
  std::uint64_t lost_shards = 0;   // file descriptors that were closed under us
  HandlerClass handler_class = HandlerClass::kIdle;
  Nanos cpu_time{};         // of all workers since start
  LatencySnapshot service;  // from the read to just before the wake-up, per fault
};

class FaultLoop {
 public:
  static constexpr unsigned kMaxWorkers = 2 * kMaxShards;
  static constexpr std::size_t kBatch = 32;      // messages a read
  static constexpr unsigned kStrangeReads = 16;  // without one of its own CPU: a lane steps off

  constexpr FaultLoop() = default;
  FaultLoop(const FaultLoop&) = delete;
  FaultLoop& operator=(const FaultLoop&) = delete;

  // `port` open in kHandler mode; it and `sink` outlive the loop. On kOk all workers exist, and are
  // about to serve; on failure none is left. Requires: the caller is of the normal class and not
  // niced, or those of that class inherit it.
  Errno start(ShardedPort& port, FaultSink& sink, const LoopConfig& config);
  bool running() const { return running_; }
  unsigned workers() const { return (lanes_ + 1) * shards_; }

  // Returns when no worker has a message in its hands nor takes another until resume(). Nanoseconds
  // when nothing is being served, else as long as the fault in hand takes. Requires: the caller
  // holds no page lock (a worker may be waiting for it), and whoever else holds one lets go of it
  // without a fault being served.
  void pause();
  void resume();

  // In a fork's child, when the parent was in pause(), and instead of resume(): makes new workers,
  // on `stacks` (as LoopConfig::stack_base; may be the same), on `fresh` (as many shards as
  // before). One of the class in force; the others when they are needed. The heap must be
  // usable already: glibc allocates a little for every thread. The caller has told thread_cpu.h of
  // the fork.
  Errno restart_in_child(ShardedPort& fresh, void* stacks);

  // Looks for faults that wait for a CPU and changes the class. About each millisecond while faults
  // arrive; microseconds.
  void supervise(Nanos now);

  // For a thread that works for long between two calls of supervise(): if a handler of the idle
  // class waits for the very CPU that the caller runs on, sleeps until it has had its turn (some
  // 70 us). A microsecond if not.
  void give_way();

  // Ends the workers and waits for them; their stacks are free afterwards. Faults stay unserved
  // from then on. Not needed at exit.
  void stop();

  // The process is about to end: idle-class workers are raised, where that is allowed, so that it
  // need not wait until there is a CPU for them to end on. Any thread.
  void hurry();

  LoopStats stats() const;
  // From the moment on that the worker may call the sink.
  bool is_worker_thread(std::uint32_t tid) const;

 private:
  // Worker::in_hand.
  static constexpr std::uint32_t kNothing = 0;
  static constexpr std::uint32_t kMessages = 1;  // messages are, or are about to be, in its hands
  static constexpr std::uint32_t kWakeups = 2;   // all are answered, some threads still sleep
  static constexpr std::size_t kHeldMessages = 2 * kBatch;

  struct Held;
  struct Hands;
  struct alignas(64) Worker {
    FaultLoop* loop = nullptr;
    unsigned number = 0;
    unsigned shard = 0;
    HandlerClass handler_class = HandlerClass::kIdle;
    pthread_t thread{};
    std::atomic<int> pinned_cpu{-1};  // set by the worker alone
    // By the supervisor at its last look: messages finished, and (lane 0) the shard's progress.
    std::uint64_t finished_seen = 0;
    std::uint64_t progress_seen = 0;
    std::atomic<bool> started{false};
    std::atomic<std::uint32_t> tid{0};
    std::atomic<std::uint32_t> in_hand{kNothing};
    std::atomic<std::uint32_t> rescued{0};  // raised to the normal class, to be lowered by itself
    std::atomic<std::uint32_t> call{0};  // futex: changes when the sleeping worker is to look again
    std::atomic<bool> off{false};        // a lane that is not needed
    std::atomic<int> go_to{-1};          // the CPU that a lane is called to
    unsigned strange = 0;  // reads in a row without a message of its own CPU; known to it alone
    std::atomic<std::uint64_t> finished{0};
    std::atomic<std::uint64_t> reads{0};
    std::atomic<std::uint64_t> busy{0};
    std::atomic<std::uint64_t> repins{0};
    std::atomic<std::uint64_t> other_events{0};
    std::atomic<std::uint32_t> lost{0};
    LatencyHistogram service;

    void reset(FaultLoop* owner, unsigned n);
  };

  static void* thread_main(void* worker);
  void run(Worker& w);
  bool may_serve(const Worker& w) const;
  void wait_for_turn(Worker& w);
  bool serve(Worker& w, Hands& h);
  // Reads more messages behind the held ones; false when there were none.
  bool take_messages(Worker& w, Hands& h);
  // Asks the sink about every held message; the unanswered ones stay.
  void answer(Worker& w, Hands& h);
  void send_wakeups(Worker& w, Hands& h, bool messages_left);
  void put_down(Worker& w, std::uint32_t state);
  void follow(Worker& w, const Held* held, std::size_t count);
  void pin(Worker& w, int cpu);
  bool call_lane_at(Worker& reader, int cpu);
  void call_up(Worker& lane);
  void step_off(Worker& w);
  void float_free(Worker& w);
  void lose_shard(Worker& w);

  // The lanes of a shard are 0 .. lanes_ - 1, the worker of the normal class comes after them.
  Worker& worker_of(unsigned shard, unsigned n) { return workers_[(lanes_ + 1) * shard + n]; }
  const Worker& worker_of(unsigned shard, unsigned n) const {
    return workers_[(lanes_ + 1) * shard + n];
  }
  Errno start_class(HandlerClass c, unsigned lanes);
  Errno start_worker(Worker& w);
  void switch_to(HandlerClass c);
  unsigned look_at_shard(unsigned shard, WorkerSample* samples);
  void rescue(Worker& w);
  void step_aside();
  void open_gate();

  ShardedPort* port_ = nullptr;
  FaultSink* sink_ = nullptr;
  LoopConfig config_;
  bool restricted_ = false;  // config_.allowed was given
  unsigned shards_ = 0;
  unsigned lanes_ = 1;
  bool running_ = false;
  int stop_event_ = -1;  // readable: stop
  std::atomic<bool> stepping_off_[kMaxShards] = {};
  // A lane was missed that is not made yet: in a fork's child.
  std::atomic<bool> lanes_wanted_{false};
  std::atomic<std::uint32_t> paused_{0};
  std::atomic<std::uint32_t> stopping_{0};
  std::atomic<HandlerClass> class_{HandlerClass::kIdle};
  std::atomic<std::uint64_t> switches_{0};
  std::atomic<std::uint64_t> pauses_{0};
  std::atomic<std::uint64_t> rescues_{0};
  ClassGovernor governor_;
  SupervisorPlace place_;
  Nanos cpu_time_of_ended_{};
  Worker workers_[kMaxWorkers];
};

}  // namespace heaptier
