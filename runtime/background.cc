#include "runtime/background.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>

#include "policies/registry.h"
#include "runtime/bootstrap_heap.h"
#include "runtime/config/option_values.h"
#include "runtime/control_answers.h"
#include "runtime/discard.h"
#include "runtime/engine.h"
#include "runtime/os/futex.h"
#include "runtime/os/kernel_files.h"
#include "runtime/os/kernel_memory.h"
#include "runtime/os/kernel_nodes.h"
#include "runtime/os/process.h"
#include "runtime/os/thread.h"
#include "uffd/features.h"
#include "uffd/inline_faults.h"

namespace heaptier {
namespace {

constexpr std::size_t kStackBytes = std::size_t{256} << 10;
constexpr unsigned kMostShards = 4;
constexpr unsigned kMostLanes = 4;
// log2 of the entries that the queues of clean pages start with: 4096, 32 KiB.
constexpr unsigned kFirstProbation = 12;
constexpr Nanos kSuperviseEvery = millis(1);
constexpr Nanos kGiveWayEvery = micros(100);
constexpr Nanos kClientWaits = millis(5);

unsigned shards_for(const Options& options) {
  if (options.handlers != 0) return std::bit_floor(options.handlers);
  // One thread that faults in two shards keeps two handlers waking each other: so not more than
  // their locks need, and several lanes in each.
  return std::clamp(std::bit_floor(os::cpu_count()) / kMostLanes, 1u, kMostShards);
}

unsigned lanes_for(unsigned shards) {
  const unsigned room = FaultLoop::kMaxWorkers / shards - 1;
  return std::clamp(os::cpu_count() / shards, 1u, std::min(room, kMostLanes));
}

constexpr bool samples(SamplerKind kind) {
  return kind == SamplerKind::kDamon || kind == SamplerKind::kPerf;
}

// While faults are served somebody must see when a handler of the idle class gets no CPU
// (FaultLoop::supervise), the first fault after a pause included: it would wait for that long. So
// the sleep between two looks grows with the time without faults, but not beyond what a fault may
// cost.
constexpr Nanos longest_sleep(Nanos without_faults) {
  if (without_faults < millis(20)) return millis(1);
  return without_faults < seconds(10) ? millis(10) : millis(50);
}

}  // namespace

Policy* Background::chosen_policy() const {
  Policy* p = find_policy(options_.policy.kind == PolicyKind::kHotset ? "hotset" : "none");
  return p;
}

Errno Background::prepare() {
  Errno e = table_.init(static_cast<std::uint32_t>(core_.space.bytes() >> kPageblockShift));
  if (e.failed()) return e;
  if (const TierSpec* tier = options_.tiers.find(TierKind::kZpool); tier != nullptr) {
    ZPoolConfig config;
    config.capacity_bytes =
        tier->capacity_bytes != 0 ? tier->capacity_bytes : os::physical_bytes() / 2;
    config.codec =
        options_.codec.kind == CodecSpec::Kind::kZstd ? CodecKind::kZstd : CodecKind::kLz4;
    config.level = options_.codec.level;
    if (e = zpool_.init(core_.ops, config); e.failed()) return e;
    core_.store = &zpool_;
    own_.workspace = zpool_.make_workspace();
    if (own_.workspace == nullptr) return {ENOMEM};
  }
  own_.background = true;
  own_.staging = bootstrap::allocate_array<char>(kStagingPages * kPageSize);
  // Room for a quarter of a large heap's pages on probation; memory is used only as far as the
  // queue fills.
  if (own_.staging == nullptr || core_.fetched.init(kFirstProbation).failed() ||
      core_.copied.init(kFirstProbation).failed()) {
    return {ENOMEM};
  }
  if (e = nodes_.init(kernel_node_ops(), kernel_files(), options_.tiers); e.failed()) return e;
  if (const char* why = nodes_.why_not(); why != nullptr) {
    os::write_text("heaptier: pages stay on the nodes where they are: ");
    os::write_text(why);
    os::write_text("\n");
  }
  if (nodes_.active()) {
    core_.nodes = &nodes_;
    loop_.serve_the_limit_alone();
    if (e = node_loop_.init(); e.failed()) return e;
  }
  // Between equals it goes the same way as we do.
  if (nodes_.count() > 1 && !engine().threads_place()) {
    balancing_.keep_off(options_.tiers, {core_.space.base(), core_.space.bytes()});
  }
  if (options_.policy.kind == PolicyKind::kInterleave) begin_interleaving();
  stack_bytes_ = kStackBytes;
  shards_ = shards_for(options_);
  lanes_ = lanes_for(shards_);
  return loop_.init();
}

void Background::begin_interleaving() {
  if (interleave_.begin().ok()) return;
  const char* why = interleave_.why_not();
  os::write_text("heaptier: policy interleave does nothing in this process: ");
  os::write_text(why != nullptr ? why : "no memory to begin with");
  os::write_text("\n");
}

Errno Background::start_thread() {
  if (own_stack_ == nullptr) own_stack_ = bootstrap::allocate(stack_bytes_, kPageSize);
  if (own_stack_ == nullptr) return {ENOMEM};
  return os::start_thread("heaptier", own_stack_, stack_bytes_, thread_main, this);
}

Errno Background::start() {
  if (Errno e = start_thread(); e.failed()) return e;
  while (startup_.load(std::memory_order_acquire) == 0) os::futex_wait(startup_, 0, {-1});
  if (startup_.load(std::memory_order_relaxed) != 1) return {startup_error_};
  if (!in_child_) give_notice();
  return kOk;
}

void* Background::thread_main(void* self) {
  static_cast<Background*>(self)->run();
  return nullptr;
}

// How hints are given is decided when the engine wakes, and a forked child goes on as its parent.
Errno Background::open_port() {
  if (core_.protection != nullptr) return use_protection();
  const bool hide = options_.sampler == SamplerKind::kProtnone;
  if (hide && nodes_.active()) {
    if (options_.tiers.find(TierKind::kZpool) != nullptr) notice_ = Notice::kNoStore;
    return use_protection();
  }
  const Errno e = use_userfaultfd();
  if (in_child_) return e;
  const bool told = samples(options_.sampler);
  if (e.ok() && (hide || (told && nodes_.count() < 2))) notice_ = Notice::kNoChain;
  const bool chain = nodes_.count() > 1;
  if (e.ok() && told && chain) use_asked_sampler();
  const bool useful = interleave_.whole() || (nodes_.active() && !hide);
  if (e.ok() || options_.sampler == SamplerKind::kPark || !useful) return e;
  core_.only_user_only = true;
  if (use_protection().failed()) return e;
  not_parked_ = e;
  // Nothing else tells what is hot here, and whoever names a chain of nodes wants it used.
  const bool sampled = chain && ((told && use_asked_sampler()) || use_any_sampler());
  notice_ = sampled ? Notice::kToldOnly : Notice::kNotParked;
  return kOk;
}

// Nothing is placed by a sampler where all pages have their place, or in the child of a process
// that DAMON looks at.
const char* Background::why_no_sampler() const {
  if (options_.policy.kind != PolicyKind::kHotset) {
    return "this policy does not go by what is hot";
  }
  return options_.sampler == SamplerKind::kPerf ? perf_.why_not() : damon_.why_not();
}

bool Background::use_sampler(SamplerKind kind) {
  if (options_.policy.kind != PolicyKind::kHotset) return false;
  const Nanos now = core_.ops.now();
  if (kind == SamplerKind::kPerf) {
    if (perf_.begin(options_.hint_budget, now).failed()) return false;
    node_loop_.use_sampler(perf_);
  } else {
    if (damon_.left_to_parent()) return false;
    const SampledBlocks blocks = node_loop_.blocks_in_use();
    if (damon_.begin(os::process_id(), blocks, options_.hint_budget, now).failed()) return false;
    node_loop_.use_sampler(damon_);
  }
  used_sampler_ = kind;
  return true;
}

bool Background::use_asked_sampler() {
  if (use_sampler(options_.sampler)) return true;
  no_sampler_ = why_no_sampler();
  return false;
}

// Where pages can be parked none is taken unasked: DAMON is the machine's, one process can have it,
// and what perf tells is less.
bool Background::use_any_sampler() {
  return use_sampler(SamplerKind::kDamon) || use_sampler(SamplerKind::kPerf);
}

// No userfaultfd: pages are hidden where they are, by the threads that the engine has anyway.
Errno Background::use_protection() {
  if (Errno e = os::leave_descriptor_table(); e.failed()) return e;
  auto& memory = static_cast<KernelMemory&>(core_.ops);
  memory.open_files();
  if (!memory.abilities().scans()) return {ENOTSUP};
  if (core_.protection != nullptr) return kOk;
  if (Errno e = protection_.init(os::most_mappings()); e.failed()) return e;
  core_.protection = &protection_;
  core_.park_base = core_.space.base();
  core_.store = nullptr;
  return kOk;
}

// One line, if it is not as the options ask. By a thread that has the application's descriptors.
void Background::give_notice() const {
  char line[768];
  char asked[16];
  TextWriter name(asked, sizeof asked);
  config::write_value(OptionId::kSampler, options_.sampler, name);
  name.finish();
  if (no_sampler_ != nullptr && no_sampler_[0] != '\0') {
    std::snprintf(line, sizeof line,
                  "heaptier: HEAPTIER_SAMPLER=%s: %s; it is as with HEAPTIER_SAMPLER=auto\n", asked,
                  no_sampler_);
    os::write_text(line);
  }
  const bool store = options_.tiers.find(TierKind::kZpool) != nullptr;
  switch (notice_) {
    case Notice::kNone:
      return;
    case Notice::kNoChain:
      std::snprintf(line, sizeof line,
                    "heaptier: HEAPTIER_SAMPLER=%s needs a chain of memory nodes (HEAPTIER_TIERS); "
                    "pages are parked instead\n",
                    asked);
      os::write_text(line);
      return;
    case Notice::kToldOnly:
      std::snprintf(line, sizeof line,
                    "heaptier: pages cannot be parked here (%s): memory is placed by what %s "
                    "tells%s\n",
                    std::strerror(not_parked_.code),
                    used_sampler_ == SamplerKind::kPerf ? "perf" : "DAMON",
                    store ? "; nothing is compressed" : "");
      if (store || options_.sampler != used_sampler_) os::write_text(line);
      return;
    case Notice::kNoStore:
      os::write_text(
          "heaptier: with HEAPTIER_SAMPLER=protnone nothing is compressed: the zpool is left "
          "out\n");
      return;
    case Notice::kNotParked:
      break;
  }
  const char* const fix = remedy(probe());
  const char* const compressed = store ? "; nothing is compressed" : "";
  if (!nodes_.active()) {
    std::snprintf(line, sizeof line,
                  "heaptier: pages cannot be parked here (%s): memory is interleaved%s. Remedy: "
                  "%s\n",
                  std::strerror(not_parked_.code), compressed, fix);
  } else {
    std::snprintf(
        line, sizeof line,
        "heaptier: pages cannot be parked here (%s): memory is moved between nodes when asked "
        "(heaptier_move, heaptier ctl drain), and %s%s. "
        "Remedy: %s%s--sampler protnone (see its limits)\n",
        std::strerror(not_parked_.code),
        interleave_.whole() ? "interleaved" : "placed only in heaps declared user-only", compressed,
        fix, fix[0] != '\0' ? "; or " : "");
  }
  os::write_text(line);
}

Errno Background::use_userfaultfd() {
  // Where application threads resolve faults they use the descriptors too, so these must be in
  // their table.
  if (!some_inline()) {
    if (Errno e = os::leave_descriptor_table(); e.failed()) return e;
  }
  auto& memory = static_cast<KernelMemory&>(core_.ops);
  memory.open_files();
  Errno e = open_ports();
  if (e.ok() && !memory.abilities().pagemap_scan) e = {ENOTSUP};
  if (e.failed()) {
    close_ports();
    return e;
  }
  large_pages_.begin(memory.abilities().refuses_held_parts, options_.huge == HugeMode::kAlways);
  large_pages_.keep_known();
  core_.large_pages = &large_pages_;
  dual_.use(inline_mode() ? nullptr : &port_, some_inline() ? &inline_port_ : nullptr);
  // The indirection costs a look at the owner: only where there are two kinds.
  core_.port = user_only_ && !inline_mode() ? static_cast<FaultPort*>(&dual_)
               : inline_mode()              ? static_cast<FaultPort*>(&inline_port_)
                                            : static_cast<FaultPort*>(&port_);
  return kOk;
}

Errno Background::open_ports() {
  if (!inline_mode()) {
    if (Errno e = port_.open(OpenMode::kHandler, shards_, &source_); e.failed()) return e;
    if (!port_.features().move) return {ENOTSUP};
  }
  if (some_inline()) {
    Source* source = inline_mode() ? &source_ : nullptr;
    if (Errno e = inline_port_.open(OpenMode::kInline, 1, source); e.failed()) return e;
    if (!inline_port_.features().move) return {ENOTSUP};
  }
  return kOk;
}

void Background::close_ports() {
  if (port_.is_open()) port_.close();
  if (inline_port_.is_open()) inline_port_.close();
}

void Background::run() {
  Errno e = open_port();
  if (e.ok() && in_child_) {
    // The application of the child waits for this.
    if (!register_inherited()) e = {EIO};
    if (e.ok()) e = start_faults(true);
    if (e.failed()) close_ports();
  }
  startup_error_ = e.code;
  startup_.store(e.ok() ? 1 : 2, std::memory_order_release);
  os::futex_wake_all(startup_);
  if (e.ok()) rounds();
}

bool Background::ready_for_faults() {
  return serving() || start_faults(false).ok();
}

Errno Background::make_workers(unsigned count) {
  if (workers_ != nullptr) return kOk;
  Worker* made = bootstrap::allocate_array<Worker>(count);
  if (made == nullptr) return {ENOMEM};
  for (unsigned i = 0; i < count; ++i) {
    made[i].staging = bootstrap::allocate_array<char>(kStagingPages * kPageSize);
    if (made[i].staging == nullptr) return {ENOMEM};
    if (core_.store == nullptr) continue;
    made[i].workspace = core_.store->make_workspace();
    if (made[i].workspace == nullptr) return {ENOMEM};
  }
  workers_ = made;
  service_.use_workers(workers_, count);
  return kOk;
}

Errno Background::start_inline(unsigned first_worker) {
  // A forked child has inherited the signal handler and its ranges.
  if (!inline_faults_running()) {
    InlineConfig config;
    config.first_worker = first_worker;
    config.workers = kInlineWorkers;
    config.signal = core_.protection != nullptr ? SIGSEGV : SIGBUS;
    config.real_sigaction = os::signal_setter();
    if (Errno e = start_inline_faults(gated_, config); e.failed()) return e;
    if (Errno e = add_inline_range(core_.space.base(), core_.space.bytes()); e.failed()) return e;
    if (core_.protection == nullptr) {
      if (Errno e = add_inline_range(core_.park_base, core_.space.bytes()); e.failed()) return e;
    }
  }
  serving_inline_ = true;
  return kOk;
}

Errno Background::start_faults(bool in_child) {
  if (core_.protection != nullptr) {
    if (Errno e = make_workers(kInlineWorkers); e.failed()) return e;
    return start_inline(0);
  }
  if (core_.park_base == 0) {
    if (Errno e = core_.choose_park(os::address_limit() != 0); e.failed()) return e;
  }
  const unsigned handlers = inline_mode() ? 0 : (lanes_ + 1) * shards_;
  if (Errno e = make_workers(handlers + (some_inline() ? kInlineWorkers : 0)); e.failed()) return e;
  if (some_inline()) {
    if (Errno e = start_inline(handlers); e.failed()) return e;
  }
  if (inline_mode()) return kOk;
  if (worker_stacks_ == nullptr) {
    worker_stacks_ = bootstrap::allocate(handlers * stack_bytes_, kPageSize);
    if (worker_stacks_ == nullptr) return {ENOMEM};
  }
  if (in_child) return faults_.restart_in_child(port_, worker_stacks_);
  LoopConfig config;
  config.stack_base = worker_stacks_;
  config.stack_bytes = stack_bytes_;
  config.create_thread = os::thread_creator();
  config.lanes = lanes_;
  config.step_aside = true;
  return faults_.start(port_, service_, config);
}

MemorySituation Background::machine_now() {
  const Nanos now = core_.ops.now();
  const std::size_t carved = core_.space.usage().carved_bytes;
  if (machine_look_.due(now, carved)) {
    machine_.physical_bytes = os::physical_bytes();
    const bool nodes = core_.nodes != nullptr;
    if (options_.fast.kind == FastBudget::Kind::kAuto || nodes) {
      // What the machine lacks is looked for on its nodes, one by one.
      machine_.available_bytes = nodes ? 0 : os::available_bytes();
      const os::CgroupMemory group = os::cgroup_memory();
      machine_.cgroup_limit = group.limit;
      machine_.cgroup_anonymous = group.anonymous;
    }
    machine_look_.done(now, carved, machine_.cgroup_limit != 0);
  }
  return machine_;
}

void Background::stand_still() {
  if (still_.load(std::memory_order_acquire) != 1) return;
  still_.store(2, std::memory_order_release);
  os::futex_wake_all(still_);
  while (still_.load(std::memory_order_acquire) == 2) os::futex_wait(still_, 2, {-1});
}

bool Background::serve_requests() {
  bool any = false;
  for (Slot& slot : slots_) {
    if (slot.state.load(std::memory_order_acquire) != 2) continue;
    any = true;
    slot.state.store(4, std::memory_order_relaxed);  // ours: not seen again by a nested call
    slot.result = serve(slot.asked);
    slot.state.store(3, std::memory_order_release);
    os::futex_wake_all(slot.state);
  }
  return any;
}

int Background::serve(const Asked& asked) {
  switch (asked.what) {
    case Request::kPark:
    case Request::kDemote:
      return loop_.demote_range(asked.first, asked.pages, asked.what == Request::kDemote);
    case Request::kMove:
      hand_.serve(*asked.batch);
      return 0;
    case Request::kCool:
      return hand_.cool(asked.first, asked.pages);
    case Request::kWarm:
      return hand_.warm(asked.first, asked.pages);
    case Request::kParkLazily:
      return hand_.park_lazily(asked.first, asked.pages, asked.tier);
    case Request::kSpread:
      return interleave_.spread(asked.first, asked.pages);
    case Request::kDrain:
      return -drain_.begin(asked.first.v).code;
    case Request::kUndrain:
      return -drain_.end(asked.first.v).code;
    case Request::kDrained: {
      const DrainReport report = drain_.report(asked.first.v);
      if (!report.draining) return -ECANCELED;
      if (!report.settled) return -EAGAIN;
      return static_cast<int>(std::min<std::uint64_t>(report.left_in_all(), INT32_MAX));
    }
    case Request::kRetire:
      break;
  }
  return 0;
}

// The caller may be anywhere, in a signal handler even, and hold what the thread waits for.
void Background::await_heeded() {
  constexpr Nanos kLongest = millis(100);
  if (!balancing_.kept_off()) return;
  kick();
  balancing_.await_lifted(kLongest);
}

void Background::await_registration() {
  // As long as one batch of demotions may take on a busy machine.
  constexpr Nanos kLongest = millis(20);
  const std::uint32_t mine = growth_asked_.fetch_add(1, std::memory_order_acq_rel) + 1;
  kick();
  const Nanos begin = core_.ops.now();
  for (std::uint32_t seen; static_cast<std::int32_t>(
                               (seen = growth_seen_.load(std::memory_order_acquire)) - mine) < 0;) {
    if (core_.ops.now() - begin > kLongest) return;
    os::futex_wait(growth_seen_, seen, millis(1));
  }
}

bool Background::between_steps() {
  stand_still();
  control_.see_who_leaves();
  damon_.see_who_leaves();
  const std::uint32_t asked = growth_asked_.load(std::memory_order_acquire);
  if (asked != growth_seen_.load(std::memory_order_relaxed)) {
    loop_.manage_growth();
    growth_seen_.store(asked, std::memory_order_release);
    os::futex_wake_all(growth_seen_);
  }
  const Nanos now = core_.ops.now();
  if (faults_.running() && now - last_way_given_ >= kGiveWayEvery) {
    faults_.give_way();
    last_way_given_ = now;
  }
  if (faults_.running() && now - last_look_ >= kSuperviseEvery) {
    faults_.supervise(now);
    last_look_ = now;
  }
  return true;
}

bool Background::relocate(PageIndex owner, SlotId from, SlotId to) {
  if (!table_.managed(owner)) return false;
  const PageWord was = table_.lock(owner);
  const bool holds = (was.state() == PageState::kStored || was.state() == PageState::kClean) &&
                     was.slot() == from.v;
  table_.publish(owner, was, holds ? was.with_slot(to.v) : was);
  return holds;
}

// Churn leaves the pool's spans half empty; when an eighth of it could be given back, it is, a
// little at a time, with at most a tenth of this thread's time.
void Background::compact_pool(Nanos now) {
  if (core_.store == nullptr || now < next_compaction_) return;
  next_compaction_ = now + millis(100);
  constexpr std::size_t kMoves = 256;  // under a millisecond
  const ZPoolFragmentation f = zpool_.fragmentation();
  if (f.reclaimable < (std::size_t{1} << 20) || f.reclaimable < f.held / 8) return;
  zpool_.compact(*this, kMoves);
  const Nanos end = core_.ops.now();
  next_compaction_ = {end.v + 9 * (end - now).v};
}

void Background::place_or_store(Nanos now) {
  constexpr Nanos kBooksEvery = seconds(1);
  const bool pressed_before = pressed_;
  if (core_.store != nullptr && options_.policy.kind != PolicyKind::kInterleave) {
    loop_.keep_marks(machine_now());
    pressed_ =
        limit_.presses(now, core_.present_pages(), core_.low_pages.load(std::memory_order_relaxed));
  }
  if (!pressed_) {
    if (pressed_before) node_loop_.take_over(now);
    loop_.end_some_rests();
    node_loop_.tick(now);
    return;
  }
  if (!pressed_before) loop_.take_over(now);
  loop_.tick(now, machine_now());
  if (now < next_books_) return;
  next_books_ = now + kBooksEvery;
  node_loop_.keep_books(now);
}

void Background::tick(Nanos now) {
  if (core_.large_pages != nullptr) large_pages_.keep_known();
  if (core_.nodes != nullptr) {
    place_or_store(now);
  } else if (only_interleaves()) {
    loop_.end_some_rests();
  } else {
    loop_.tick(now, machine_now());
  }
}

// Tiering is over (Engine::retire).
void Background::retired_round() {
  core_.high_pages.store(UINT64_MAX, std::memory_order_relaxed);
  core_.low_pages.store(UINT64_MAX, std::memory_order_relaxed);
  drain_.end_all();
  interleave_.stop();
  balancing_.lift(core_.ops.now(), *this);
  damon_.stop();
  perf_.stop();
  control_.close();
}

void Background::rounds() {
  Nanos next_tick{};
  faults_seen_at_ = core_.ops.now();  // a fork's child may fault at once
  // Where the application shares the descriptors it could close them.
  if (!some_inline() || core_.protection != nullptr)
    control_.open(options_, in_child_, faults_seen_at_);
  ControlAnswersOf answers(*this);
  for (;;) {
    between_steps();
    const bool asked = serve_requests();
    if (core_.nodes != nullptr) hand_.move_touched();
    const Nanos now = core_.ops.now();
    const bool kicked = core_.kicked.exchange(0, std::memory_order_acq_rel) != 0;
    if (core_.retired.load(std::memory_order_relaxed)) {
      retired_round();
    } else {
      if (now >= next_tick || kicked) {
        tick(now);
        next_tick = core_.ops.now() + pause_length();
      }
      drain_.step(core_.ops.now());
      interleave_.step(core_.ops.now());
      if (engine().threads_place()) balancing_.lift(core_.ops.now(), *this);
      control_.round(answers, now);
    }
    damon_.have_forgotten(core_.ops.now());
    compact_pool(now);
    if (now >= next_pin_look_) {
      engine().release_dead_threads_pins();
      next_pin_look_ = now + millis(100);
    }
    cpu_time_.store(os::thread_cpu_time().v, std::memory_order_relaxed);
    if (asked) continue;
    Nanos sleep = drain_.until_step(core_.ops.now(), pause_length());
    sleep = interleave_.until_step(core_.ops.now(), sleep);
    sleep = damon_.until_forgotten(core_.ops.now(), sleep);
    if (control_.busy()) sleep = std::min(sleep, kClientWaits);
    if (serving()) {
      const std::uint64_t seen = core_.stats.faults.get();
      if (seen != faults_seen_) {
        faults_seen_ = seen;
        faults_seen_at_ = now;
      }
      sleep = std::min(sleep, longest_sleep(now - faults_seen_at_));
    }
    if (core_.kicked.load(std::memory_order_acquire) == 0) os::futex_wait(core_.kicked, 0, sleep);
  }
}

void Background::kick() {
  core_.kicked.store(1, std::memory_order_release);
  os::futex_wake_all(core_.kicked);
}

int Background::ask(const Asked& asked) {
  Backoff backoff;
  for (;;) {
    for (Slot& slot : slots_) {
      std::uint32_t free = 0;
      if (!slot.state.compare_exchange_strong(free, 1, std::memory_order_acquire)) continue;
      slot.asked = asked;
      slot.state.store(2, std::memory_order_release);
      kick();
      for (std::uint32_t s; (s = slot.state.load(std::memory_order_acquire)) != 3;) {
        os::futex_wait(slot.state, s, millis(100));
      }
      const int result = slot.result;
      slot.state.store(0, std::memory_order_release);
      return result;
    }
    backoff.pause();
  }
}

}  // namespace heaptier
