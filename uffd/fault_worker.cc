// The workers' half of FaultLoop: waiting, reading, following, answering, waking.
#include <algorithm>

#include "uffd/event.h"
#include "uffd/fault_loop.h"
#include "uffd/thread_cpu.h"
#include "uffd/wake_list.h"

namespace heaptier {
namespace {

// A worker's counters have one writer: a locked instruction would buy nothing.
void count_up(std::atomic<std::uint64_t>& counter) {
  counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

}  // namespace

// A message in a worker's hands.
struct FaultLoop::Held {
  FaultEvent event;
  Nanos read_at{};
  int cpu = -1;  // where its thread runs
};

// What a worker works with: on its stack, made once.
struct FaultLoop::Hands {
  Held held[kHeldMessages];
  std::size_t count = 0;
  RawEvent raw[kBatch];
  WakeList<kHeldMessages> wakes;
};

// --- A worker's life ---------------------------------------------------------------------------

void* FaultLoop::thread_main(void* worker) {
  Worker& w = *static_cast<Worker*>(worker);
  w.loop->run(w);
  return nullptr;
}

void FaultLoop::run(Worker& w) {
  // The creator may be of another class and sit on fewer CPUs. Refusals are harmless: it is then
  // served as it is. The idle class comes with the first fault: a process ends when its last thread
  // has had a CPU to end on, for which a thread of that class may wait long, and most forked
  // children end without a fault.
  bool in_class = w.handler_class != HandlerClass::kIdle;
  if (in_class) {
    [[maybe_unused]] const Errno class_set = door::set_class(0, w.handler_class);
  }
  [[maybe_unused]] const Errno affinity_set = door::set_affinity(config_.allowed);
  w.tid.store(door::thread_id(), std::memory_order_release);
  Hands hands;
  while (stopping_.load(std::memory_order_acquire) == 0) {
    if (w.rescued.exchange(0, std::memory_order_acq_rel) != 0) {
      [[maybe_unused]] const Errno lowered = door::set_class(0, w.handler_class);
    }
    if (!may_serve(w)) {
      wait_for_turn(w);
      continue;
    }
    if (const int cpu = w.go_to.exchange(-1, std::memory_order_relaxed); cpu >= 0) pin(w, cpu);
    // Read first, ask for something to read only then: the thread that was just woken usually took
    // the CPU from us, and we run again when it sleeps in its next fault.
    if (serve(w, hands)) continue;
    if (w.strange >= kStrangeReads) {
      step_off(w);
      continue;
    }
    const door::PollOutcome found = door::poll_two(port_->shard(w.shard).fd(), stop_event_, -1);
    if (found.lost) lose_shard(w);
    if (!in_class && found.ready) {
      in_class = true;
      [[maybe_unused]] const Errno class_set = door::set_class(0, w.handler_class);
    }
  }
}

bool FaultLoop::may_serve(const Worker& w) const {
  return paused_.load(std::memory_order_seq_cst) == 0 &&
         class_.load(std::memory_order_seq_cst) == w.handler_class &&
         w.lost.load(std::memory_order_relaxed) == 0 && !w.off.load(std::memory_order_seq_cst);
}

void FaultLoop::wait_for_turn(Worker& w) {
  const std::uint32_t seen = w.call.load(std::memory_order_seq_cst);
  if (may_serve(w) || stopping_.load(std::memory_order_seq_cst) != 0) return;
  door::futex_wait(w.call, seen);
}

// Somebody closed our descriptor. The kernel has forgotten the registrations with it; all that can
// be done here is not to spin, and to say so in the statistics.
void FaultLoop::lose_shard(Worker& w) {
  w.lost.store(1, std::memory_order_relaxed);
}

// --- Serving -----------------------------------------------------------------------------------

// Reads and serves what is there; false when there was nothing. The handshake with pause(), as in
// Dekker's algorithm: we raise our hand, then look whether we may; pause() forbids, then looks
// whether our hand is up. So after pause() has seen it down we take nothing.
bool FaultLoop::serve(Worker& w, Hands& h) {
  w.in_hand.store(kMessages, std::memory_order_seq_cst);
  h.count = 0;
  bool any = false;
  for (unsigned round = 0;; ++round) {
    if (round > 0) door::yield();  // all that is left is held by others: let them run
    if (may_serve(w)) any = take_messages(w, h) || any;
    if (h.count > 0) answer(w, h);
    if (h.count == 0 || stopping_.load(std::memory_order_acquire) != 0) break;
    send_wakeups(w, h, true);
  }
  send_wakeups(w, h, false);
  return any;
}

bool FaultLoop::take_messages(Worker& w, Hands& h) {
  // Beside other lanes one at a time: two threads that fault together would be answered, and go on
  // together, one after the other by one lane for ever, while the other finds nothing.
  const bool shared = lanes_ > 1 && w.handler_class == HandlerClass::kIdle;
  const std::size_t room = std::min(shared ? 1 : kBatch, kHeldMessages - h.count);
  std::size_t got = 0;
  if (room == 0) return false;
  if (port_->shard(w.shard).read_events(h.raw, room, &got).failed()) {
    lose_shard(w);
    return false;
  }
  if (got == 0) {
    ++w.strange;
    return false;
  }
  count_up(w.reads);
  const Nanos read_at = door::now();
  const std::size_t first = h.count;
  for (std::size_t i = 0; i < got; ++i) {
    DecodedEvent event = decode(h.raw[i]);
    if (event.kind != EventKind::kFault) {
      count_up(w.other_events);
      continue;
    }
    const int cpu = config_.follow ? cpu_of(event.fault.tid) : -1;
    event.fault.cpu = cpu;
    h.held[h.count++] = {event.fault, read_at, cpu};
  }
  if (config_.follow && h.count > first) follow(w, h.held + first, h.count - first);
  return true;
}

// Goes to where the new messages' threads run, unless one of them is here already or another lane
// can be had for there. Among several CPUs the first wins.
void FaultLoop::follow(Worker& w, const Held* held, std::size_t count) {
  const int here = w.pinned_cpu.load(std::memory_order_relaxed);
  int target = -1;
  for (std::size_t i = 0; i < count; ++i) {
    if (held[i].cpu < 0 || (restricted_ && !config_.allowed.has(held[i].cpu))) continue;
    if (held[i].cpu == here) {
      w.strange = 0;
      return;
    }
    if (target < 0) target = held[i].cpu;
  }
  if (target < 0) {
    float_free(w);
    return;
  }
  if (here >= 0 && w.handler_class == HandlerClass::kIdle && lanes_ > 1 &&
      call_lane_at(w, target)) {
    ++w.strange;
    return;
  }
  pin(w, target);
}

void FaultLoop::pin(Worker& w, int cpu) {
  w.strange = 0;
  CpuSet only;
  only.add(cpu);
  if (door::set_affinity(only).failed()) {  // off-line, or outside of the control group by now
    float_free(w);
    return;
  }
  w.pinned_cpu.store(cpu, std::memory_order_relaxed);
  count_up(w.repins);
}

// --- Lanes -------------------------------------------------------------------------------------

// Sees to it that a lane other than `reader` serves at that CPU from now on: the one that was there
// last, or a free one. False: there is none.
bool FaultLoop::call_lane_at(Worker& reader, int cpu) {
  Worker* free_lane = nullptr;
  for (unsigned n = 0; n < lanes_; ++n) {
    Worker& lane = worker_of(reader.shard, n);
    if (&lane == &reader) continue;
    if (!lane.started.load(std::memory_order_acquire)) {
      lanes_wanted_.store(true, std::memory_order_relaxed);
      continue;
    }
    if (lane.pinned_cpu.load(std::memory_order_relaxed) == cpu) {
      call_up(lane);
      return true;
    }
    if (lane.off.load(std::memory_order_relaxed)) free_lane = &lane;
  }
  if (free_lane == nullptr) return false;
  free_lane->go_to.store(cpu, std::memory_order_relaxed);
  call_up(*free_lane);
  return true;
}

void FaultLoop::call_up(Worker& lane) {
  if (!lane.off.exchange(false, std::memory_order_seq_cst)) return;
  lane.call.fetch_add(1, std::memory_order_seq_cst);
  door::futex_wake_all(lane.call);
}

// Unless it is the last one: then it stays, whatever it reads.
void FaultLoop::step_off(Worker& w) {
  w.strange = 0;
  if (lanes_ == 1 || w.handler_class != HandlerClass::kIdle) return;
  // One at a time, so that two do not rely on each other.
  if (stepping_off_[w.shard].exchange(true, std::memory_order_acquire)) return;
  bool another = false;
  for (unsigned n = 0; n < lanes_ && !another; ++n) {
    const Worker& lane = worker_of(w.shard, n);
    another = &lane != &w && lane.started.load(std::memory_order_relaxed) &&
              !lane.off.load(std::memory_order_seq_cst);
  }
  if (another) w.off.store(true, std::memory_order_seq_cst);
  stepping_off_[w.shard].store(false, std::memory_order_release);
}

void FaultLoop::float_free(Worker& w) {
  if (w.pinned_cpu.load(std::memory_order_relaxed) < 0) return;
  [[maybe_unused]] const Errno freed = door::set_affinity(config_.allowed);
  w.pinned_cpu.store(-1, std::memory_order_relaxed);
}

void FaultLoop::answer(Worker& w, Hands& hands) {
  std::size_t left = 0;
  for (std::size_t i = 0; i < hands.count; ++i) {
    const Held h = hands.held[i];
    const FaultReply reply = sink_->on_fault(h.event, w.number);
    if (reply.verdict == FaultVerdict::kBusy) {
      count_up(w.busy);
      hands.held[left++] = h;
      continue;
    }
    // kGone and kLost wake too: an access that is tried once more is harmless, a thread that sleeps
    // for ever is not.
    AddressRange range{reply.wake_at, reply.wake_bytes};
    if (reply.verdict != FaultVerdict::kWake || range.bytes == 0) {
      range = {h.event.address, kPageSize};
    }
    hands.wakes.add(range, h.cpu >= 0 && h.cpu == w.pinned_cpu.load(std::memory_order_relaxed));
    w.service.add(door::now() - h.read_at);
    count_up(w.finished);
  }
  hands.count = left;
}

// The very last act: a woken thread may take this CPU from an idle-class worker for as long as it
// likes. So what others wait for (pause() for our hands, supervise() for starving threads) is put
// down before the last wake-up.
void FaultLoop::send_wakeups(Worker& w, Hands& h, bool messages_left) {
  const std::size_t count = h.wakes.size();
  if (!messages_left) put_down(w, count > 1 ? kWakeups : kNothing);
  for (std::size_t i = 0; i < count; ++i) {
    if (!messages_left && count > 1 && i + 1 == count) put_down(w, kNothing);
    [[maybe_unused]] const Errno woken = port_->wake(h.wakes[i].start, h.wakes[i].bytes);
  }
  h.wakes.clear();
}

void FaultLoop::put_down(Worker& w, std::uint32_t state) {
  w.in_hand.store(state, std::memory_order_seq_cst);
  if (paused_.load(std::memory_order_seq_cst) != 0) door::futex_wake_all(w.in_hand);
}

}  // namespace heaptier
