#include "runtime/sampling/damon_sampler.h"

#include <algorithm>
#include <bit>

#include "runtime/bootstrap_heap.h"
#include "runtime/os/sandbox.h"

namespace heaptier {
namespace {

// To see whether it can be had it starts with so few regions: setting up one takes two calls.
constexpr std::uint32_t kFirstRegions = 32;
// A heap that has changed by an eighth is looked at soon, one that has changed a little in its
// turn; starting anew costs what was being counted.
constexpr Nanos kSoon = millis(300);
constexpr Nanos kInTurn = seconds(5);
constexpr std::uint32_t kMuch = 8;
// What it costs is measured for so long before the pace is changed for it.
constexpr Nanos kMeasureFor = seconds(2);
constexpr Nanos kPaceKept = seconds(10);
// Nothing heard for so long and three reports: somebody else may have ended it.
constexpr Nanos kPatience = seconds(1);
constexpr Nanos kTryAgainAfter = seconds(1);
constexpr unsigned kMostFailures = 5;

std::uint64_t checksum(const SampledBlocks& blocks) {
  std::uint64_t sum = blocks.count;
  for (const std::uint64_t word : blocks.wanted) {
    sum = std::rotl(sum, 7) * 0x9e3779b97f4a7c15U + word;
  }
  return sum;
}

}  // namespace

// Runs of blocks that are wanted, each at most a group of blocks that begins at a multiple of it.
// Returns how many there are; those beyond kMostRegions are only counted.
std::uint32_t DamonSampler::make_ranges(const SampledBlocks& blocks, std::uint32_t group) {
  std::uint32_t n = 0;
  const auto limit = static_cast<std::uint32_t>(blocks.wanted.size() * 64);
  for (std::uint32_t b = 0; b < limit;) {
    if (blocks.wanted[b / 64] == 0) {
      b = (b / 64 + 1) * 64;
      continue;
    }
    if (!blocks.has(b)) {
      ++b;
      continue;
    }
    // To the last of the group that is wanted.
    const std::uint32_t end = (b / group + 1) * group;
    std::uint32_t last = b;
    for (std::uint32_t i = b; i < end && i < limit; ++i) last = blocks.has(i) ? i : last;
    if (n < kMostRegions) {
      ranges_[n] = {blocks.base + std::uintptr_t{b} * kPageblockSize,
                    blocks.base + (std::uintptr_t{last} + 1) * kPageblockSize};
    }
    ++n;
    b = end;
  }
  return n;
}

Errno DamonSampler::begin(int process, const SampledBlocks& blocks, unsigned budget, Nanos now) {
  if (budget == 0) {
    why_not_ = "nothing may be spent on it (HEAPTIER_HINT_BUDGET=0%)";
    return {EINVAL};
  }
  filters_ = os::seccomp_filters();
  if (os::filter_would_kill_sampler()) {
    why_not_ = "the process' seccomp filter would kill it for that";
    return {EPERM};
  }
  if (ranges_ == nullptr) ranges_ = bootstrap::allocate_array<SampledRange>(kMostRegions);
  if (ranges_ == nullptr || translations_.init().failed()) {
    why_not_ = "no memory to begin with";
    return {ENOMEM};
  }
  process_ = process;
  budget_ = budget;
  Errno e = damon_.look(process);
  if (e.ok()) e = start(blocks, kFirstRegions, now);
  if (e.failed()) {
    why_not_ = damon_.why_not();
    return e;
  }
  covered_ = 0;  // a part of it, and roughly
  tells_.store(true, std::memory_order_relaxed);
  return kOk;
}

// A heap with holes has more groups than its size says: they are made to be counted.
HeapPace DamonSampler::plan(const SampledBlocks& blocks, std::uint32_t most) {
  const auto regions = [&](std::uint32_t group) {
    const std::uint32_t n = make_ranges(blocks, group);
    if (n != 0) return n;
    ranges_[0] = {blocks.base, blocks.base + kPageblockSize};  // it will grow
    return 1U;
  };
  return finest_pace(regions, cost_, budget_, most);
}

Errno DamonSampler::start(const SampledBlocks& blocks, std::uint32_t most, Nanos now) {
  if (damon_.started()) cpu_.store(damon_.cpu_time().v, std::memory_order_relaxed);
  cpu_before_.fetch_add(cpu_.exchange(0, std::memory_order_relaxed), std::memory_order_relaxed);
  const HeapPace pace = plan(blocks, most);
  const std::uint32_t n = pace.regions;
  const Errno e = damon_.start(process_, pace.damon, {ranges_, n});
  if (e.failed()) return e;
  stats_.sampler_starts.add();
  pace_ = pace;
  covered_ = checksum(blocks);
  covered_count_ = blocks.count;
  started_ = heard_ = measured_ = now;
  regions_.store(n, std::memory_order_relaxed);
  look_.store(pace.damon.look.v, std::memory_order_relaxed);
  return kOk;
}

void DamonSampler::take_reports(Nanos now, HeatSink& sink) {
  std::uint64_t reports = 0;
  std::uint64_t lost = 0;
  damon_.read(
      [&](const DamonRegion& r) {
        ++reports;
        if (covered_ == 0) return;  // the first ones are too rough to be any block's
        sink.told(r.start, r.end, pace_.damon.looks, r.used, pace_.damon.look);
      },
      &lost);
  stats_.sampler_reports.add(reports);
  if (lost != 0) stats_.sampler_lost.add(lost);
  if (reports + lost != 0) {
    heard_ = now;
    failures_ = 0;
  }
}

// What a look costs here, so that the pace keeps to the budget.
void DamonSampler::measure(Nanos now) {
  if (now - measured_ < kMeasureFor) return;
  measured_ = now;
  const Nanos used = damon_.cpu_time();
  cpu_.store(used.v, std::memory_order_relaxed);
  const std::int64_t looks = (now - started_).v / pace_.damon.look.v * pace_.regions;
  if (used.v > 0 && looks > 0) cost_ = {std::max<std::int64_t>(used.v / looks, 1)};
}

bool DamonSampler::look_due(const SampledBlocks& blocks, Nanos now) {
  const Nanos since = now - started_;
  // What has been begun is to tell something: a heap that swings would never be told of.
  const Nanos two_reports{2 * pace_.damon.look.v * pace_.damon.looks};
  if (since < kSoon || (covered_ != 0 && since < two_reports)) return false;
  if (checksum(blocks) != covered_) {
    const std::uint32_t less = std::min(blocks.count, covered_count_);
    const std::uint32_t more = std::max(blocks.count, covered_count_);
    return covered_ == 0 || since >= kInTurn || (more - less) * kMuch >= more;
  }
  if (since < kPaceKept || now - planned_ < kMeasureFor) return false;
  planned_ = now;
  const HeapPace better = plan(blocks, kMostRegions);
  const auto far = [](std::int64_t a, std::int64_t b) { return a >= 2 * b || b >= 2 * a; };
  return better.group != pace_.group || far(better.damon.look.v, pace_.damon.look.v);
}

// A filter that came later must not be asked for what it might kill for.
bool DamonSampler::sandboxed() {
  return os::seccomp_filters() != filters_;
}

void DamonSampler::try_again(const SampledBlocks& blocks, Nanos now) {
  if (now < try_again_at_) return;
  if (sandboxed()) return give_up();
  if (start(blocks, kMostRegions, now).ok()) return;
  try_again_at_ = now + kTryAgainAfter;
  if (++failures_ >= kMostFailures) give_up();
}

void DamonSampler::round(const SampledBlocks& blocks, Nanos now, HeatSink& sink) {
  if (!tells() || blocks.count == 0) return;
  if (!damon_.started()) return try_again(blocks, now);
  take_reports(now, sink);
  measure(now);
  const Nanos report{pace_.damon.look.v * pace_.damon.looks};
  if (now - heard_ > Nanos{3 * report.v} + kPatience) {
    heard_ = now;
    if (!damon_.runs()) return try_again(blocks, now);
    if (++failures_ >= kMostFailures) return give_up();
  }
  if (look_due(blocks, now)) try_again(blocks, now);
}

void DamonSampler::have_forgotten(Nanos now) {
  if (!tells() || now < forget_at_) return;
  translations_.forget();
  forget_at_ = now + pace_.damon.look;
}

Nanos DamonSampler::until_forgotten(Nanos now, Nanos at_most) const {
  if (!tells()) return at_most;
  return std::clamp(forget_at_ - now, Nanos{0}, at_most);
}

void DamonSampler::give_up() {
  stop();
  stats_.sampler_fallbacks.add();
}

void DamonSampler::stop() {
  if (!tells()) return;
  if (!sandboxed()) damon_.stop();
  tells_.store(false, std::memory_order_relaxed);
  regions_.store(0, std::memory_order_relaxed);
}

void DamonSampler::forget() {
  if (tells()) {
    stats_.sampler_fallbacks.add();
    left_to_parent_ = true;
  }
  damon_.forget();
  leaving_.forget();
  process_ = 0;
  tells_.store(false, std::memory_order_relaxed);
  regions_.store(0, std::memory_order_relaxed);
}

bool DamonSampler::leave() {
  if (!tells()) return false;
  leaving_.ask();
  return true;
}

void DamonSampler::see_who_leaves() {
  if (!leaving_.asked()) return;
  stop();
  leaving_.done();
}

void DamonSampler::read(StatsSnapshot* out) const {
  out->sampler_regions = regions_.load(std::memory_order_relaxed);
  out->sampler_look_ns = static_cast<std::uint64_t>(look_.load(std::memory_order_relaxed));
  out->sampler_cpu_ns = static_cast<std::uint64_t>(cpu_before_.load(std::memory_order_relaxed) +
                                                   cpu_.load(std::memory_order_relaxed));
}

}  // namespace heaptier
