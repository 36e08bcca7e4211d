// Samples of memory accesses as a sampler (sampler.h): the processor picks one access of many by
// each thread of the program and tells its address (Intel's PEBS, AMD's IBS).
//
// A ring for each event of each thread, which the kernel writes and we read each round. Threads
// that are new are found by looking at /proc/self/task now and then. heaptier's own are left out.
// Where there are more threads than can be sampled, those that told nothing give way in turn.
//
// Thread rule: the background thread, unless said otherwise.
#pragma once

#include <atomic>
#include <cstdint>

#include "runtime/base/event_port.h"
#include "runtime/config/stats.h"
#include "runtime/sampling/access_events.h"
#include "runtime/sampling/perf_pace.h"
#include "runtime/sampling/sampler.h"

namespace heaptier {

class PerfSampler final : public Sampler {
 public:
  static constexpr std::uint32_t kMostThreads = 256;

  PerfSampler(FileTree& files, ThreadEventPort& events, Stats& stats)
      : files_(files), events_(events), stats_(stats) {}

  // Whether this processor and kernel let us have it, tried on the calling thread. Changes nothing.
  // What why_not() says, in one clause without an end.
  Errno look(AccessEvents* what);
  const char* why_not() const { return why_not_; }

  // `budget`: of CPU time, in 1/10000. ENOMEM, or what why_not() says.
  Errno begin(unsigned budget, Nanos now);
  // The same of events that are known. `every`: see SamplePace; 0: as the budget allows.
  Errno begin(const AccessEvents& what, std::uint64_t every, unsigned budget, Nanos now);

  bool tells() const override { return tells_.load(std::memory_order_relaxed); }
  void round(const SampledBlocks& blocks, Nanos now, HeatSink& sink) override;
  void stop() override;
  // In a forked child: the parent's rings are not there, its own thread is found in the next round.
  void forget();

  // Any thread.
  void read(StatsSnapshot* out) const;

 private:
  struct Watched {
    int thread = 0;     // 0: nobody; one of heaptier's own has no rings
    bool here = false;  // found by the last look
    std::uint32_t rate = 0;
    Nanos heard{};  // the last sample, or when it was opened
    EventRing rings[AccessEvents::kMost];
  };
  class Look;  // at the threads that there are

  Errno refuse(Errno e);
  Errno try_event(AccessEvent* event);
  bool is_own(int thread);
  Watched* find(int thread);
  Watched* free_place();
  Errno open(Watched* w, int thread, Nanos now);
  void close(Watched* w);
  void read_rings(Nanos now, HeatSink& sink);
  void read_ring(Watched& w, unsigned event, Nanos now, HeatSink& sink);
  void look_for_threads(Nanos now);
  void close_ended();
  std::uint32_t make_way(Nanos now);
  void begin_pace(Nanos now);
  void keep_pace(Nanos now);
  void reopen(Nanos now);
  void count_threads();
  std::uint64_t rate_limit();
  SamplePace pace() const;
  void give_up();

  FileTree& files_;
  ThreadEventPort& events_;
  Stats& stats_;
  const char* why_not_ = "";
  AccessEvents what_;
  Watched* watched_ = nullptr;  // kMostThreads
  std::uint64_t every_ = 0;
  std::uint64_t wanted_ = 0;  // samples in a second
  unsigned filters_ = 0;      // seccomp filters when it began
  PerfPace pace_;
  std::uint64_t came_ = 0;  // since measured_
  bool throttled_ = false;
  bool begun_ = false;  // the pace is known
  Nanos measured_{};
  Nanos next_look_{};
  Nanos next_turn_{};
  Nanos no_room_until_{};   // no more memory could be locked
  std::uint32_t hand_ = 0;  // in the list of threads: whose turn it is
  unsigned failures_ = 0;   // looks in a row at which nothing could be opened
  std::atomic<bool> tells_{false};
  std::atomic<std::uint32_t> threads_{0};
  std::atomic<std::uint32_t> left_out_{0};
  std::atomic<std::uint32_t> rate_{0};
};

}  // namespace heaptier
