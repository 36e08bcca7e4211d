#include "runtime/migration.h"

#include <algorithm>

#include "runtime/bootstrap_heap.h"
#include "runtime/lazy_mark.h"
#include "runtime/node_moves.h"
#include "runtime/os/advice.h"
#include "runtime/page_heat.h"
#include "runtime/rest.h"

namespace heaptier {
namespace {

constexpr auto kBlockPages = static_cast<std::uint32_t>(kPagesPerBlock);
bool asked_for(const Pageblock& block, PageWord word, Parking how) {
  switch (how) {
    case Parking::kBelow:
      return !lies_above(block, word);
    case Parking::kAbove:
      return lies_above(block, word);
    case Parking::kCandidates:
      return seen(word) == Seen::kCandidate;
    case Parking::kAll:
    case Parking::kAsked:
    case Parking::kSpared:
    case Parking::kWritten:
      break;
  }
  return true;
}

}  // namespace

Errno Migration::scan(BlockIndex b, std::uint16_t* present, bool* huge) {
  *present = 0;
  *huge = false;
  return each_present(b, huge, [present](std::uint32_t) { ++*present; });
}

Errno Migration::manage(BlockIndex b) {
  Pageblock& block = core_.table.block(b);
  if (block.served()) {
    if (core_.protection != nullptr) look_again(b);
    return kOk;
  }
  if (block.words.load(std::memory_order_relaxed) != nullptr) return manage_again(b);
  std::atomic<std::uint64_t>* words = core_.table.make_words();
  if (words == nullptr) {
    core_.stats.errors_memory.add();
    return {ENOMEM};
  }
  // Register first, look second: a page that is touched in between faults and waits for the words.
  // The other way round it could appear unseen and would later be taken for untouched.
  bool huge = false;
  std::uint32_t found_pages = 0;
  Errno e = enlist(b);
  if (e.ok()) {
    e = each_present(b, &huge, [&](std::uint32_t page) {
      core_.table.seed(words, page, PageState::kResident);
      ++found_pages;
    });
    // Without knowing which pages are there nothing may be managed: give the range back as it was.
    if (e.failed()) delist(b);
  }
  if (e.failed()) {
    bootstrap::release(words, kPagesPerBlock * sizeof *words);
    return e;
  }
  block.found(huge);
  if (!huge) know_parts(b, found_pages == 0);
  core_.stats.pages_found.add(found_pages);
  core_.stats.blocks_registered.add();
  block.registered.store(true, std::memory_order_release);
  core_.table.adopt(b, words);
  return kOk;
}

// What comes to an empty block from now on comes in small pages. Of others it is found out before a
// thread has to know that may not find out.
void Migration::know_parts(BlockIndex b, bool empty) {
  if (!parts_have_to_be_small() || !worker_.background) return;
  if (!empty && core_.large_pages->take_apart(core_.space.address_of(b)).failed()) return;
  core_.table.block(b).only_small.store(true, std::memory_order_relaxed);
}

// A block that was given back by one heap (content.cc, resign) and is in use again: its words are
// all untouched.
Errno Migration::manage_again(BlockIndex b) {
  Pageblock& block = core_.table.block(b);
  SpinGuard gate(block.gate);  // it may be given back at this moment
  bool huge = false;
  bool empty = true;
  Errno e = enlist(b);
  if (e.failed()) return e;
  e = each_present(b, &huge, [&](std::uint32_t page) {
    const PageIndex p{first_page(b).v + page};
    const PageWord was = core_.table.lock(p);
    empty = false;
    if (was.state() == PageState::kUntouched) {
      core_.settle(p, was, PageWord{}.with_state(PageState::kResident), core_.stats.pages_found);
    } else {
      core_.table.unlock(p, was);
    }
  });
  if (e.failed()) {
    delist(b);
    return e;
  }
  block.found(huge);
  if (!huge) know_parts(b, empty);
  core_.stats.blocks_registered.add();
  block.registered.store(true, std::memory_order_release);
  return kOk;
}

// Has the faults of home and park come to us. Hidden pages tell by themselves.
Errno Migration::enlist(BlockIndex b) {
  if (core_.protection != nullptr) return kOk;
  const std::uintptr_t home = core_.space.address_of(b);
  const std::uintptr_t park = core_.park(first_page(b));
  Errno e = core_.ensure_park(b);
  if (e.ok()) e = core_.port->register_range(park, kPageblockSize);
  if (e.ok()) {
    e = core_.port->register_range(home, kPageblockSize);
    if (e.failed()) (void)core_.port->unregister_range(park, kPageblockSize);
  }
  if (e.failed()) core_.stats.errors_register.add();
  return e;
}

void Migration::delist(BlockIndex b) {
  if (core_.protection != nullptr) return;
  const std::uintptr_t home = core_.space.address_of(b);
  (void)core_.port->unregister_range(home, kPageblockSize);
  (void)core_.port->unregister_range(core_.park(first_page(b)), kPageblockSize);
  (void)core_.port->wake(home, kPageblockSize);
}

// Where nobody is told of first touches: sees which pages have come since, and whether they are one
// huge page.
void Migration::look_again(BlockIndex b) {
  Pageblock& block = core_.table.block(b);
  SpinGuard gate(block.gate);
  if (block.count(PageState::kParked) != 0) return;
  bool huge = false;
  const Errno e = each_present(b, &huge, [&](std::uint32_t page) {
    const PageIndex p{first_page(b).v + page};
    PageWord was = core_.table.peek(p);
    if (was.state() != PageState::kUntouched || !core_.table.try_lock(p, &was)) return;
    if (was.state() == PageState::kUntouched) {
      core_.settle(p, was, PageWord{}.with_state(PageState::kResident), core_.stats.pages_found);
    } else {
      core_.table.unlock(p, was);
    }
  });
  if (e.ok()) block.found(huge);
}

bool Migration::split_at_home(BlockIndex b) {
  Pageblock& block = core_.table.block(b);
  SpinGuard gate(block.gate);
  if (!make_a_part_cold(b)) return false;
  // Unless something holds it: the call says nothing of that.
  if (core_.large_pages != nullptr && core_.large_pages->is_huge(core_.space.address_of(b))) {
    return false;
  }
  block.huge.store(false, std::memory_order_relaxed);
  return true;
}

// Taking access from a part of a huge page leaves it one page to those who move it. The kernel
// takes one apart of which a part is to be cold.
bool Migration::make_a_part_cold(BlockIndex b) {
  return core_.ops.advise(core_.space.address_of(b), kPageSize, os::kAdviceCold).ok();
}

// Calls `found` with each page of the block that is present; *huge: they are one huge page.
template <class Found>
Errno Migration::each_present(BlockIndex b, bool* huge, Found found) {
  const std::uintptr_t home = core_.space.address_of(b);
  ScannedRun runs[64];
  for (std::uintptr_t next = home; next < home + kPageblockSize;) {
    std::size_t count = 0;
    const std::uintptr_t from = next;
    if (Errno e = core_.ops.scan(from, home + kPageblockSize - from, runs, 64, &count, &next);
        e.failed()) {
      core_.stats.errors_scan.add();
      return e;
    }
    if (count == 0 && next == from) break;
    for (std::size_t i = 0; i < count; ++i) {
      const auto first = static_cast<std::uint32_t>((runs[i].start - home) / kPageSize);
      const auto pages = static_cast<std::uint32_t>(runs[i].bytes / kPageSize);
      for (std::uint32_t k = 0; k < pages; ++k) found(first + k);
      if (runs[i].huge && runs[i].bytes == kPageblockSize) *huge = true;
    }
  }
  return kOk;
}

void Migration::clear_residue(BlockIndex b) {
  Pageblock& block = core_.table.block(b);
  if (!block.residue.load(std::memory_order_relaxed)) return;
  SpinGuard gate(block.gate);
  release_residue(b);
}

// With the gate held.
void Migration::release_residue(BlockIndex b) {
  Pageblock& block = core_.table.block(b);
  if (core_.protection != nullptr || block.count(PageState::kParked) != 0) return;
  if (core_.ops.advise(core_.park(first_page(b)), kPageblockSize, os::kAdviceDontNeed).ok()) {
    block.residue.store(false, std::memory_order_release);
  }
}

// Moves each run of held pages; what cannot be moved is unlocked as it was.
void Migration::move_runs(BlockIndex b, const PageWord* words, const bool* held,
                          MoveOutcome* outcome) {
  Pageblock& block = core_.table.block(b);
  const PageIndex first = first_page(b);
  const bool timed = core_.nodes != nullptr;
  const std::uint32_t stamp = timed ? park_stamp(core_.ops.now()) : 0;
  std::uint32_t i = 0;
  std::uint32_t n = kBlockPages;  // pages a call
  while (i < kBlockPages) {
    if (!held[i]) {
      ++i;
      continue;
    }
    std::uint32_t end = i;
    while (end < kBlockPages && held[end]) ++end;
    while (i < end) {
      const PageIndex p{first.v + i};
      const std::uint32_t run = end - i < n ? end - i : n;
      // Even where nothing moves the kernel makes a page table there.
      block.park_in_parts.store(true, std::memory_order_relaxed);
      const RunResult r = core_.take_away(p, run, false);
      auto done = static_cast<std::uint32_t>(r.done / kPageSize);
      const bool uncounted = r.error.code == EEXIST && has_moved({p.v + done});
      if (uncounted) ++done;
      for (std::uint32_t k = 0; k < done; ++k) {
        const PageWord parked =
            words[i + k].with_state(PageState::kParked).with_write_protected(false);
        core_.settle({p.v + k}, words[i + k], timed ? parked.with_stamp(stamp) : parked,
                     core_.stats.pages_parked);
      }
      outcome->moved += done;
      i += done;
      if (done == run || uncounted) {
        n = n * 2 < kBlockPages ? n * 2 : kBlockPages;
        continue;
      }
      // The page at i refused. Busy: only this one stays. Anything else: the rest stays too.
      // EINVAL of a run: it may cross the border of two mappings (an madvise or mprotect of a
      // part); shorter ones then.
      if (r.error.code == EINVAL && n > 1) {
        n /= 2;
        continue;
      }
      n = kBlockPages;
      if (r.error.code == ENOENT) {
        // The application has had the kernel empty it behind our back: it reads as zero.
        core_.settle({first.v + i}, words[i], PageWord{}, core_.stats.pages_freed_resident);
        ++i;
        continue;
      }
      const bool busy = r.error.code == EBUSY;
      const std::uint32_t stay = busy || r.error.code == EINVAL ? i + 1 : end;
      if (busy) {
        block.only_small.store(false, std::memory_order_relaxed);
        ++outcome->busy;
        core_.stats.refused_busy.add();
      } else if (r.error.code != ENOSPC) {
        core_.stats.errors_move.add();
        outcome->failed = true;
      }
      for (; i < stay; ++i) core_.table.unlock({first.v + i}, words[i]);
    }
  }
}

bool Migration::parts_have_to_be_small() const {
  return core_.large_pages != nullptr && core_.protection == nullptr &&
         core_.large_pages->ask_first();
}

// With the gate held. False: a pipe or a device holds on to a huge page, which has to stay whole;
// or that would have to be read in files, which a thread that serves faults does not.
bool Migration::make_parts_small(BlockIndex b, std::uint32_t pages, MoveOutcome* outcome) {
  if (!parts_have_to_be_small()) return true;
  Pageblock& block = core_.table.block(b);
  const std::uintptr_t home = core_.space.address_of(b);
  // The kernel or the application may have gathered it since.
  if (block.only_small.load(std::memory_order_relaxed) && !core_.large_pages->is_huge(home)) {
    return true;
  }
  const Errno apart = worker_.background ? core_.large_pages->take_apart(home)
                                         : core_.large_pages->take_huge_apart(home);
  if (apart.ok()) {
    block.only_small.store(true, std::memory_order_relaxed);
    return true;
  }
  outcome->busy = std::min(pages, block.count(PageState::kResident));
  core_.stats.refused_busy.add(outcome->busy);
  return false;
}

// As a whole it would be taken apart by its next touch, which may be just what must not be asked.
bool Migration::has_to_go_in_parts() {
  if (!parts_have_to_be_small()) return false;
  return worker_.background ? !core_.large_pages->come_home_whole()
                            : !core_.large_pages->came_home_whole();
}

// The kernel says that the page's place in the park is taken: Linux 6.18 may have moved it there,
// after an attempt that failed, without counting it.
bool Migration::has_moved(PageIndex p) {
  if (core_.protection != nullptr) return false;
  ScannedRun run{};
  std::size_t at_home = 0;
  std::size_t parked = 0;
  std::uintptr_t next = 0;
  if (core_.ops.scan(core_.home(p), kPageSize, &run, 1, &at_home, &next).failed()) return false;
  if (core_.ops.scan(core_.park(p), kPageSize, &run, 1, &parked, &next).failed()) return false;
  return at_home == 0 && parked == 1;
}

MoveOutcome Migration::park(BlockIndex b, Parking how, PageSpan span) {
  Pageblock& block = core_.table.block(b);
  MoveOutcome outcome;
  if (!core_.may_park(b)) return outcome;
  clear_residue(b);
  if (block.residue.load(std::memory_order_relaxed)) return outcome;
  SpinGuard gate(block.gate);
  if (block.pinned()) return outcome;
  if (block.huge.load(std::memory_order_relaxed) &&
      (span.n < kBlockPages || has_to_go_in_parts())) {
    if (block.count(PageState::kParked) != 0) return outcome;
    if (!make_parts_small(b, span.n, &outcome)) return outcome;
    block.huge.store(false, std::memory_order_relaxed);  // asked for a part: the kernel splits it
    if (core_.protection != nullptr) (void)make_a_part_cold(b);
  }
  if (block.huge.load(std::memory_order_relaxed)) {
    if (block.count(PageState::kParked) != 0) return outcome;  // already out
    outcome = park_huge(b);
    if (outcome.raced == 0) return outcome;
    if (block.huge.load(std::memory_order_relaxed)) return outcome;
    outcome = MoveOutcome{.moved = outcome.moved};  // the part that went before it was seen
  }
  if (!make_parts_small(b, span.n, &outcome)) return outcome;
  if (block.park_unusable.load(std::memory_order_relaxed) && core_.renew_park(b).failed()) {
    core_.stats.errors_move.add();
    outcome.failed = true;
    return outcome;
  }
  const PageIndex first = first_page(b);
  PageWord words[kPagesPerBlock];
  bool held[kPagesPerBlock] = {};
  for (std::uint32_t i = span.first; i < span.first + span.n; ++i) {
    const PageIndex p{first.v + i};
    if (core_.table.peek(p).state() != PageState::kResident) continue;
    if (!core_.table.try_lock(p, &words[i])) continue;
    PageWord& word = words[i];
    if (word.resting() && how != Parking::kAsked) {
      core_.table.unlock(p, word);
      ++outcome.incompressible;
    } else if (word.state() == PageState::kResident && how == Parking::kWritten &&
               word.write_protected()) {
      core_.table.unlock(p, word);
    } else if (!asked_for(block, word, how)) {
      core_.table.unlock(p, word);
    } else if (word.state() == PageState::kResident && word.credits() > 0 &&
               (how == Parking::kSpared || how == Parking::kWritten)) {
      core_.table.publish(p, word, word.with_credits(word.credits() - 1));
    } else if (word.state() == PageState::kResident) {
      held[i] = true;
    } else {
      core_.table.unlock(p, word);
    }
  }
  move_runs(b, words, held, &outcome);
  return outcome;
}

// One parked page goes home for another reason than a touch. The page is ours and stays ours if it
// cannot move.
void Migration::bring_home(PageIndex p, PageWord was, PageWord now, Counter& flow,
                           MoveOutcome* outcome) {
  Pageblock& block = core_.table.block(block_of(p));
  RunResult r{{EBUSY}, 0};
  if (!block.residue.load(std::memory_order_relaxed)) {
    r = core_.bring_home(p, 1, true);
  }
  if (core_.protection == nullptr && (r.error.code == EBUSY || r.error.code == EINVAL)) {
    r = core_.port->copy(core_.home(p), reinterpret_cast<const void*>(core_.park(p)),  // NOLINT
                         kPageSize, false, true);
    if (r.done == kPageSize) core_.leave_residue(block);
  }
  if (r.error.code == ENOENT) {
    core_.settle(p, was, PageWord{}, core_.stats.pages_freed_parked);
    return;
  }
  if (r.done != kPageSize && r.error.code != EEXIST) {
    core_.stats.errors_move.add();
    outcome->failed = true;
    core_.table.unlock(p, was);
    return;
  }
  core_.settle(p, was, now, flow);
}

MoveOutcome Migration::store(BlockIndex b, std::uint32_t max, Evictor who, PageSpan span) {
  MoveOutcome outcome;
  // What the application can make again is given up rather than kept; when it asks for a demotion
  // it means it.
  const bool reclaim =
      who != Evictor::kAsked && core_.space.mobility_of(b) == Mobility::kReclaimable;
  if (core_.protection != nullptr || (core_.store == nullptr && !reclaim)) {
    outcome.store_full = true;
    return outcome;
  }
  Pageblock& block = core_.table.block(b);
  const PageIndex first = first_page(b);
  if (!reclaim && hopeless_huge(b, &outcome)) {
    (void)unpark(b, Unpark::kToRest);
    return outcome;
  }
  // Held to the end: nobody parks a page of the block again before the frame it has left is
  // released.
  SpinGuard gate(block.gate);
  if (block.huge.load(std::memory_order_relaxed) && block.count(PageState::kParked) != 0) {
    // Taken apart from here on: touches copy their page home and leave the frames to be released
    // together.
    if (block.huge.exchange(false, std::memory_order_relaxed)) core_.stats.huge_split.add();
    core_.leave_residue(block);
  }
  AddressRange frames[kPagesPerBlock];
  std::size_t frame_runs = 0;
  const std::uint32_t stamp = core_.stamp_now();
  for (std::uint32_t i = span.first; i < span.first + span.n && outcome.moved < max; ++i) {
    const PageIndex p{first.v + i};
    PageWord was;
    if (core_.table.peek(p).state() != PageState::kParked) continue;
    if (!core_.table.try_lock(p, &was)) {
      ++outcome.raced;
      continue;
    }
    if (was.state() != PageState::kParked) {
      core_.table.unlock(p, was);
      ++outcome.raced;
      continue;
    }
    const void* content = reinterpret_cast<const void*>(core_.park(p));  // NOLINT
    if (!reclaim) core_.stats.store_tries.add();
    std::uint32_t pattern = 0;
    SlotId slot;
    if (reclaim) {
      core_.settle(p, was, PageWord{}, core_.stats.pages_reclaimed);
    } else if (same_filled(content, &pattern)) {
      core_.settle(p, was, PageWord{}.with_state(PageState::kFilled).with_slot(pattern),
                   core_.stats.pages_filled_parked);
    } else {
      const StoreOutcome stored = core_.store->store(worker_.workspace, content, p, &slot);
      if (stored != StoreOutcome::kStored) {
        const bool full = stored == StoreOutcome::kFull;
        if (full) {
          core_.stats.store_full.add();
          outcome.store_full = true;
        } else {
          core_.stats.store_incompressible.add();
          ++outcome.incompressible;
        }
        const PageWord home = was.with_state(PageState::kResident).with_stamp(0);
        bring_home(p, was, full ? home : to_rest(home, core_.ops.now()),
                   core_.stats.pages_unparked_other, &outcome);
        if (full) break;
        continue;
      }
      core_.settle(p, was,
                   was.with_state(PageState::kStored)
                       .with_slot(slot.v)
                       .with_stamp(stamp)
                       .with_credits(0)
                       .with_estimate(core_.nodes != nullptr ? 0 : was.estimate())
                       .with_incompressible(0),
                   core_.stats.pages_stored_parked);
    }
    ++outcome.moved;
    const std::uintptr_t frame = core_.park(p);
    if (frame_runs > 0 && frames[frame_runs - 1].end() == frame) {
      frames[frame_runs - 1].bytes += kPageSize;
    } else {
      frames[frame_runs++] = {frame, kPageSize};
    }
  }
  core_.discards.fetch_add(outcome.moved, std::memory_order_relaxed);
  count_evicted(core_, who, outcome.moved);
  if (block.residue.load(std::memory_order_relaxed)) {
    release_residue(b);  // all frames of the block at once, when the last page has left
  } else if (frame_runs > 0) {
    std::size_t done = 0;
    if (core_.ops.discard(frames, frame_runs, &done).failed()) {
      core_.stats.errors_discard.add();
      core_.leave_residue(block);
    }
  }
  return outcome;
}

void Migration::recall(BlockIndex b, PageSpan span) {
  for (std::uint32_t i = span.first; i < span.first + span.n; ++i) {
    const PageIndex p{first_page(b).v + i};
    PageWord was;
    if (core_.table.peek(p).state() != PageState::kClean || !core_.table.try_lock(p, &was))
      continue;
    if (was.state() != PageState::kClean) {
      core_.table.unlock(p, was);
      continue;
    }
    core_.store->drop(SlotId{was.slot()});
    core_.settle(p, was, was.with_state(PageState::kResident).with_slot(0),
                 core_.stats.pages_recalled);
  }
}

MoveOutcome Migration::copy_out(BlockIndex b, std::uint32_t* next, CopyOut which) {
  MoveOutcome outcome;
  Pageblock& block = core_.table.block(b);
  if (core_.store == nullptr || block.pinned()) {
    *next = kBlockPages;
    outcome.store_full = core_.store == nullptr;
    return outcome;
  }
  const PageIndex first = first_page(b);
  PageIndex pages[kStagingPages];
  PageWord words[kStagingPages];
  bool was_writable[kStagingPages];
  std::size_t n = 0;
  bool any_writable = false;
  std::uint32_t i = *next;
  for (; i < kBlockPages && n < kStagingPages; ++i) {
    const PageIndex p{first.v + i};
    if (core_.table.peek(p).state() != PageState::kResident) continue;
    PageWord word;
    if (!core_.table.try_lock(p, &word)) continue;
    if (word.state() != PageState::kResident) {
      core_.table.unlock(p, word);
    } else if (which == CopyOut::kProtected && !word.write_protected()) {
      core_.table.unlock(p, word);
    } else if (word.resting()) {
      core_.table.unlock(p, word);
      ++outcome.incompressible;
    } else if (word.credits() > 0) {
      core_.table.publish(p, word, word.with_credits(word.credits() - 1));
    } else {
      pages[n] = p;
      words[n] = word;
      was_writable[n] = !word.write_protected();
      any_writable = any_writable || was_writable[n];
      ++n;
    }
  }
  *next = i;
  if (n == 0) return outcome;

  // Protect what is writable, in runs: from here on a new pin for writing must fault first.
  for (std::size_t k = 0; any_writable && k < n;) {
    if (!was_writable[k]) {
      ++k;
      continue;
    }
    std::size_t end = k + 1;
    while (end < n && was_writable[end] && pages[end].v == pages[end - 1].v + 1) ++end;
    if (core_.port->write_protect(core_.home(pages[k]), (end - k) * kPageSize, true, false)
            .failed()) {
      core_.stats.errors_protect.add();
      for (std::size_t x = 0; x < n; ++x) core_.table.unlock(pages[x], words[x]);
      outcome.failed = true;
      return outcome;
    }
    k = end;
  }
  const bool pins = any_writable && core_.ops.may_hold_long_pins();
  std::uintptr_t from[kStagingPages];
  for (std::size_t k = 0; k < n; ++k) from[k] = core_.home(pages[k]);
  const std::size_t read = core_.read_pages(from, n, worker_.staging);
  outcome.failed = read < n;
  const Nanos now = core_.ops.now();
  for (std::size_t k = 0; k < n; ++k) {
    const PageIndex p = pages[k];
    const PageWord was = words[k];
    if (k >= read || outcome.store_full || (pins && was_writable[k])) {
      if (k < read && pins && was_writable[k]) {
        core_.stats.refused_pins.add();
        ++outcome.busy;
      }
      core_.table.unlock(p, was);  // the protection, if new, is lifted by the next write
      continue;
    }
    core_.stats.store_tries.add();
    SlotId slot;
    const StoreOutcome stored =
        core_.store->store(worker_.workspace, worker_.staging + k * kPageSize, p, &slot);
    if (stored != StoreOutcome::kStored) {
      const bool full = stored == StoreOutcome::kFull;
      outcome.store_full = outcome.store_full || full;
      if (full) {
        core_.stats.store_full.add();
        core_.table.unlock(p, was);
      } else {
        core_.stats.store_incompressible.add();
        ++outcome.incompressible;
        core_.table.publish(p, was, to_rest(was, now));
      }
      continue;
    }
    // Only a page that no write can have reached since it was mapped says so: an old entry of the
    // other queue must not make this one leave without its grace time.
    core_.settle(p, was,
                 was.with_state(PageState::kClean)
                     .with_slot(slot.v)
                     .with_incompressible(0)
                     .with_write_protected(!was_writable[k]),
                 core_.stats.pages_stored_protected);
    ++outcome.moved;
    core_.queue_clean(was_writable[k] ? core_.copied : core_.fetched, p);
  }
  return outcome;
}

PageWord Migration::at_home(PageWord was, Unpark how) const {
  const PageWord home = was.with_state(PageState::kResident).with_stamp(0);
  return how == Unpark::kToRest ? to_rest(home, core_.ops.now()) : home;
}

MoveOutcome Migration::unpark(BlockIndex b, Unpark how) {
  MoveOutcome outcome;
  Pageblock& block = core_.table.block(b);
  const PageIndex first = first_page(b);
  if (block.huge.load(std::memory_order_relaxed) && unpark_huge(b, how, &outcome)) return outcome;
  PageWord was[kPagesPerBlock];
  PageWord now[kPagesPerBlock];
  std::uint32_t n = 0;  // held, up to page i
  for (std::uint32_t i = 0; i <= kBlockPages; ++i) {
    const PageIndex p{first.v + i};
    bool held = false;
    if (i < kBlockPages && core_.table.peek(p).state() == PageState::kParked) {
      held = core_.table.try_lock(p, &was[i]);
      if (!held) ++outcome.raced;
      const bool stays = how == Unpark::kNotLazy && LazyMark{was[i].slot()}.is_waiting();
      if (held && (stays || was[i].state() != PageState::kParked)) {
        core_.table.unlock(p, was[i]);
        held = false;
      }
    }
    if (held) {
      now[i] = at_home(was[i], how);
      ++n;
      continue;
    }
    if (n > 0) bring_some_home({p.v - n}, was + i - n, now + i - n, n, &outcome);
    outcome.moved += n;
    n = 0;
  }
  clear_residue(b);
  return outcome;
}

// A run of parked pages that are ours: in one go as far as the kernel goes along, else one by one.
void Migration::bring_some_home(PageIndex first, const PageWord* was, const PageWord* now,
                                std::uint32_t n, MoveOutcome* outcome) {
  std::uint32_t done = 0;
  if (n > 1 && !core_.table.block(block_of(first)).residue.load(std::memory_order_relaxed)) {
    const RunResult r = core_.bring_home(first, n, true);
    done = static_cast<std::uint32_t>(r.done / kPageSize);
    core_.settle_all(first, was, now, done, core_.stats.pages_unparked_other);
  }
  for (; done < n; ++done) {
    bring_home({first.v + done}, was[done], now[done], core_.stats.pages_unparked_other, outcome);
  }
}

void Migration::end_rests(BlockIndex b, std::uint32_t* most) {
  const Nanos now = core_.ops.now();
  for (std::uint32_t i = 0; i<kBlockPages&& * most> 0; ++i) {
    const PageIndex p{first_page(b).v + i};
    PageWord was = core_.table.peek(p);
    if (!was.resting() || !rested(was, now) || !core_.table.try_lock(p, &was)) continue;
    const bool over = was.resting() && rested(was, now);
    core_.table.publish(p, was, over ? was.with_stamp(0) : was);
    if (over) --*most;
  }
}

}  // namespace heaptier
