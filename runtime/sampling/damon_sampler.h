// DAMON as a sampler (sampler.h): which ranges of the heap it is given, how often it looks at them
// for the CPU time that it may take, and what becomes of its reports.
//
// Thread rule: the background thread, unless said otherwise.
#pragma once

#include <atomic>
#include <cstdint>

#include "runtime/config/stats.h"
#include "runtime/leaving.h"
#include "runtime/os/translations.h"
#include "runtime/sampling/damon.h"
#include "runtime/sampling/damon_pace.h"
#include "runtime/sampling/sampler.h"

namespace heaptier {

class DamonSampler final : public Sampler {
 public:
  DamonSampler(OrderTree& files, EventPort& events, Stats& stats)
      : damon_(files, events), stats_(stats) {}

  // Starts it, at first for a part of what is wanted, so that it is known that it can be had.
  // `budget`: of CPU time, in 1/10000, not 0. ENOMEM, or what why_not() says.
  Errno begin(int process, const SampledBlocks& blocks, unsigned budget, Nanos now);
  const char* why_not() const { return why_not_; }

  bool tells() const override { return tells_.load(std::memory_order_relaxed); }
  void round(const SampledBlocks& blocks, Nanos now, HeatSink& sink) override;
  void stop() override;
  // Has what CPUs remember be seen by the next look. As often as looks come; between rounds, too.
  void have_forgotten(Nanos now);
  // When that is due again, or `at_most`.
  Nanos until_forgotten(Nanos now, Nanos at_most) const;
  // In a forked child, which is not looked at: DAMON is in use.
  void forget();
  bool left_to_parent() const { return left_to_parent_; }

  // The process ends. True: something is to be put in order by the background thread, which is to
  // be woken. Any thread.
  bool leave();
  // The kernel ends a kdamond after its next look.
  void await_left() { leaving_.await(kLongestLook + millis(150)); }
  // The other side of it, often called.
  void see_who_leaves();

  // Any thread.
  void read(StatsSnapshot* out) const;

 private:
  Errno start(const SampledBlocks& blocks, std::uint32_t most, Nanos now);
  HeapPace plan(const SampledBlocks& blocks, std::uint32_t most);
  std::uint32_t make_ranges(const SampledBlocks& blocks, std::uint32_t group);
  void take_reports(Nanos now, HeatSink& sink);
  void measure(Nanos now);
  bool look_due(const SampledBlocks& blocks, Nanos now);
  void try_again(const SampledBlocks& blocks, Nanos now);
  bool sandboxed();
  void give_up();

  Damon damon_;
  os::Translations translations_;
  Stats& stats_;
  const char* why_not_ = "";
  SampledRange* ranges_ = nullptr;  // kMostRegions
  int process_ = 0;
  unsigned budget_ = 0;
  unsigned filters_ = 0;  // seccomp filters when it began
  HeapPace pace_;
  Nanos cost_ = kUsualLookCost;      // of a look at a region
  Nanos planned_{};                  // whether another pace would be better
  std::uint64_t covered_ = 0;        // what is looked at, as a checksum
  std::uint32_t covered_count_ = 0;  // and in pageblocks
  Nanos started_{};
  Nanos heard_{};  // of it, the last time
  Nanos measured_{};
  Nanos forget_at_{};  // translations
  Nanos try_again_at_{};
  unsigned failures_ = 0;  // in a row
  bool left_to_parent_ = false;
  std::atomic<bool> tells_{false};
  Leaving leaving_;
  std::atomic<std::uint32_t> regions_{0};
  std::atomic<std::int64_t> look_{0};
  std::atomic<std::int64_t> cpu_before_{0};  // of those that ended
  std::atomic<std::int64_t> cpu_{0};
};

}  // namespace heaptier
