#include "runtime/engine.h"

#include <cstdio>
#include <cstring>
#include <new>

#include "runtime/background.h"
#include "runtime/bootstrap_heap.h"
#include "runtime/hidden_pages.h"
#include "runtime/include/heaptier/heaptier.h"
#include "runtime/os/advice.h"
#include "runtime/os/process.h"
#include "runtime/os/sandbox.h"
#include "runtime/os/thread.h"
#include "uffd/features.h"

namespace heaptier {

Engine& engine() {
  static constinit Engine instance;
  return instance;
}

Errno Engine::init(MemoryOps& ops, Space& space, const Options& options, Stats& stats) {
  ops_ = &ops;
  space_ = &space;
  options_ = &options;
  stats_ = &stats;
  started_ = ops.now();
  if (options.stats.kind == StatsOutput::Kind::kText) report_to_ = os::keep_descriptor(2);
  const bool wanted = options.policy.kind != PolicyKind::kNone && options.tiers.leads_anywhere();
  wake_at_.store(wanted ? wake_threshold(options) : UINT64_MAX, std::memory_order_relaxed);
  state_.store(wanted ? EngineState::kDormant : EngineState::kOff, std::memory_order_release);
  return kOk;
}

bool Engine::drop(std::uintptr_t at, std::size_t bytes) {
  Background* bg = background_.load(std::memory_order_acquire);
  if (bg == nullptr) return ops_->advise(at, bytes, os::kAdviceDontNeed).ok();
  bg->gate().enter();
  const bool released = drop_content(bg->core(), at, bytes);
  bg->gate().leave();
  return released;
}

void Engine::carved(std::size_t bytes) {
  if (bytes < wake_at_.load(std::memory_order_relaxed)) return;
  if (state() == EngineState::kDormant) {
    wants_wake_.store(true, std::memory_order_release);
  } else if (Background* bg = background(); bg != nullptr) {
    // Growth past the budget waits until its faults come to us; before that the thread just looks
    // sooner.
    const Core& core = bg->core();
    if (core.space.usage().demotable_bytes() / kPageSize >
            core.low_pages.load(std::memory_order_relaxed) &&
        !core.retired.load(std::memory_order_relaxed)) {
      bg->await_registration();
    } else {
      bg->kick();
    }
  }
}

void Engine::wake() {
  wants_wake_.store(false, std::memory_order_relaxed);
  if (state() != EngineState::kDormant || !waking_.try_lock()) return;
  if (state() == EngineState::kDormant) wake_up();
  waking_.unlock();
}

// With waking_ held.
void Engine::wake_up() {
  // A forked child of a process that was awake keeps its parts.
  Background* bg = background_.load(std::memory_order_acquire);
  if (os::filter_would_kill(options_->moves_between_nodes())) {
    return refuse(
        "heaptier: tiering is off in this process: its seccomp filter would kill it for what "
        "tiering "
        "needs. Remedy: allow userfaultfd, ioctl, close_range, pidfd_open, process_vm_readv and "
        "process_madvise, or have the filter answer with an error\n");
  }
  if (const std::size_t limit = os::data_limit(); bg == nullptr && limit != 0) {
    char line[320];
    std::snprintf(line, sizeof line,
                  "heaptier: tiering is off in this process: its limit on data (RLIMIT_DATA, %zu "
                  "MiB) counts the places of what is away a second time, and the heap would come "
                  "short. Remedy: ulimit -d unlimited\n",
                  limit >> 20);
    return refuse(line);
  }
  Errno e = kOk;
  if (bg == nullptr) {
    void* room = bootstrap::allocate(sizeof(Background), 64);
    if (room != nullptr) {
      bg = new (room) Background(*ops_, *space_, *options_, *stats_);
      if (user_only_.load(std::memory_order_relaxed)) bg->expect_user_only();
      e = bg->prepare();
    } else {
      e = {ENOMEM};
    }
  }
  {
    SpinGuard guard(pins_lock_);
    if (e.ok() && background_.load(std::memory_order_relaxed) == nullptr) {
      for (EarlyPin& pin : early_pins_) {
        if (pin.bytes != 0) hold_in(*bg, pin.what, pin.at, pin.bytes);
        pin = {};
      }
    }
    // Dropped content must be seen from the first moment a page can be stored.
    if (e.ok()) background_.store(bg, std::memory_order_release);
  }
  if (e.ok()) e = bg->start();
  if (e.failed()) return refuse(e);
  stats_->wakeups.add();
  woke_ = ops_->now();
  state_.store(EngineState::kAwake, std::memory_order_release);
}

// For good, and said in one line.
void Engine::refuse(const char* line) {
  state_.store(EngineState::kRefused, std::memory_order_release);
  os::write_text(line);
}

void Engine::refuse(Errno e) {
  const char* why = "userfaultfd refused: ";
  const char* fix = remedy(probe());
  if (e.code == ENOMEM || e.code == EAGAIN) {
    why = "no memory or no thread: ";
    fix = "";
  } else if (e.code == ENOTSUP && fix[0] == '\0') {
    char some[8];
    const bool seen = os::read_file("/proc/self/pagemap", some, sizeof some) > 0;
    why = seen ? why : "/proc/self/pagemap cannot be read: ";
    fix = seen ? "Linux 6.8 or later" : "mount /proc";
  }
  char line[640];
  std::snprintf(line, sizeof line,
                "heaptier: tiering is off in this process (%s%s); the application runs as without "
                "it%s%s\n",
                why, std::strerror(e.code), fix[0] != '\0' ? ". Remedy: " : "", fix);
  refuse(line);
}

// Bytes of memory that only the pages of [at, at+bytes) could give are in place when this returns:
// pages that are away are read by the kernel on our behalf, which faults them in and cannot crash
// on memory that the application has made unreadable.
int Engine::bring_back(std::uintptr_t at, std::size_t bytes) {
  Background* bg = background();
  if (bg == nullptr) return 0;
  Core& core = bg->core();
  if (core.protection != nullptr) return show_hidden(core, bg->gate(), at, bytes);
  int back = 0;
  char* scratch = static_cast<char*>(bootstrap::allocate(kPageSize, kPageSize));
  if (scratch == nullptr) return -ENOMEM;
  for (std::uintptr_t end = at + bytes; at < end; at += kPageSize) {
    const PageIndex p = core.space.page_at(at);
    if (!core.table.managed(p)) {
      at = core.space.address_of(block_of(p)) + kPageblockSize - kPageSize;
      continue;
    }
    // Who has it may be about to let it go: what was asked to stay is looked at after that.
    PageWord word = core.table.peek(p);
    for (Backoff backoff; word.locked(); word = core.table.peek(p)) backoff.pause();
    const PageState s = word.state();
    if (s != PageState::kParked && s != PageState::kStored && s != PageState::kFilled) continue;
    std::size_t done = 0;
    if (bg->resolved_inline(at)) {
      // A system call would get EFAULT: the touch must be ours.
      *scratch = *reinterpret_cast<volatile char*>(at);  // NOLINT(performance-no-int-to-ptr)
      ++back;
    } else if (core.ops.copy_pages(&at, 1, scratch, &done).ok()) {
      ++back;
    }
  }
  bootstrap::release(scratch, kPageSize, kPageSize);
  return back;
}

void Engine::hold_in(Background& bg, Hold what, std::uintptr_t at, std::size_t bytes) {
  Core& core = bg.core();
  const BlockIndex last = block_of(core.space.page_at(at + bytes - 1));
  for (BlockIndex b = block_of(core.space.page_at(at)); b <= last; ++b.v) {
    Pageblock& block = core.table.block(b);
    switch (what) {
      case Hold::kPin:
        block.pins.fetch_add(1, std::memory_order_seq_cst);
        break;
      case Hold::kUnpin:
        if (block.pins.load(std::memory_order_relaxed) > 0) {
          block.pins.fetch_sub(1, std::memory_order_relaxed);
        }
        continue;
      case Hold::kSurrender:
        block.surrendered.store(true, std::memory_order_seq_cst);
        break;
      case Hold::kRestore:
        // A change of a part leaves a huge page in parts of which it still is made.
        block.only_small.store(false, std::memory_order_relaxed);
        block.surrendered.store(false, std::memory_order_release);
        continue;
    }
    SpinGuard wait_for_a_park_under_way(block.gate);
  }
}

void Engine::hold(Hold what, std::uintptr_t at, std::size_t bytes) {
  if (bytes == 0) return;
  {
    SpinGuard guard(pins_lock_);
    if (background_.load(std::memory_order_acquire) == nullptr) {
      // Not awake: noted, to be applied when there is a table.
      const bool add = what == Hold::kPin || what == Hold::kSurrender;
      const Hold match = what == Hold::kUnpin ? Hold::kPin : Hold::kSurrender;
      for (EarlyPin& pin : early_pins_) {
        const bool same = pin.bytes == bytes && pin.at == at;
        if (add) {
          if (same && what == Hold::kSurrender && pin.what == what) return;
          if (pin.bytes != 0) continue;
          pin = {at, bytes, what};
          return;
        }
        if (!same || pin.what != match) continue;
        pin = {};
        return;
      }
      return;
    }
  }
  hold_in(*background_.load(std::memory_order_acquire), what, at, bytes);
}

void Engine::surrender(std::uintptr_t at, std::size_t bytes) {
  hold(Hold::kSurrender, at, bytes);
  (void)bring_back(at, bytes);
}

void Engine::restored(std::uintptr_t at, std::size_t bytes) {
  hold(Hold::kRestore, at, bytes);
}

void Engine::pin(std::uintptr_t at, std::size_t bytes) {
  hold(Hold::kPin, at, bytes);
  (void)bring_back(at, bytes);
}

void Engine::unpin(std::uintptr_t at, std::size_t bytes) {
  hold(Hold::kUnpin, at, bytes);
}

void Engine::pin_for_thread(std::uint32_t tid, std::uintptr_t at, std::size_t bytes) {
  pin(at, bytes);
  SpinGuard guard(pins_lock_);
  for (ThreadPin& p : thread_pins_) {
    if (p.tid != 0) continue;
    p = {tid, at, bytes};
    thread_pin_count_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
}

void Engine::release_dead_threads_pins() {
  if (thread_pin_count_.load(std::memory_order_relaxed) == 0) return;
  for (ThreadPin& p : thread_pins_) {
    ThreadPin gone{};
    {
      SpinGuard guard(pins_lock_);
      if (p.tid == 0 || os::thread_is_alive(p.tid)) continue;
      gone = p;
      p = {};
      thread_pin_count_.fetch_sub(1, std::memory_order_relaxed);
    }
    unpin(gone.at, gone.bytes);
  }
}

void Engine::retire() {
  const EngineState was = state();
  if (was == EngineState::kOff || was == EngineState::kRefused) return;
  wants_wake_.store(false, std::memory_order_relaxed);
  wake_at_.store(UINT64_MAX, std::memory_order_relaxed);
  if (was == EngineState::kDormant) {
    state_.store(EngineState::kOff, std::memory_order_release);
    return;
  }
  Background* bg = background();
  if (bg == nullptr || bg->core().retired.exchange(true)) return;
  (void)bg->ask({});
  bg->core().high_pages.store(UINT64_MAX, std::memory_order_relaxed);
  (void)bring_back(space_->base(), std::size_t{space_->block_limit()} * kPageblockSize);
  os::write_text(
      "heaptier: the application has locked its memory: everything was brought back, tiering is "
      "off\n");
}

void Engine::let_threads_place() {
  threads_place_.store(true, std::memory_order_seq_cst);
  if (Background* bg = background(); bg != nullptr) bg->await_heeded();
}

void Engine::forget(std::uintptr_t at, std::size_t bytes) {
  Background* bg = background_.load(std::memory_order_acquire);
  if (bg == nullptr) return;
  bg->gate().enter();
  forget_content(bg->core(), at, bytes);
  bg->gate().leave();
}

bool Engine::app_advise(std::uintptr_t at, std::size_t bytes, int advice, int* result) {
  switch (advice) {
    case os::kAdviceDontNeed:
      *result = drop(at, bytes) ? 0 : EINVAL;
      return true;
    case os::kAdviceFree:
      // Dead content: gone at once rather than under pressure.
      *result = drop(at, bytes) ? 0 : EINVAL;
      return true;
    case os::kAdviceDontFork:
    case os::kAdviceWipeOnFork:
      // The child would not find what it expects of stored pages: keep such memory at home.
      pin(at, bytes);
      return false;
    default:
      return false;
  }
}

int Engine::where(std::uintptr_t at, std::size_t bytes, unsigned char* places) {
  const std::uintptr_t end = round_up(at + bytes, kPageSize);
  at = round_down(at, kPageSize);
  Background* bg = background_.load(std::memory_order_acquire);
  int n = 0;
  for (; at < end; at += kPageSize, ++n) {
    if (!space_->contains(reinterpret_cast<void*>(at)) ||  // NOLINT
        space_->mobility_of(block_of(space_->page_at(at))) == Mobility::kUnmovable) {
      places[n] = HEAPTIER_UNMANAGED;
      continue;
    }
    const PageIndex p = space_->page_at(at);
    if (bg == nullptr || !bg->core().table.managed(p)) {
      places[n] = HEAPTIER_RESIDENT;
      continue;
    }
    switch (bg->core().table.peek(p).state()) {
      case PageState::kUntouched:
      case PageState::kResident:
        places[n] = HEAPTIER_RESIDENT;
        break;
      case PageState::kClean:
        places[n] = HEAPTIER_CLEAN;
        break;
      case PageState::kParked:
        places[n] = HEAPTIER_PARKED;
        break;
      case PageState::kStored:
        places[n] = HEAPTIER_STORED;
        break;
      case PageState::kFilled:
        places[n] = HEAPTIER_FILLED;
        break;
      case PageState::kPoisoned:
        places[n] = HEAPTIER_LOST;
        break;
    }
  }
  return n;
}

bool Engine::manages(std::uintptr_t at, std::size_t bytes) const {
  return at + bytes >= at && space_->contains(reinterpret_cast<void*>(at)) &&  // NOLINT
         at + bytes <= space_->base() + space_->bytes();
}

int Engine::request(Request what, std::uintptr_t at, std::size_t bytes, unsigned tier) {
  if (state() == EngineState::kDormant) wake();
  Background* bg = background();
  if (bg == nullptr) return -ENOTSUP;
  const std::uintptr_t first = round_up(at, kPageSize);
  const std::uintptr_t end = round_down(at + bytes, kPageSize);
  if (!manages(at, bytes)) return -EINVAL;
  if (end <= first) return 0;
  return bg->ask(
      {what, space_->page_at(first), static_cast<std::uint32_t>((end - first) / kPageSize), tier});
}

int Engine::fetch(std::uintptr_t at, std::size_t bytes) {
  if (space_ == nullptr) return 0;
  if (!manages(at, bytes)) return -EINVAL;
  const std::uintptr_t end = round_up(at + bytes, kPageSize);
  at = round_down(at, kPageSize);
  Background* bg = background();
  if (bg == nullptr) return 0;
  // Counted before: a fetch brings neighbours along.
  const PageblockTable& table = bg->core().table;
  int away = 0;
  for (PageIndex p = space_->page_at(at); p.v < space_->page_at(at).v + (end - at) / kPageSize;
       ++p.v) {
    if (!table.managed(p)) continue;
    const PageState s = table.peek(p).state();
    away += s == PageState::kParked || s == PageState::kStored || s == PageState::kFilled ? 1 : 0;
  }
  const int back = bring_back(at, end - at);
  return back < 0 ? back : away;
}

// Brings the range back, and up to the first tier of nodes.
int Engine::warm(std::uintptr_t at, std::size_t bytes) {
  const int fetched = fetch(at, bytes);
  Background* bg = background();
  if (fetched < 0 || bg == nullptr || bg->core().nodes == nullptr) return fetched;
  const std::uintptr_t end = round_up(at + bytes, kPageSize);
  at = round_down(at, kPageSize);
  const int promoted = request(Request::kWarm, at, end - at);
  return promoted < 0 ? promoted : fetched + promoted;
}

// Everything is at home first: what is away has no node to be moved from.
int Engine::interleave(std::uintptr_t at, std::size_t bytes) {
  if (state() == EngineState::kDormant) wake();
  const int fetched = fetch(at, bytes);
  if (fetched < 0) return fetched;
  const std::uintptr_t end = round_up(at + bytes, kPageSize);
  at = round_down(at, kPageSize);
  return request(Request::kSpread, at, end - at);
}

void Engine::end_interleaving(std::uintptr_t at, std::size_t bytes) {
  Background* bg = background_.load(std::memory_order_acquire);
  if (bg == nullptr) return;
  const BlockIndex last = block_of(space_->page_at(at + bytes - 1));
  for (BlockIndex b = block_of(space_->page_at(at)); b <= last; ++b.v) {
    bg->core().table.block(b).interleaved.store(false, std::memory_order_relaxed);
  }
}

int Engine::advise(std::uintptr_t at, std::size_t bytes, int advice) {
  if (space_ == nullptr) return -ENOTSUP;
  if (!manages(at, bytes)) return -EINVAL;
  if (bytes == 0) return 0;
  switch (advice) {
    case HEAPTIER_PIN:
      if (state() == EngineState::kDormant) wake();  // pins are kept in the table
      if (state() != EngineState::kAwake) return 0;
      (void)warm(at, bytes);
      pin(round_down(at, kPageSize), bytes + (at & (kPageSize - 1)));
      return 0;
    case HEAPTIER_UNPIN:
      unpin(round_down(at, kPageSize), bytes + (at & (kPageSize - 1)));
      return 0;
    case HEAPTIER_INTERLEAVE:
      return interleave(at, bytes);
    case HEAPTIER_UNINTERLEAVE:
      end_interleaving(at, bytes);
      return 0;
    case HEAPTIER_COLD: {
      end_interleaving(at, bytes);
      if (state() == EngineState::kDormant) wake();
      Background* bg = background();
      const bool chain_of_nodes = bg != nullptr && bg->core().nodes != nullptr;
      return request(chain_of_nodes ? Request::kCool : Request::kDemote, at, bytes);
    }
    case HEAPTIER_HOT:
      end_interleaving(at, bytes);
      return warm(at, bytes);
    default:
      return -EINVAL;
  }
}

int Engine::ask_of_node(Request what, int node) {
  if (node < 0 || static_cast<unsigned>(node) >= kMaxNodes) return -EINVAL;
  if (state() == EngineState::kDormant) wake();
  Background* bg = background();
  if (bg == nullptr || bg->core().retired.load(std::memory_order_relaxed)) return -ENOTSUP;
  return bg->ask({what, PageIndex{static_cast<std::uint32_t>(node)}});
}

int Engine::drain(int node) {
  int result = ask_of_node(Request::kDrain, node);
  if (result < 0) return result;
  while ((result = ask_of_node(Request::kDrained, node)) == -EAGAIN) os::sleep_for(millis(5));
  return result;
}

int Engine::undrain(int node) {
  return ask_of_node(Request::kUndrain, node);
}

void Engine::fork_stop() {
  waking_.lock();
  fork_began_ = ops_->now();
  if (Background* bg = background(); bg != nullptr) bg->stop_moving();
}

void Engine::fork_freeze() {
  if (Background* bg = background(); bg != nullptr) {
    bg->freeze();
  } else if (Background* asleep = background_.load(std::memory_order_acquire); asleep != nullptr) {
    asleep->gate().close();  // a child's, dormant again: freed memory still goes through its table
  }
  pins_lock_.lock();
  space_->lock_for_fork();
  bootstrap::lock_for_fork();
}

void Engine::fork_thaw() {
  bootstrap::unlock_after_fork();
  space_->unlock_after_fork();
  pins_lock_.unlock();
  if (Background* bg = background(); bg != nullptr) {
    bg->thaw();
  } else if (Background* asleep = background_.load(std::memory_order_acquire); asleep != nullptr) {
    asleep->gate().open();
  }
}

void Engine::fork_go_on() {
  if (Background* bg = background(); bg != nullptr) bg->go_on();
  stats_->forks.add();
  stats_->fork_pause_ns.add(static_cast<std::uint64_t>((ops_->now() - fork_began_).v));
  waking_.unlock();
}

void Engine::fork_child(bool stacks_reclaimed) {
  bootstrap::unlock_after_fork();
  space_->unlock_after_fork();
  pins_lock_.unlock();
  waking_.unlock();
  // The report is the parent's to write, and who waits for the end of a pipe does not wait for us.
  reported_.store(true, std::memory_order_relaxed);
  os::let_go(&report_to_);
  Background* bg = background();
  if (bg == nullptr) {
    if (Background* asleep = background_.load(std::memory_order_acquire); asleep != nullptr) {
      asleep->forget_others();
    }
    return;
  }
  if (!bg->serving()) {
    // Nothing was ever demoted. Most children call exec at once: they pay for no thread.
    bg->sleep_in_child(stacks_reclaimed);
    woke_ = Nanos{};
    state_.store(EngineState::kDormant, std::memory_order_release);
    return;
  }
  if (!bg->restart_in_child(stacks_reclaimed)) {
    // Nothing is away and nobody serves faults: an ordinary heap.
    state_.store(EngineState::kRefused, std::memory_order_release);
  }
}

void Engine::snapshot(StatsSnapshot* out) {
  *out = StatsSnapshot{};
  if (stats_ == nullptr) return;  // heaptier was asked to stay out of this process
  stats_->read(out);
  const Nanos now = ops_->now();
  out->pid = static_cast<std::uint32_t>(os::process_id());
  out->lifetime_ns = static_cast<std::uint64_t>((now - started_).v);
  out->awake_ns = woke_.v == 0 ? 0 : static_cast<std::uint64_t>((now - woke_).v);
  out->dormant_ns = out->lifetime_ns - out->awake_ns;
  const SpaceUsage usage = space_->usage();
  out->heap_carved_bytes = usage.carved_bytes;
  for (const std::size_t blocks : usage.blocks) out->heap_block_bytes += blocks * kPageblockSize;
  out->heap_unmovable_bytes = usage.blocks[static_cast<int>(Mobility::kUnmovable)] * kPageblockSize;
  out->mobility_fallbacks = usage.fallbacks;
  out->metadata_bytes = bootstrap::bytes_resident();
  Background* bg = background();
  if (bg == nullptr) return;
  Core& core = bg->core();
  out->resident_pages = core.table.total(PageState::kResident);
  out->unmanaged_pages = core.unmanaged_pages.load(std::memory_order_relaxed);
  out->clean_pages = core.table.total(PageState::kClean);
  out->parked_pages = core.table.total(PageState::kParked);
  out->stored_pages = core.table.total(PageState::kStored);
  out->filled_pages = core.table.total(PageState::kFilled);
  out->poisoned_pages = core.table.total(PageState::kPoisoned);
  out->heap_managed_bytes = std::uint64_t{core.table.managed_blocks()} * kPageblockSize;
  out->budget_bytes = bg->loop().watermarks().fast_bytes;
  out->stuck_bytes = bg->loop().stuck_bytes();
  bg->interleave().read(out);
  bg->read_samplers(out);
  if (core.nodes != nullptr) {
    out->nodes_lost = core.nodes->lost();
    out->nodes_slow_pages = bg->node_loop().slow_pages();
    out->budget_bytes = bg->node_loop().fast_bytes();
  }
  if (core.store != nullptr) {
    const StoreUsage pool = core.store->usage();
    out->pool_payload_bytes = pool.payload_bytes;
    out->pool_held_bytes = pool.resident_bytes;
    out->pool_capacity_bytes = pool.capacity_bytes;
  }
  const LoopStats faults = bg->fault_stats();
  out->fault_reads = faults.reads;
  out->handler_follows = faults.repins;
  out->handler_class_switches = faults.class_switches;
  out->handler_cpu_ns = static_cast<std::uint64_t>(faults.cpu_time.v);
  out->background_cpu_ns = static_cast<std::uint64_t>(bg->cpu_time().v);
  out->fault_p50_ns = faults.service.percentile(50);
  out->fault_p99_ns = faults.service.percentile(99);
  out->fault_p999_ns = faults.service.percentile(99.9);
  out->fault_max_ns = faults.service.percentile(100);
}

void Engine::report_at_exit() {
  if (stats_ == nullptr) return;
  if (Background* bg = background(); bg != nullptr) bg->hurry();
  if (reported_.exchange(true)) return;
  const auto pid = static_cast<std::uint32_t>(os::process_id());
  if (!options_->reports(pid)) return;
  StatsSnapshot now;
  {
    // Nothing moves while the numbers are taken, so that they add up. No handler of the
    // application's may interrupt it: it would wait for a page that nobody brings.
    const os::SignalsBlocked quiet;
    SpinGuard no_fork(waking_);
    Background* bg = background();
    if (bg != nullptr) bg->hold_still();
    snapshot(&now);
    if (bg != nullptr) bg->let_go();
  }
  constexpr std::size_t kRoom = std::size_t{64} << 10;
  char* text = static_cast<char*>(bootstrap::allocate(kRoom));
  if (text == nullptr) return;
  if (options_->stats.kind == StatsOutput::Kind::kText) {
    const std::size_t n = write_text(text, kRoom, now);
    // Many programs close their standard error at exit, to see whether it was written well.
    const bool open = os::is_open(2);
    if (open || os::still_there(report_to_)) {
      (void)os::write_all(open ? 2 : report_to_.fd, text, n < kRoom ? n : kRoom - 1);
    }
  } else {
    char path[kMaxStatsPath];
    const std::size_t n = write_json(text, kRoom, now);
    Errno e{ENAMETOOLONG};
    if (expand_stats_path(options_->stats, pid, path, sizeof path)) {
      e = os::write_file(path, text, n < kRoom ? n : kRoom - 1);
    }
    if (e.failed()) {
      std::snprintf(text, kRoom, "heaptier: the statistics file could not be written: %s: %s\n",
                    options_->stats.path, std::strerror(e.code));
      os::write_text(text);
    }
  }
  bootstrap::release(text, kRoom);
}

}  // namespace heaptier
