#include "runtime/sampling/perf_sampler.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <span>

#include "runtime/base/first_line.h"
#include "runtime/base/lines.h"
#include "runtime/base/words.h"
#include "runtime/bootstrap_heap.h"
#include "runtime/os/process.h"
#include "runtime/os/sandbox.h"
#include "runtime/os/thread.h"
#include "runtime/sampling/access_sample.h"

namespace heaptier {
namespace {

constexpr const char* kThreads = "/proc/self/task";
constexpr const char* kRateLimit = "/proc/sys/kernel/perf_event_max_sample_rate";
// Threads are looked for so often, and with a fiftieth of the time at most.
constexpr Nanos kLookEvery = millis(100);
constexpr std::int64_t kLookShare = 50;
// A fork waits for a round: so many threads' events are opened in one, some 50 us each.
constexpr std::uint32_t kOpensAtOnce = 32;
// Threads that told nothing for so long give way to others, a quarter of all at once.
constexpr Nanos kQuiet = seconds(2);
constexpr Nanos kTurnEvery = seconds(1);
constexpr std::uint32_t kTurnShare = 4;
// Memory that cannot be locked now is asked for again.
constexpr Nanos kNoRoomFor = seconds(10);
// While no thread at all could be had for so many looks.
constexpr unsigned kMostFailures = 20;

}  // namespace

// Takes the names of /proc/self/task as they come.
class PerfSampler::Look final : public TextSink {
 public:
  Look(PerfSampler& sampler, Nanos now) : sampler_(sampler), now_(now) {}

  bool take(std::string_view name) override {
    std::uint64_t n = 0;
    if (!parse_decimal(name, &n) || n == 0 || n > INT32_MAX) return true;
    const auto thread = static_cast<int>(n);
    if (thread == self_) return true;
    const std::uint32_t at = index_++;
    if (Watched* w = sampler_.find(thread); w != nullptr) {
      w->here = true;
    } else if (at < sampler_.hand_) {
      ++left_out_;
    } else {
      add(thread, at);
    }
    return true;
  }
  std::uint32_t left_out() const { return left_out_; }
  // Where to go on the next time: the first that there was no room for.
  std::uint32_t hand() const { return stuck_ ? hand_ : 0; }
  bool unfinished() const { return opened_ == kOpensAtOnce; }
  bool refused() const { return refused_ && opened_ == 0; }
  bool filtered() const { return filtered_; }

 private:
  void add(int thread, std::uint32_t at) {
    Watched* const w = sampler_.free_place();
    const bool room = w != nullptr && opened_ < kOpensAtOnce && now_ >= sampler_.no_room_until_;
    if (!room) return leave_out(at);
    // A filter that came later must not be asked for what it might kill for.
    if (!asked_) filtered_ = os::seccomp_filters() != sampler_.filters_;
    asked_ = true;
    if (filtered_) return leave_out(at);
    if (sampler_.is_own(thread)) {
      w->thread = thread;
      w->here = true;
      return;
    }
    const Errno e = sampler_.open(w, thread, now_);
    if (e.ok()) {
      w->here = true;
      ++opened_;
    } else if (e.code == ENOMEM) {
      sampler_.no_room_until_ = now_ + kNoRoomFor;
      leave_out(at);
    } else if (e.code != ESRCH) {
      refused_ = true;
      ++left_out_;
    }
  }
  void leave_out(std::uint32_t at) {
    ++left_out_;
    if (!stuck_) hand_ = at;
    stuck_ = true;
  }

