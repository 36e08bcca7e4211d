#include "runtime/fault_service.h"

#include <cstring>

#include "policies/refault.h"
#include "runtime/discard.h"
#include "runtime/lazy_mark.h"
#include "runtime/node_moves.h"
#include "runtime/reclaim.h"

namespace heaptier {
namespace {

constexpr FaultReply kBusyReply{FaultVerdict::kBusy, 0, 0};
constexpr FaultReply kGoneReply{FaultVerdict::kGone, 0, 0};
constexpr FaultReply kLostReply{FaultVerdict::kLost, 0, 0};

// Pages discarded on behalf of one fault that finds memory above the high watermark: one batch, one
// TLB flush.
constexpr std::size_t kInlineBatch = 64;
// How long one fault may be held back for the background thread when nothing can be discarded at
// once.
constexpr Nanos kLongestThrottle = millis(1);

void fill_pattern(char* page, std::uint32_t pattern) {
  if (pattern == 0) {
    std::memset(page, 0, kPageSize);
    return;
  }
  for (std::size_t i = 0; i < kPageSize; i += sizeof pattern) {
    std::memcpy(page + i, &pattern, sizeof pattern);
  }
}

}  // namespace

FaultReply FaultService::on_fault(const FaultEvent& event, unsigned worker) {
  if (worker >= worker_count_) return kBusyReply;
  Worker& w = workers_[worker];
  w.toucher_cpu = event.cpu;
  if (core_.in_park(event.address)) return emptied_under_us(event.address);
  if (!core_.space.contains(reinterpret_cast<const void*>(event.address))) {  // NOLINT
    core_.stats.errors_events.add();
    return event.denied ? kLostReply : kGoneReply;
  }
  const PageIndex p = core_.space.page_at(event.address);
  if (event.denied) return denied(p, event, w);
  if (!core_.table.managed(p)) return kBusyReply;  // being registered: its words come in a moment
  if (!event.wp && throttled(w)) return kBusyReply;
  if (!event.wp && core_.table.block(block_of(p)).compound.load(std::memory_order_acquire)) {
    FaultReply reply;
    if (touch_joined(p, w, &reply)) return reply;
  }
  PageWord was;
  if (!core_.table.try_lock(p, &was)) {
    // The thread that holds the page and reads it (migration.cc, copy_pages) would wait for itself.
    if (event.tid != 0 && event.tid == core_.reading_tid.load(std::memory_order_acquire)) {
      return emptied_under_us(event.address);
    }
    core_.stats.faults_waited.add();
    return kBusyReply;
  }
  return resolve(p, was, event, w);
}

FaultReply FaultService::resolve(PageIndex p, PageWord was, const FaultEvent& event, Worker& w) {
  if (event.wp) return written(p, was);
  switch (was.state()) {
    case PageState::kUntouched:
      return first_touch(p, was, event, w);
    case PageState::kResident:
    case PageState::kClean:
      return lost(p, was, event, w);
    case PageState::kParked:
      return unpark(p, was, w);
    case PageState::kStored:
      return fetch(p, was, event, w);
    case PageState::kFilled:
      return refill(p, was, w);
    case PageState::kPoisoned:
      break;
  }
  core_.stats.faults.add();
  core_.stats.faults_poisoned.add();
  (void)core_.port->poison(core_.home(p), kPageSize);  // again: a fork or a free may have lifted it
  core_.table.unlock(p, was);
  return kLostReply;
}

// The page stays as it is and the fault comes back: memory is short for a moment, or the mapping is
// changing.
FaultReply FaultService::try_again(PageIndex p, PageWord was) {
  core_.table.unlock(p, was);
  core_.stats.faults.add();
  core_.stats.faults_failed.add();
  return kBusyReply;
}

// Pages that a run of faults in address order deserves: doubled each time the run goes on, 1 when
// it breaks. After Linux' mm/readahead.c, with one run a pageblock.
std::uint32_t FaultService::window_for(PageIndex p) {
  Pageblock& block = core_.table.block(block_of(p));
  const std::uint32_t at = page_in_block(p);
  std::uint32_t window = block.window.load(std::memory_order_relaxed);
  const bool goes_on = block.expected.load(std::memory_order_relaxed) == at && at != 0;
  window = goes_on ? (window == 0 ? 2 : window * 2) : 1;
  if (window > kMaxWindow) window = kMaxWindow;
  const auto left = static_cast<std::uint32_t>(kPagesPerBlock) - at;
  if (window > left) window = left;
  block.window.store(static_cast<std::uint8_t>(window), std::memory_order_relaxed);
  block.expected.store(static_cast<std::uint16_t>(at + window), std::memory_order_relaxed);
  return window;
}

// Above the high watermark the fault makes room for itself; where it cannot, it waits a little for
// the background thread.
bool FaultService::throttled(Worker& w) {
  switch (reclaim_for_fault(core_, w)) {
    case Reclaimed::kNotNeeded:
    case Reclaimed::kSome:
    case Reclaimed::kStoreFull:
      w.throttled_since = Nanos{};
      return false;
    case Reclaimed::kNothing:
      break;
  }
  // A little room above the mark, so that many faults at once do not all stand still.
  const std::uint64_t high = core_.high_pages.load(std::memory_order_relaxed);
  if (core_.present_pages() < high + high / 32) return false;
  const Nanos now = core_.ops.now();
  if (w.throttled_since.v == 0) {
    w.throttled_since = now;
    return true;
  }
  if (now - w.throttled_since < kLongestThrottle) return true;
  w.throttled_since = Nanos{};
  return false;
}

FaultReply FaultService::first_touch(PageIndex p, PageWord was, const FaultEvent& event,
                                     Worker& w) {
  const std::uint32_t window = window_for(p);
  // Neighbours that a sequential run will touch next, as far as they are untouched and free.
  std::uint32_t n = 1;
  for (; n < window; ++n) {
    PageWord next;
    const PageIndex q{p.v + n};
    if (!core_.table.try_lock(q, &next)) break;
    if (next.state() != PageState::kUntouched) {
      core_.table.unlock(q, next);
      break;
    }
  }
  RunResult r;
  if (event.write || n > 1) {
    std::memset(w.staging, 0, std::size_t{n} * kPageSize);
    r = core_.port->copy(core_.home(p), w.staging, std::size_t{n} * kPageSize, false, false);
  } else {
    r = core_.port->zero(core_.home(p), kPageSize, false);
  }
  std::uint32_t done = static_cast<std::uint32_t>(r.done / kPageSize);
  // Present although untouched: the kernel filled it before registration took effect. It is
  // resident.
  if (r.error.code == EEXIST && done < n) ++done;
  const PageWord fresh = PageWord{}.with_state(PageState::kResident);
  for (std::uint32_t i = n; i-- > 1;) {
    const PageIndex q{p.v + i};
    if (i < done) {
      core_.settle(q, PageWord{}, fresh, core_.stats.pages_zero_filled);
    } else {
      core_.table.unlock(q, PageWord{});
    }
  }
  if (done == 0) {
    core_.stats.errors_zero.add();
    if (r.error.code == ESRCH || r.error.code == ENOENT || r.error.code == EINVAL) {
      core_.table.unlock(p, was);
      return kGoneReply;
    }
    return try_again(p, was);
  }
  core_.stats.faults.add();
  core_.stats.faults_zero.add();
  core_.settle(p, was, fresh, core_.stats.pages_zero_filled);
  return wake(p, done);
}

// We hold the page for present and yet it faults. Either another handler served the same fault a
// moment ago (the page is there: EEXIST), or the application had the kernel empty it by a raw
// system call (it reads as zero).
FaultReply FaultService::lost(PageIndex p, PageWord was, const FaultEvent&, Worker& w) {
  if (filled_again(p, w)) {
    PageWord now = PageWord{}.with_state(PageState::kResident);
    if (was.state() == PageState::kClean) {
      core_.store->drop(SlotId{was.slot()});
      core_.settle(p, was, now, core_.stats.pages_written);
    } else {
      core_.table.publish(p, was, now);
    }
    return wake(p);
  }
  core_.table.unlock(p, was);
  return wake(p);
}

// Counts the fault; true: the page was empty indeed.
bool FaultService::filled_again(PageIndex p, Worker& w) {
  std::memset(w.staging, 0, kPageSize);
  const RunResult r = core_.port->copy(core_.home(p), w.staging, kPageSize, false, false);
  const bool empty = r.done == kPageSize;
  core_.stats.faults.add();
  if (empty) {
    core_.stats.faults_lost.add();
  } else {
    core_.stats.faults_stale.add();
  }
  return empty;
}

// A page that heaptier holds as present, parked or being read, is gone: the application has had the
// kernel empty it by a raw system call. It reads as zero, as asked.
FaultReply FaultService::emptied_under_us(std::uintptr_t address) {
  core_.stats.faults.add();
  core_.stats.faults_lost.add();
  (void)core_.port->zero(address, kPageSize, false);
  return {FaultVerdict::kWake, address, kPageSize};
}

// SIGSEGV. Either the page is hidden; or it was, and another thread was quicker; or the application
// may not touch it at all, which is a matter between it and the kernel.
FaultReply FaultService::denied(PageIndex p, const FaultEvent& event, Worker& w) {
  if (core_.protection == nullptr || !core_.table.managed(p)) return kLostReply;
  FaultReply reply;
  if (core_.table.block(block_of(p)).compound.load(std::memory_order_acquire) &&
      touch_joined(p, w, &reply)) {
    return reply;
  }
  PageWord was;
  if (!core_.table.try_lock(p, &was)) {
    core_.stats.faults_waited.add();
    return kBusyReply;
  }
  if (was.state() == PageState::kParked) return unpark(p, was, w);
  const bool open = core_.protection->open(p, event.write);
  core_.table.unlock(p, was);
  if (!open) return kLostReply;
  core_.stats.faults.add();
  core_.stats.faults_stale.add();
  return wake(p);
}

// A small page that comes home. What is worth it is not migrated here and now, but soon, with
// others, by the background thread: every call of move_pages has all CPUs empty their lists of
// fresh pages and waits for each of them, which is nothing for a fault to wait for.
PageWord FaultService::note_touch(Pageblock& block, PageWord was, const Worker& w) {
  // Parked because somebody has decided for himself: no measure of how hot it is.
  if (LazyMark{was.slot()}.is_waiting()) {
    return with_seen(note_wanted(was, w).with_stamp(0), Seen::kNo);
  }
  NodeTiers& nodes = *core_.nodes;
  const Nanos now = core_.ops.now();
  const WatchClock::Mark mark{block.parked_at.load(std::memory_order_relaxed),
                              block.parked_faults.load(std::memory_order_relaxed)};
  const Nanos exact = nodes.clock().lap(now, mark);
  const Nanos gap = parked_with_block(was, {mark.at}) ? exact : since_parked(was, now);
  note_toucher(block, w);
  const bool again = seen(was) == Seen::kCandidate;
  return with_seen(was.with_estimate(gap_of(gap)).with_stamp(0),
                   again ? Seen::kCandidateAgain : Seen::kTouched);
}

// Which node the touch came from. Two handlers at a time may lose a count.
void FaultService::note_toucher(Pageblock& block, const Worker& w) {
  const NodeTiers& nodes = *core_.nodes;
  const auto node = static_cast<std::uint8_t>(nodes.node_of_cpu(w.toucher_cpu));
  const unsigned own = block.node.load(std::memory_order_relaxed);
  // Of a thread that is nobody knows where, and between nodes that are no two sockets of the first
  // tier, that says nothing.
  if (w.toucher_cpu < 0 || !nodes.sockets().contains(node) || !nodes.sockets().contains(own)) {
    block.hot_node.store(node, std::memory_order_relaxed);
    return;
  }
  const bool near = node == own;
  const bool moved_on = node != block.hot_node.exchange(node, std::memory_order_relaxed);
  if (!near && moved_on) block.far_touches.store(0, std::memory_order_relaxed);
  std::atomic<std::uint8_t>& touches = near ? block.near_touches : block.far_touches;
  const std::uint8_t n = touches.load(std::memory_order_relaxed);
  if (n < UINT8_MAX) touches.store(static_cast<std::uint8_t>(n + 1), std::memory_order_relaxed);
}

// The page may have waited for this touch to be moved (lazy_mark.h).
PageWord FaultService::note_wanted(PageWord was, const Worker& w) {
  const LazyMark mark{was.slot()};
  if (!mark.is_waiting()) return was;
  return was.with_slot(mark.touched_from(core_.nodes->node_of_cpu(w.toucher_cpu)).bits());
}

FaultReply FaultService::unpark(PageIndex p, PageWord was, const Worker& w) {
  Pageblock& block = core_.table.block(block_of(p));
  if (block.huge.load(std::memory_order_relaxed)) return unpark_huge(p, was, w);
  const PageWord home = core_.nodes != nullptr ? note_touch(block, was, w) : was;
  RunResult r{{EBUSY}, 0};
  // While the store takes a huge page apart its frames stay where they are (moving one would split
  // it page by page, 0.4 ms); the copy at home is what counts.
  if (!block.residue.load(std::memory_order_acquire)) {
    r = core_.bring_home(p, 1, false);
  }
  if (core_.protection == nullptr && (r.error.code == EBUSY || r.error.code == EINVAL)) {
    // Pinned there, shared with a forked child, or home is not writable at the moment: copy. The
    // frame is given back with the block's others.
    r = core_.port->copy(core_.home(p), reinterpret_cast<const void*>(core_.park(p)),  // NOLINT
                         kPageSize, false, false);
    if (r.done == kPageSize) core_.leave_residue(block);
  }
  if (core_.protection == nullptr && r.error.code == ENOENT) {
    // No frame there: somebody emptied the park behind our back. It reads as zero.
    core_.stats.faults.add();
    core_.stats.faults_lost.add();
    r = core_.port->zero(core_.home(p), kPageSize, false);
    if (r.done != kPageSize && r.error.code != EEXIST) return try_again(p, was);
    core_.settle(p, was, PageWord{}.with_state(PageState::kResident),
                 core_.stats.pages_unparked_touch);
    return wake(p);
  }
  if (r.done != kPageSize && r.error.code != EEXIST) {
    core_.stats.errors_move.add();
    if (r.error.code == ESRCH) {
      core_.table.unlock(p, was);
      return kGoneReply;
    }
    return try_again(p, was);
  }
  block.touches.fetch_add(1, std::memory_order_relaxed);
  core_.stats.faults.add();
  core_.stats.faults_hint.add();
  core_.settle(p, was, home.with_state(PageState::kResident), core_.stats.pages_unparked_touch);
  if (LazyMark{home.slot()}.is_touched()) core_.note_lazy_touch(block);
  return wake(p);
}

FaultReply FaultService::fetch(PageIndex p, PageWord was, const FaultEvent& event, Worker& w) {
  StoreTier& store = *core_.store;
  store.prefetch(SlotId{was.slot()});
  const std::uint32_t window = window_for(p);
  if (store.fetch(w.workspace, SlotId{was.slot()}, w.staging) == FetchOutcome::kCorrupt) {
    core_.stats.faults.add();
    core_.stats.faults_poisoned.add();
    (void)core_.port->poison(core_.home(p), kPageSize);
    store.drop(SlotId{was.slot()});
    core_.settle(p, was, was.with_state(PageState::kPoisoned).with_slot(0),
                 core_.stats.pages_poisoned);
    return kLostReply;
  }
  // The pages that a sequential run will want next come along in the same copy.
  PageWord words[kMaxWindow];
  words[0] = was;
  std::uint32_t n = 1;
  for (; n < window; ++n) {
    const PageIndex q{p.v + n};
    if (!core_.table.try_lock(q, &words[n])) break;
    if (words[n].state() != PageState::kStored ||
        store.fetch(w.workspace, SlotId{words[n].slot()}, w.staging + std::size_t{n} * kPageSize) !=
            FetchOutcome::kFetched) {
      core_.table.unlock(q, words[n]);
      break;
    }
  }
  RefaultVerdict verdict = judge_refault(
      {core_.discards.load(std::memory_order_relaxed), was.stamp(),
       core_.stamp_shift.load(std::memory_order_relaxed), was.estimate(),
       core_.table.total(PageState::kResident), core_.table.total(PageState::kStored)});
  // A page fetched by a write loses its copy at once: no second fault to lift the protection.
  const bool dirty = event.write && n == 1;
  const RunResult r =
      core_.port->copy(core_.home(p), w.staging, std::size_t{n} * kPageSize, !dirty, false);
  const auto done = static_cast<std::uint32_t>(r.done / kPageSize);
  for (std::uint32_t i = n; i-- > 1;) {
    const PageIndex q{p.v + i};
    if (i >= done) {
      core_.table.unlock(q, words[i]);
      continue;
    }
    core_.settle(q, words[i], words[i].with_state(PageState::kClean).with_write_protected(true),
                 core_.stats.pages_fetched_ahead);
    core_.queue_clean(core_.fetched, q);
  }
  Pageblock& block = core_.table.block(block_of(p));
  if (done == 0 && r.error.code != EEXIST) {
    core_.stats.errors_copy.add();
    if (r.error.code == ESRCH || r.error.code == ENOENT) {
      core_.table.unlock(p, was);
      return kGoneReply;
    }
    // No memory for the page (a cgroup limit): make room, then again.
    discard_fetched(core_, kInlineBatch, Evictor::kInline);
    return try_again(p, was);
  }
  block.touches.fetch_add(1, std::memory_order_relaxed);
  core_.stats.faults.add();
  core_.stats.faults_fetch.add();
  // Where there are several tiers of nodes a word's estimate is a gap, and a credit another mark.
  if (core_.nodes != nullptr) verdict = {0, false, 0};
  const PageWord now = was.with_estimate(verdict.estimate).with_write_protected(!dirty);
  if (done == 0 || dirty || verdict.promote) {
    store.drop(SlotId{was.slot()});
    core_.settle(p, was,
                 now.with_state(PageState::kResident)
                     .with_slot(0)
                     .with_write_protected(!dirty && done > 0)
                     .with_credits(verdict.promote ? verdict.credits : 0),
                 core_.stats.pages_fetched_hot);
  } else {
    core_.settle(p, was, now.with_state(PageState::kClean), core_.stats.pages_fetched);
    core_.queue_clean(core_.fetched, p);
  }
  return wake(p, done > 0 ? done : 1);
}

FaultReply FaultService::refill(PageIndex p, PageWord was, Worker& w) {
  fill_pattern(w.staging, was.slot());
  const RunResult r = core_.port->copy(core_.home(p), w.staging, kPageSize, false, false);
  if (r.done != kPageSize && r.error.code != EEXIST) {
    core_.stats.errors_copy.add();
    if (r.error.code == ESRCH || r.error.code == ENOENT) {
      core_.table.unlock(p, was);
      return kGoneReply;
    }
    return try_again(p, was);
  }
  core_.table.block(block_of(p)).touches.fetch_add(1, std::memory_order_relaxed);
  core_.stats.faults.add();
  core_.stats.faults_fill.add();
  core_.settle(p, was, PageWord{}.with_state(PageState::kResident),
               core_.stats.pages_refilled_touch);
  return wake(p);
}

// A write to a protected page: its copy, if any, is out of date from this moment on.
FaultReply FaultService::written(PageIndex p, PageWord was) {
  core_.stats.faults.add();
  const PageState s = was.state();
  if (s != PageState::kClean && s != PageState::kResident && s != PageState::kUntouched) {
    // It left meanwhile: the access comes again, as a fault on an absent page.
    core_.stats.faults_stale.add();
    core_.table.unlock(p, was);
    return wake(p);
  }
  if (Errno e = core_.port->write_protect(core_.home(p), kPageSize, false, false); e.failed()) {
    core_.stats.errors_protect.add();
    core_.table.unlock(p, was);
    return e.code == ESRCH || e.code == ENOENT ? kGoneReply : kBusyReply;
  }
  core_.stats.faults_write.add();
  if (s == PageState::kUntouched) {
    // Mapped although we hold it for absent: the kernel moved something here. Lifting the
    // protection was all it needed; an absent page would fault again.
    core_.table.unlock(p, was);
    return wake(p);
  }
  const PageWord now =
      was.with_state(PageState::kResident).with_slot(0).with_write_protected(false);
  if (s == PageState::kClean) {
    core_.store->drop(SlotId{was.slot()});
    core_.settle(p, was, now, core_.stats.pages_written);
  } else {
    core_.table.publish(p, was, now);
  }
  return wake(p);
}

}  // namespace heaptier
