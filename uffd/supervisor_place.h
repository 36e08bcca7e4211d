// Where the thread that supervises the handlers may run: not where they serve. To the scheduler a
// CPU whose application thread waits for an idle-class handler is an idle one, so it likes to put
// the next thread that wakes there, and handler and application then wait until that thread is
// done. Where it is, it stays, so that the others can step aside from it: two that both do so meet
// again and again (800 moves of the handler a second against 200). Pure: CPUs in, CPUs out.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <iterator>

#include "uffd/thread_door.h"

namespace heaptier {

class SupervisorPlace {
 public:
  // Looks from one decision to the next.
  static constexpr unsigned kPeriod = 64;
  // The place is left when a CPU of it has served in so many of them.
  static constexpr unsigned kTooOften = kPeriod / 4 * 3;

  // `serving`: where `handlers` handlers have served faults since the last look. True: the
  // thread's CPUs are to be set to *place.
  bool look(const CpuSet& allowed, const CpuSet& serving, unsigned handlers, CpuSet* place) {
    for (std::size_t word = 0; word < std::size(serving.words); ++word) {
      for (std::uint64_t rest = serving.words[word]; rest != 0; rest &= rest - 1) {
        ++served_[word * 64 + static_cast<std::size_t>(std::countr_zero(rest))];
      }
    }
    handlers_ += handlers;
    busy_looks_ += handlers != 0 ? 1 : 0;
    if (++looks_ < kPeriod) return false;
    // As many as there are most of the time: a thread that changes CPUs has two for a moment.
    const unsigned at_once = busy_looks_ == 0 ? 0 : (handlers_ + busy_looks_ / 2) / busy_looks_;
    CpuSet wanted = at_once == 0 ? allowed : choose(allowed, at_once);
    looks_ = handlers_ = busy_looks_ = 0;
    std::fill_n(served_, CpuSet::kMost, std::uint8_t{0});
    if (wanted == (moved_ ? place_ : allowed)) return false;
    moved_ = true;
    place_ = wanted;
    *place = wanted;
    return true;
  }

 private:
  // All but as many CPUs as handlers serve: those where they served most.
  CpuSet choose(const CpuSet& allowed, unsigned handlers) const {
    if (moved_ && !(place_ == allowed) && !too_often(place_)) return place_;
    CpuSet rest = allowed;
    for (unsigned i = 0; i < handlers; ++i) {
      int most = -1;
      for (int cpu = 0; cpu < CpuSet::kMost; ++cpu) {
        if (rest.has(cpu) && (most < 0 || served_[cpu] > served_[most])) most = cpu;
      }
      CpuSet taken;
      taken.add(most);
      rest = rest.without(taken);
    }
    return rest.empty() ? allowed : rest;
  }
  bool too_often(const CpuSet& cpus) const {
    for (int cpu = 0; cpu < CpuSet::kMost; ++cpu) {
      if (cpus.has(cpu) && served_[cpu] >= kTooOften) return true;
    }
    return false;
  }

  CpuSet place_;
  bool moved_ = false;
  unsigned looks_ = 0;
  unsigned handlers_ = 0;
  unsigned busy_looks_ = 0;
  std::uint8_t served_[CpuSet::kMost] = {};
};

}  // namespace heaptier