  PerfSampler& sampler_;
  Nanos now_;
  int self_ = static_cast<int>(os::thread_id());
  std::uint32_t index_ = 0;
  std::uint32_t opened_ = 0;
  std::uint32_t left_out_ = 0;
  std::uint32_t hand_ = 0;
  bool stuck_ = false;
  bool asked_ = false;
  bool filtered_ = false;
  bool refused_ = false;
};

Errno PerfSampler::refuse(Errno e) {
  switch (e.code) {
    case EPERM:
      why_not_ = "perf_event_open is forbidden here, as by a container's seccomp profile";
      break;
    case EACCES:
      why_not_ = what_.of[0].counts_kernel
                     ? "perf_event_open is refused: this kernel counts what it does itself as "
                       "well, for root or with sysctl kernel.perf_event_paranoid=1"
                     : "perf_event_open is refused (root, or sysctl "
                       "kernel.perf_event_paranoid=2)";
      break;
    case ENOMEM:
      why_not_ = "no memory can be locked for it (sysctl kernel.perf_event_mlock_kb)";
      break;
    case EOPNOTSUPP:
    case EINVAL:
    case ENOENT:
    case ENODEV:
      why_not_ = what_.of[0].precise != 0
                     ? "this processor, or virtual machine, does not give the addresses of accesses"
                     : "this kernel does not sample threads' accesses on AMD's processors (Linux "
                       "6.2)";
      break;
    case ENOSYS:
      why_not_ = "this kernel has no perf_event_open";
      break;
    default:
      why_not_ = "perf_event_open fails";
  }
  return e;
}

// Where it needs a precision not every processor has every one.
Errno PerfSampler::try_event(AccessEvent* event) {
  constexpr std::uint8_t kPrecise[] = {2, 3, 1};
  constexpr std::uint8_t kNotPrecise[] = {0};
  const bool precise = event->precise != 0;
  Errno e{};
  for (const std::uint8_t p : precise ? std::span<const std::uint8_t>(kPrecise) : kNotPrecise) {
    event->precise = p;
    EventRing ring;
    e = events_.open(*event, {1, 0}, 0, kPageSize, &ring);
    if (e.ok()) events_.close(&ring);
    if (e.ok() || e.code == EACCES || e.code == EPERM) return e;
  }
  return e;
}

Errno PerfSampler::look(AccessEvents* what) {
  if (const Errno e = find_access_events(files_, what, &why_not_); e.failed()) return e;
  what_ = *what;
  char path[64];
  FirstLine name;
  std::snprintf(path, sizeof path, "%s/%u/comm", kThreads, os::thread_id());
  if (files_.read(path, name).failed()) {
    why_not_ = "/proc is that of another container";
    return {ENOENT};
  }
  for (unsigned i = 0; i < what->count; ++i) {
    const Errno e = try_event(&what->of[i]);
    if (e.ok()) continue;
    if (i == 0) return refuse(e);
    what->count = i;  // loads alone
  }
  return kOk;
}

Errno PerfSampler::begin(unsigned budget, Nanos now) {
  if (budget == 0) {
    why_not_ = "nothing may be spent on it (HEAPTIER_HINT_BUDGET=0%)";
    return {EINVAL};
  }
  if (os::filter_would_kill_sampler()) {
    why_not_ = "the process' seccomp filter would kill it for that";
    return {EPERM};
  }
  AccessEvents what;
  if (const Errno e = look(&what); e.failed()) return e;
  return begin(what, 0, budget, now);
}

Errno PerfSampler::begin(const AccessEvents& what, std::uint64_t every, unsigned budget,
                         Nanos now) {
  if (watched_ == nullptr) watched_ = bootstrap::allocate_array<Watched>(kMostThreads);
  if (watched_ == nullptr) {
    why_not_ = "no memory to begin with";
    return {ENOMEM};
  }
  stop();
  filters_ = os::seccomp_filters();
  what_ = what;
  every_ = every;
  wanted_ = samples_wanted(budget);
  failures_ = 0;
  hand_ = 0;
  begun_ = false;
  next_look_ = no_room_until_ = {};
  measured_ = now;
  stats_.sampler_starts.add();
  tells_.store(true, std::memory_order_relaxed);
  return kOk;
}

bool PerfSampler::is_own(int thread) {
  char path[64];
  FirstLine name;
  std::snprintf(path, sizeof path, "%s/%d/comm", kThreads, thread);
  if (files_.read(path, name).failed()) return false;
  return name.line() == "heaptier" || name.line().starts_with("heaptier-");
}

PerfSampler::Watched* PerfSampler::find(int thread) {
  Watched* const end = watched_ + kMostThreads;
  Watched* const found =
      std::find_if(watched_, end, [thread](const Watched& w) { return w.thread == thread; });
  return found == end ? nullptr : found;
}

PerfSampler::Watched* PerfSampler::free_place() {
  return find(0);
}

SamplePace PerfSampler::pace() const {
  if (every_ != 0) return {0, every_};
  return {pace_.rate, 0};
}

// All of its events or none.
Errno PerfSampler::open(Watched* w, int thread, Nanos now) {
  w->thread = thread;
  w->rate = pace_.rate;
  w->heard = now;
  for (unsigned i = 0; i < what_.count; ++i) {
    const Errno e = events_.open(what_.of[i], pace(), thread, pace_.ring_bytes(), &w->rings[i]);
    if (e.ok()) continue;
    close(w);
    return e;
  }
  return kOk;
}

void PerfSampler::close(Watched* w) {
  for (EventRing& ring : w->rings) {
    if (ring.is_open()) events_.close(&ring);
  }
  *w = {};
}

std::uint64_t PerfSampler::rate_limit() {
  std::uint64_t limit = 0;
  return read_number(files_, kRateLimit, &limit) ? limit : UINT32_MAX;
}

void PerfSampler::read_ring(Watched& w, unsigned event, Nanos now, HeatSink& sink) {
  const bool tells_source = what_.of[event].tells_source;
  const RecordTally tally = read_records(w.rings[event], [&](const EventRecord& record) {
    AccessSample sample;
    if (decode_access(record, tells_source, &sample) && !sample.near) {
      sink.used(sample.address, sample.accesses);
    }
  });
  if (tally.samples != 0) {
    w.heard = now;
    stats_.sampler_reports.add(tally.samples);
  }
  const std::uint64_t lost = tally.lost + (tally.broken ? 1 : 0);
  if (lost != 0) stats_.sampler_lost.add(lost);
  came_ += tally.samples + lost;
  if (tally.throttled == 0) return;
  throttled_ = true;
  stats_.sampler_throttled.add(tally.throttled);
}

void PerfSampler::read_rings(Nanos now, HeatSink& sink) {
  for (std::uint32_t i = 0; i < kMostThreads; ++i) {
    Watched& w = watched_[i];
    for (unsigned e = 0; e < what_.count; ++e) {
      if (w.rings[e].is_open()) read_ring(w, e, now, sink);
    }
  }
}

void PerfSampler::close_ended() {
  for (std::uint32_t i = 0; i < kMostThreads; ++i) {
    Watched& w = watched_[i];
    if (w.thread != 0 && !w.here) close(&w);
    w.here = false;
  }
}

// Some that told nothing, where others wait.
std::uint32_t PerfSampler::make_way(Nanos now) {
  if (now < next_turn_) return 0;
  next_turn_ = now + kTurnEvery;
  count_threads();
  const std::uint32_t turn = threads_.load(std::memory_order_relaxed) / kTurnShare + 1;
  std::uint32_t closed = 0;
  for (std::uint32_t i = 0; i < kMostThreads && closed < turn; ++i) {
    Watched& w = watched_[i];
    if (!w.rings[0].is_open() || now - w.heard < kQuiet) continue;
    close(&w);
    ++closed;
  }
  if (closed != 0) no_room_until_ = {};
  return closed;
}

void PerfSampler::count_threads() {
  std::uint32_t n = 0;
  for (std::uint32_t i = 0; i < kMostThreads; ++i) n += watched_[i].rings[0].is_open() ? 1 : 0;
  threads_.store(n, std::memory_order_relaxed);
}

void PerfSampler::look_for_threads(Nanos now) {
  Look look(*this, now);
  const Nanos began = os::thread_cpu_time();
  const bool listed = files_.list(kThreads, look).ok();
  if (look.filtered()) return give_up();
  if (listed) close_ended();
  hand_ = look.hand();
  const bool full = free_place() == nullptr || now < no_room_until_;
  const std::uint32_t closed = look.left_out() != 0 && full ? make_way(now) : 0;
  left_out_.store(look.left_out() + closed, std::memory_order_relaxed);
  count_threads();
  const bool none = threads_.load(std::memory_order_relaxed) == 0;
  failures_ = none && (look.refused() || !listed) ? failures_ + 1 : 0;
  if (failures_ >= kMostFailures) return give_up();
  const Nanos took = os::thread_cpu_time() - began;
  next_look_ = look.unfinished() ? now : now + std::max(kLookEvery, Nanos{took.v * kLookShare});
}

// Those that were opened at another rate; what their rings had was read just now.
void PerfSampler::reopen(Nanos now) {
  std::uint32_t opened = 0;
  for (std::uint32_t i = 0; i < kMostThreads && opened < kOpensAtOnce; ++i) {
    Watched& w = watched_[i];
    if (!w.rings[0].is_open() || !pace_.far_from(w.rate)) continue;
    if (opened++ == 0 && os::seccomp_filters() != filters_) return give_up();
    const Watched was = w;
    close(&w);
    if (open(&w, was.thread, now).ok()) w.heard = was.heard;
  }
}

void PerfSampler::keep_pace(Nanos now) {
  const Nanos since = std::min(now - measured_, seconds(60));
  if (PerfPace::due(wanted_, came_, since)) {
    pace_.set_limit(wanted_, rate_limit());
    pace_.adjust(wanted_, came_, since, throttled_);
    measured_ = now;
    came_ = 0;
    throttled_ = false;
  }
  rate_.store(pace_.rate, std::memory_order_relaxed);
  reopen(now);
}

// By the threads that there are, as if they all ran.
void PerfSampler::begin_pace(Nanos now) {
  std::uint64_t threads = 0;
  (void)each_name(files_, kThreads, [&threads](std::string_view) { ++threads; });
  const std::uint64_t running = std::min<std::uint64_t>(threads, os::cpu_count());
  pace_.begin(wanted_, running * what_.count, rate_limit());
  measured_ = now;
  begun_ = true;
}

void PerfSampler::round(const SampledBlocks& blocks, Nanos now, HeatSink& sink) {
  if (!tells() || blocks.count == 0) return;
  if (!begun_) begin_pace(now);
  read_rings(now, sink);
  sink.counted(now);
  if (every_ == 0) keep_pace(now);
  if (tells() && now >= next_look_) look_for_threads(now);
}

void PerfSampler::give_up() {
  stop();
  stats_.sampler_fallbacks.add();
}

void PerfSampler::stop() {
  if (!tells()) return;
  for (std::uint32_t i = 0; i < kMostThreads; ++i) close(&watched_[i]);
  tells_.store(false, std::memory_order_relaxed);
  threads_.store(0, std::memory_order_relaxed);
  left_out_.store(0, std::memory_order_relaxed);
  rate_.store(0, std::memory_order_relaxed);
}

void PerfSampler::forget() {
  if (!tells()) return;
  for (std::uint32_t i = 0; i < kMostThreads; ++i) watched_[i] = {};
  threads_.store(0, std::memory_order_relaxed);
  next_look_ = no_room_until_ = {};
}

void PerfSampler::read(StatsSnapshot* out) const {
  out->sampler_threads = threads_.load(std::memory_order_relaxed);
  out->sampler_left_out = left_out_.load(std::memory_order_relaxed);
  out->sampler_rate = rate_.load(std::memory_order_relaxed);
}

}  // namespace heaptier
