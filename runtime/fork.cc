// fork. The child is to read exactly what the parent had at that moment, at once, whatever was
// parked or stored.
//
// Both sides of what heaptier keeps (words, pool, park) are private memory of the process, so the
// kernel's copy-on-write gives the child a snapshot of it for free. What the child lacks is
// everything that served faults: userfaultfd registrations do not survive a fork, and neither do
// threads. So:
//  stop     the background thread stands between two steps; the heap still works, since it may be
//  starting a thread.
//           Then the heap locks itself for the fork.
//  freeze   the handlers hold no fault, no thread is inside a drop, the pool's and the bootstrap
//  heap's locks are ours. child    (the heap works again:) a new background thread opens a new
//  userfaultfd, registers what was registered and starts handlers;
//           only then does the application's thread go on. Where the child may not have a
//           userfaultfd (a filter that came in between), every page is brought home by plain writes
//           instead.
#include <new>

#include "runtime/background.h"
#include "runtime/bootstrap_heap.h"
#include "runtime/discard.h"
#include "runtime/os/futex.h"
#include "runtime/os/process.h"
#include "runtime/os/sandbox.h"
#include "runtime/os/thread.h"

namespace heaptier {
namespace {

constexpr auto kBlockPages = static_cast<std::uint32_t>(kPagesPerBlock);

void fill(char* page, std::uint32_t pattern) {
  for (std::size_t i = 0; i < kPageSize; i += sizeof pattern) {
    __builtin_memcpy(page + i, &pattern, sizeof pattern);
  }
}

}  // namespace

void Background::stop_moving() {
  still_.store(1, std::memory_order_release);
  kick();
  for (std::uint32_t s; (s = still_.load(std::memory_order_acquire)) != 2;) {
    os::futex_wait(still_, s, millis(100));
  }
}

void Background::hold_still() {
  stop_moving();
  gate_.close();
  if (faults_.running()) faults_.pause();
}

void Background::let_go() {
  if (faults_.running()) faults_.resume();
  gate_.open();
  go_on();
}

void Background::freeze() {
  // Those who drop content may wait for a page that a handler holds, so they come first.
  gate_.close();
  if (faults_.running()) faults_.pause();
  if (core_.store != nullptr) core_.store->fork_prepare();
  core_.fetched.lock_for_fork();
  core_.copied.lock_for_fork();
}

void Background::thaw() {
  core_.copied.unlock_after_fork();
  core_.fetched.unlock_after_fork();
  if (core_.store != nullptr) core_.store->fork_done(false);
  if (faults_.running()) faults_.resume();
  gate_.open();
}

void Background::go_on() {
  still_.store(0, std::memory_order_release);
  os::futex_wake_all(still_);
}

void Background::forget_others() {
  gate_.reset();
  // A thread that was asking for pages to stay (Engine::hold) may have held one of these.
  const std::uint32_t limit = core_.space.block_limit();
  for (std::uint32_t b = 0; (b = core_.space.next_block(b)) < limit; ++b) {
    table_.block({b}).gate.free_in_child();
  }
}

void Background::sleep_in_child(bool stacks_reclaimed) {
  // Where libc still holds the parent's threads for living ones it has their stacks in a list,
  // which a second thread on the same stack would tie into a ring: then new ones, and the old are
  // left.
  if (!stacks_reclaimed) {
    own_stack_ = nullptr;
    worker_stacks_ = nullptr;
  }
  forget_others();
  core_.copied.unlock_after_fork();
  core_.fetched.unlock_after_fork();
  if (core_.store != nullptr) core_.store->fork_done(true);
  still_.store(0, std::memory_order_relaxed);
  core_.kicked.store(0, std::memory_order_relaxed);
  core_.reading_tid.store(0, std::memory_order_relaxed);
  startup_.store(0, std::memory_order_relaxed);
  growth_seen_.store(growth_asked_.load(std::memory_order_relaxed), std::memory_order_relaxed);
  for (Slot& slot : slots_) slot.state.store(0, std::memory_order_relaxed);
  in_child_ = false;
  control_.forget();
  damon_.forget();
  perf_.forget();
  core_.port = nullptr;
  cpu_time_.store(0, std::memory_order_relaxed);
  machine_look_ = {};
  // The parent's descriptors are in a table of its threads' own and not here, but where application
  // threads use them.
  if (some_inline()) close_ports();
  new (&port_) ShardedPort();
  new (&inline_port_) ShardedPort();
}

bool Background::restart_in_child(bool stacks_reclaimed) {
  sleep_in_child(stacks_reclaimed);
  in_child_ = true;
  adopt_inherited_pages();
  // The thread that forked may have gone into a sandbox of its own since the engine woke.
  if (!os::filter_would_kill(options_.moves_between_nodes()) && start().ok()) {
    core_.stats.children_restarted.add();
    return true;
  }
  bring_everything_home();
  return false;
}

// The child's page tables are a copy without protections: clean pages could be written unseen, so
// their copies go.
void Background::adopt_inherited_pages() {
  const std::uint32_t limit = core_.space.block_limit();
  for (std::uint32_t b = 0; (b = core_.space.next_block(b)) < limit; ++b) {
    Pageblock& block = table_.block({b});
    if (block.words.load(std::memory_order_relaxed) == nullptr) continue;
    if (block.count(PageState::kClean) + block.count(PageState::kResident) == 0) continue;
    for (std::uint32_t i = 0; i < kBlockPages; ++i) {
      const PageIndex p{first_page({b}).v + i};
      const PageWord seen = table_.peek(p);
      const bool clean = seen.state() == PageState::kClean;
      if (!clean && !seen.write_protected()) continue;
      const PageWord was = table_.lock(p);
      const PageWord now =
          was.with_state(PageState::kResident).with_slot(0).with_write_protected(false);
      if (clean) {
        core_.store->drop(SlotId{was.slot()});
        core_.settle(p, was, now, core_.stats.pages_recalled);
      } else {
        table_.publish(p, was, now);
      }
    }
  }
  core_.fetched.clear();
  core_.copied.clear();
}

// Registers runs of managed pageblocks, home and park. Called by the child's new thread.
bool Background::register_inherited() {
  if (core_.protection != nullptr) return true;  // nothing to register
  const std::uint32_t limit = core_.space.block_limit();
  for (std::uint32_t b = 0; b < limit;) {
    if (!table_.block({b}).served()) {
      ++b;
      continue;
    }
    // One call, one port.
    const auto user_only = [this](std::uint32_t x) {
      return core_.space.owner_of(BlockIndex{x}) == Owner::kUserOnly;
    };
    std::uint32_t end = b;
    while (end < limit && table_.block({end}).served() && user_only(end) == user_only(b)) ++end;
    const std::size_t bytes = std::size_t{end - b} * kPageblockSize;
    if (core_.port->register_range(core_.park(first_page({b})), bytes).failed() ||
        core_.port->register_range(core_.space.address_of(BlockIndex{b}), bytes).failed()) {
      core_.stats.errors_register.add();
      return false;
    }
    b = end;
  }
  return true;
}

// No userfaultfd in this child: its heap is made whole by plain writes and is an ordinary heap from
// now on. The only thread is the one that forked.
void Background::bring_everything_home() {
  const std::uint32_t limit = core_.space.block_limit();
  for (std::uint32_t b = 0; (b = core_.space.next_block(b)) < limit; ++b) {
    if (table_.block({b}).words.load(std::memory_order_relaxed) == nullptr) continue;
    if (core_.protection != nullptr) {
      (void)migration_.unpark(BlockIndex{b});
      continue;
    }
    for (std::uint32_t i = 0; i < kBlockPages; ++i) {
      const PageIndex p{first_page({b}).v + i};
      const PageWord was = table_.peek(p);
      char* home = reinterpret_cast<char*>(core_.home(p));  // NOLINT(performance-no-int-to-ptr)
      switch (was.state()) {
        case PageState::kParked:
          __builtin_memcpy(home, reinterpret_cast<const char*>(core_.park(p)),
                           kPageSize);  // NOLINT
          core_.settle(p, table_.lock(p), was.with_state(PageState::kResident),
                       core_.stats.pages_unparked_other);
          break;
        case PageState::kStored: {
          const bool good = core_.store->fetch(own_.workspace, SlotId{was.slot()}, own_.staging) ==
                            FetchOutcome::kFetched;
          if (good) __builtin_memcpy(home, own_.staging, kPageSize);
          core_.store->drop(SlotId{was.slot()});
          if (good) {
            core_.settle(p, table_.lock(p), was.with_state(PageState::kResident).with_slot(0),
                         core_.stats.pages_fetched_hot);
          } else {
            // Never silently wrong: the page becomes one that cannot be touched.
            (void)core_.ops.protect_none(core_.home(p), kPageSize);
            core_.settle(p, table_.lock(p), was.with_state(PageState::kPoisoned).with_slot(0),
                         core_.stats.pages_poisoned);
          }
          break;
        }
        case PageState::kFilled:
          fill(home, was.slot());
          core_.settle(p, table_.lock(p), PageWord{}.with_state(PageState::kResident),
                       core_.stats.pages_refilled_other);
          break;
        default:
          break;
      }
    }
  }
  if (core_.protection != nullptr) return;
  os::write_text(
      "heaptier: a forked child may not use userfaultfd: its pages were brought back, tiering is "
      "off "
      "there\n");
}

}  // namespace heaptier
