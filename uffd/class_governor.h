// Decides the scheduling class of the fault handlers. Pure: time and counters in, class out.
//
// A handler of class SCHED_IDLE answers in 5 us on a machine with slack, because a CPU that runs
// only idle-class threads counts as idle and the woken application stays where it is; a normal one
// makes the two chase each other from CPU to CPU (84 us). With every CPU busy it is the other way
// round: the idle class starves (mean 0.2-2.4 ms, p99 88 ms), the normal one answers in 12 us. So:
// idle class until a fault is seen to wait for a CPU, then the normal class for a while. A short
// while if the idle class had answered many faults before: it starves now and then even on a
// machine with slack, when another thread is put on its CPU, and is worth more than that costs.
// Otherwise the while doubles.
#pragma once

#include <cstdint>

#include "runtime/base/units.h"

namespace heaptier {

enum class HandlerClass : std::uint8_t { kIdle = 0, kNormal = 1 };
const char* to_string(HandlerClass c);

// What is seen of a worker of the class in force, or of those of a shard together.
struct WorkerSample {
  bool pending = false;        // a message waits to be read, or is in the worker's hands
  std::uint64_t progress = 0;  // grows with every message finished
  Nanos cpu{};                 // CPU time used: a slow fault is not a starving handler
};

class ClassGovernor {
 public:
  static constexpr unsigned kMostSamples = 64;
  static constexpr Nanos kStarved = millis(1);    // without progress and without CPU: starved
  static constexpr Nanos kFirstHold = millis(4);  // in the normal class before idle is tried again
  static constexpr Nanos kLongestHold = seconds(64);
  // So many faults answered by the idle class outweigh that it starves once: some 70 us saved each,
  // against kStarved and kFirstHold of the slow way.
  static constexpr std::uint64_t kWorthStarving = 64;
  // Nobody looked for so long: the process was stopped, or the machine. Says nothing of a handler.
  static constexpr Nanos kBlind = millis(100);

  HandlerClass current() const { return class_; }
  // The class from now on. `samples`: of workers of class current(), `count` at most kMostSamples,
  // always of the same in the same order; `answered`: faults that class has answered so far.
  HandlerClass decide(Nanos now, const WorkerSample* samples, unsigned count,
                      std::uint64_t answered);
  // How long the normal class is (or was last) kept.
  Nanos hold() const { return hold_; }
  std::uint64_t switches() const { return switches_; }

 private:
  struct Watch {
    bool stalled = false;
    Nanos since{};
    Nanos cpu_then{};
    std::uint64_t progress = 0;
  };
  static bool starved(Watch& watch, Nanos now, const WorkerSample& sample);
  void enter(HandlerClass next, Nanos now);

  HandlerClass class_ = HandlerClass::kIdle;
  Nanos entered_{};
  Nanos hold_{};
  Nanos looked_{};
  bool counting_ = false;
  std::uint64_t counted_from_ = 0;  // `answered` at the first look since the class was entered
  std::uint64_t switches_ = 0;
  Watch watch_[kMostSamples];
};

}  // namespace heaptier
