// The controlling half of FaultLoop; the workers' half is fault_worker.cc.
#include "uffd/fault_loop.h"

#include <cerrno>

#include "runtime/base/spinlock.h"

namespace heaptier {
namespace {

static_assert(ClassGovernor::kMostSamples >= FaultLoop::kMaxWorkers + kMaxShards);

constexpr std::size_t kMinStack = 64 * 1024;
// As long as pause() sleeps before it looks whether the worker it waits for gets no CPU.
constexpr Nanos kPausePatience = millis(1);

}  // namespace

// --- Control -----------------------------------------------------------------------------------

Errno FaultLoop::start(ShardedPort& port, FaultSink& sink, const LoopConfig& config) {
  if (running_) return {EBUSY};
  if (config.stack_base == nullptr || config.stack_bytes < kMinStack ||
      config.stack_bytes % kPageSize != 0 || !port.is_open() || config.lanes == 0 ||
      (config.lanes + 1) * port.count() > kMaxWorkers) {
    return {EINVAL};
  }
  port_ = &port;
  sink_ = &sink;
  config_ = config;
  shards_ = port.count();
  lanes_ = config.lanes;
  restricted_ = !config_.allowed.empty();
  if (!restricted_) {
    if (Errno e = door::get_affinity(&config_.allowed); e.failed()) return e;
  }
  if (Errno e = door::make_event(&stop_event_); e.failed()) return e;
  stopping_.store(0, std::memory_order_relaxed);
  paused_.store(0, std::memory_order_relaxed);
  lanes_wanted_.store(false, std::memory_order_relaxed);
  governor_ = ClassGovernor{};
  class_.store(config_.adaptive_class ? governor_.current() : config_.fixed_class,
               std::memory_order_relaxed);
  cpu_time_of_ended_ = {};
  for (unsigned i = 0; i < workers(); ++i) workers_[i].reset(this, i);
  running_ = true;
  Errno e = start_class(class_.load(std::memory_order_relaxed), lanes_);
  if (e.ok() && config_.adaptive_class) e = start_class(HandlerClass::kNormal, 0);
  if (e.failed()) stop();
  return e;
}

void FaultLoop::Worker::reset(FaultLoop* owner, unsigned n) {
  loop = owner;
  number = n;
  shard = n / (owner->lanes_ + 1);
  const unsigned lane = n % (owner->lanes_ + 1);
  handler_class = lane == owner->lanes_ ? HandlerClass::kNormal : HandlerClass::kIdle;
  off.store(handler_class == HandlerClass::kIdle && lane != 0, std::memory_order_relaxed);
  go_to.store(-1, std::memory_order_relaxed);
  strange = 0;
  started.store(false, std::memory_order_relaxed);
  pinned_cpu.store(-1, std::memory_order_relaxed);
  finished_seen = progress_seen = 0;
  for (auto* word : {&tid, &in_hand, &rescued, &lost}) word->store(0, std::memory_order_relaxed);
  // A fork's child would copy a page for every counter that it writes: most are zero already.
  for (auto* counter : {&finished, &reads, &busy, &repins, &other_events}) {
    if (counter->load(std::memory_order_relaxed) != 0) {
      counter->store(0, std::memory_order_relaxed);
      service.clear();
    }
  }
}

// Of the idle class so many lanes a shard.
Errno FaultLoop::start_class(HandlerClass c, unsigned lanes) {
  const unsigned first = c == HandlerClass::kNormal ? lanes_ : 0;
  const unsigned end = c == HandlerClass::kNormal ? lanes_ + 1 : lanes;
  for (unsigned shard = 0; shard < shards_; ++shard) {
    for (unsigned n = first; n < end; ++n) {
      Worker& w = worker_of(shard, n);
      if (w.started.load(std::memory_order_relaxed)) continue;
      if (Errno e = start_worker(w); e.failed()) return e;
    }
  }
  return kOk;
}

Errno FaultLoop::start_worker(Worker& w) {
  pthread_attr_t attributes;
  if (int e = pthread_attr_init(&attributes); e != 0) return {e};
  char* stack = static_cast<char*>(config_.stack_base) + w.number * config_.stack_bytes;
  int failed = pthread_attr_setstack(&attributes, stack, config_.stack_bytes);
  if (failed == 0) {
    const auto create = config_.create_thread != nullptr ? config_.create_thread : pthread_create;
    // Signals belong to the application's threads.
    sigset_t before;
    door::block_signals(&before);
    failed = create(&w.thread, &attributes, thread_main, &w);
    door::restore_signals(before);
  }
  pthread_attr_destroy(&attributes);
  if (failed != 0) return {failed};
  w.started.store(true, std::memory_order_release);
  pthread_setname_np(w.thread, "heaptier-fault");
  return kOk;
}

void FaultLoop::pause() {
  pauses_.fetch_add(1, std::memory_order_relaxed);
  paused_.store(1, std::memory_order_seq_cst);
  for (unsigned i = 0; i < workers(); ++i) {
    Worker& w = workers_[i];
    for (unsigned spins = 0; w.in_hand.load(std::memory_order_seq_cst) == kMessages; ++spins) {
      if (spins < 100) {
        cpu_relax();
        continue;
      }
      // Sleep, so that an idle-class worker on this CPU can run; and see that it does.
      door::futex_wait(w.in_hand, kMessages, kPausePatience);
      if (w.in_hand.load(std::memory_order_seq_cst) == kMessages) rescue(w);
    }
  }
}

void FaultLoop::resume() {
  pauses_.fetch_add(1, std::memory_order_relaxed);
  paused_.store(0, std::memory_order_seq_cst);
  open_gate();
}

void FaultLoop::open_gate() {
  for (unsigned i = 0; i < workers(); ++i) {
    workers_[i].call.fetch_add(1, std::memory_order_seq_cst);
    door::futex_wake_all(workers_[i].call);
  }
}

Errno FaultLoop::restart_in_child(ShardedPort& fresh, void* stacks) {
  if (!running_ || fresh.count() != shards_ || !fresh.is_open()) return {EINVAL};
  // The parent's event is not ours to raise, and not even ours to close: where the parent's threads
  // had a table of descriptors of their own, the number means something else here. It goes at the
  // next exec.
  stop_event_ = -1;
  config_.stack_base = stacks;
  port_ = &fresh;
  cpu_time_of_ended_ = {};
  for (unsigned i = 0; i < workers(); ++i) workers_[i].reset(this, i);
  switches_.store(0, std::memory_order_relaxed);
  rescues_.store(0, std::memory_order_relaxed);
  paused_.store(0, std::memory_order_relaxed);
  // A lane of the parent's may have been about to step off.
  for (std::atomic<bool>& stepping : stepping_off_)
    stepping.store(false, std::memory_order_relaxed);
  Errno e = door::make_event(&stop_event_);
  if (e.ok()) e = start_class(class_.load(std::memory_order_relaxed), 1);
  if (e.failed()) stop();
  return e;
}

void FaultLoop::stop() {
  if (!running_) return;
  stopping_.store(1, std::memory_order_seq_cst);
  if (stop_event_ >= 0) door::raise_event(stop_event_);
  open_gate();
  for (unsigned i = 0; i < workers(); ++i) {
    Worker& w = workers_[i];
    if (!w.started.load(std::memory_order_relaxed)) continue;
    cpu_time_of_ended_ = cpu_time_of_ended_ + door::cpu_time(w.thread);
    pthread_join(w.thread, nullptr);
    w.started.store(false, std::memory_order_relaxed);
    w.tid.store(0, std::memory_order_relaxed);
  }
  if (stop_event_ >= 0) door::close_fd(stop_event_);
  stop_event_ = -1;
  running_ = false;
}

// --- Choice of the class -----------------------------------------------------------------------

void FaultLoop::supervise(Nanos now) {
  if (!running_ || !config_.adaptive_class || paused_.load(std::memory_order_acquire) != 0) return;
  if (lanes_wanted_.exchange(false, std::memory_order_relaxed)) {
    // No thread to be had: those that there are do the work.
    [[maybe_unused]] const Errno started = start_class(HandlerClass::kIdle, lanes_);
  }
  WorkerSample samples[ClassGovernor::kMostSamples];
  unsigned count = 0;
  std::uint64_t answered = 0;
  if (governor_.current() == HandlerClass::kIdle) {
    for (unsigned shard = 0; shard < shards_; ++shard) {
      count += look_at_shard(shard, samples + count);
      answered += samples[shard * (lanes_ + 1)].progress;
    }
  }
  if (config_.step_aside) step_aside();
  const HandlerClass after = governor_.decide(now, samples, count, answered);
  if (after != class_.load(std::memory_order_relaxed)) switch_to(after);
}

// Of the idle class: a sample for the messages that nobody has read, then one for every lane.
unsigned FaultLoop::look_at_shard(unsigned shard, WorkerSample* samples) {
  WorkerSample& unread = samples[0];
  // A pause counts as progress: nothing was to be expected meanwhile.
  const std::uint64_t pauses = pauses_.load(std::memory_order_relaxed);
  const door::PollOutcome found = door::poll_two(port_->shard(shard).fd(), -1, 0);
  unread.pending = found.ready;
  unread.progress = pauses;
  Worker* free_lane = nullptr;
  for (unsigned n = 0; n < lanes_; ++n) {
    Worker& w = worker_of(shard, n);
    WorkerSample& s = samples[n + 1];
    if (!w.started.load(std::memory_order_relaxed)) continue;
    if (found.lost) lose_shard(w);
    if (w.lost.load(std::memory_order_relaxed) != 0) unread.pending = false;
    const std::uint64_t finished = w.finished.load(std::memory_order_relaxed);
    unread.progress += finished;
    s.progress = finished + pauses;
    s.pending = w.in_hand.load(std::memory_order_relaxed) != kNothing;
    if (s.pending || unread.pending) s.cpu = door::cpu_time(w.thread);
    unread.cpu = unread.cpu + s.cpu;
    if (w.off.load(std::memory_order_relaxed)) free_lane = &w;
  }
  // The lanes in use may be buried under threads that do not fault.
  std::uint64_t& seen = worker_of(shard, 0).progress_seen;
  if (unread.pending && free_lane != nullptr && seen == unread.progress) {
    call_up(*free_lane);
    ++unread.progress;
  }
  seen = unread.progress;
  return lanes_ + 1;
}

void FaultLoop::step_aside() {
  CpuSet serving;
  unsigned handlers = 0;
  for (unsigned i = 0; i < workers(); ++i) {
    Worker& w = workers_[i];
    const std::uint64_t finished = w.finished.load(std::memory_order_relaxed);
    if (finished != w.finished_seen && w.handler_class == class_.load(std::memory_order_relaxed)) {
      serving.add(w.pinned_cpu.load(std::memory_order_relaxed));
      ++handlers;
    }
    w.finished_seen = finished;
  }
  CpuSet place;
  if (!place_.look(config_.allowed, serving, handlers, &place)) return;
  [[maybe_unused]] const Errno moved = door::set_affinity(place);
}

void FaultLoop::give_way() {
  if (!running_ || class_.load(std::memory_order_relaxed) != HandlerClass::kIdle) return;
  const int here = door::current_cpu();
  for (unsigned i = 0; i < workers(); ++i) {
    const Worker& w = workers_[i];
    if (w.pinned_cpu.load(std::memory_order_relaxed) != here || !may_serve(w)) continue;
    if (w.in_hand.load(std::memory_order_relaxed) != kMessages &&
        !door::poll_two(port_->shard(w.shard).fd(), -1, 0).ready) {
      continue;
    }
    // As short as the timer's slack allows.
    door::sleep(micros(1));
    return;
  }
}

void FaultLoop::switch_to(HandlerClass c) {
  // In a fork's child the second class is made when it is first wanted. No thread to be had: stay
  // as we are, and try again at the next call.
  if (start_class(c, 1).failed()) return;
  class_.store(c, std::memory_order_seq_cst);
  switches_.fetch_add(1, std::memory_order_relaxed);
  open_gate();
  if (c != HandlerClass::kNormal) return;
  // What the idle workers have in their hands stays there: get them a CPU.
  for (unsigned i = 0; i < workers(); ++i) {
    if (workers_[i].in_hand.load(std::memory_order_seq_cst) != kNothing) rescue(workers_[i]);
  }
}

// Raises a starving idle worker to the normal class, if we are allowed to (RLIMIT_NICE,
// CAP_SYS_NICE); otherwise it has to wait for its turn. It goes back by itself when it has nothing
// to serve.
void FaultLoop::rescue(Worker& w) {
  const std::uint32_t tid = w.tid.load(std::memory_order_acquire);
  if (w.handler_class != HandlerClass::kIdle || tid == 0) return;
  if (w.rescued.load(std::memory_order_acquire) != 0) return;
  if (door::set_class(tid, HandlerClass::kNormal).failed()) return;
  rescues_.fetch_add(1, std::memory_order_relaxed);
  // Only now: a worker that saw the mark earlier would lower itself before we raise it.
  w.rescued.store(1, std::memory_order_release);
}

void FaultLoop::hurry() {
  if (!running_) return;
  for (unsigned i = 0; i < workers(); ++i) rescue(workers_[i]);
}

// --- Reports -----------------------------------------------------------------------------------

LoopStats FaultLoop::stats() const {
  LoopStats s;
  for (unsigned i = 0; i < workers(); ++i) {
    const Worker& w = workers_[i];
    s.faults += w.finished.load(std::memory_order_relaxed);
    s.reads += w.reads.load(std::memory_order_relaxed);
    s.busy_retries += w.busy.load(std::memory_order_relaxed);
    s.repins += w.repins.load(std::memory_order_relaxed);
    s.other_events += w.other_events.load(std::memory_order_relaxed);
    s.service += w.service.snapshot();
    if (w.started.load(std::memory_order_acquire))
      s.cpu_time = s.cpu_time + door::cpu_time(w.thread);
  }
  for (unsigned shard = 0; shard < shards_; ++shard) {
    bool lost = false;
    for (unsigned n = 0; n <= lanes_; ++n) {
      lost = lost || worker_of(shard, n).lost.load(std::memory_order_relaxed) != 0;
    }
    s.lost_shards += lost ? 1 : 0;
  }
  s.cpu_time = s.cpu_time + cpu_time_of_ended_;
  s.class_switches = switches_.load(std::memory_order_relaxed);
  s.rescues = rescues_.load(std::memory_order_relaxed);
  s.handler_class = class_.load(std::memory_order_relaxed);
  return s;
}

bool FaultLoop::is_worker_thread(std::uint32_t tid) const {
  if (tid == 0) return false;
  for (unsigned i = 0; i < workers(); ++i) {
    if (workers_[i].tid.load(std::memory_order_relaxed) == tid) return true;
  }
  return false;
}

}  // namespace heaptier
