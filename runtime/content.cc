#include "runtime/content.h"

#include <algorithm>

#include "runtime/os/advice.h"

namespace heaptier {
namespace {

Counter& freed(Stats& stats, PageState from) {
  switch (from) {
    case PageState::kClean:
      return stats.pages_freed_clean;
    case PageState::kParked:
      return stats.pages_freed_parked;
    case PageState::kStored:
      return stats.pages_freed_stored;
    case PageState::kFilled:
      return stats.pages_freed_filled;
    default:
      return stats.pages_freed_resident;
  }
}

// A pageblock whose faults are signals in the faulting thread may next belong to a heap whose
// memory is passed to system calls: it takes no registration along. All of its pages are untouched;
// the next owner's first touches are the kernel's, until demotion looks at it (Migration::manage).
// With the gate held.
void resign(Core& core, BlockIndex b) {
  Pageblock& block = core.table.block(b);
  if (core.space.owner_of(b) != Owner::kUserOnly || !block.served()) return;
  if (block.count(PageState::kUntouched) != kPagesPerBlock) return;
  block.registered.store(false, std::memory_order_release);
  if (core.port == nullptr) return;
  (void)core.port->unregister_range(core.space.address_of(b), kPageblockSize);
  (void)core.port->unregister_range(core.park(first_page(b)), kPageblockSize);
}

// Access to those of the pages that are hidden. False: some could not be had.
bool show_all(Core& core, PageIndex first, const PageWord* words, std::uint32_t n) {
  bool all = true;
  for (std::uint32_t i = 0; i < n;) {
    std::uint32_t end = i;
    while (end < n && words[end].state() == PageState::kParked) ++end;
    if (end > i && core.protection->show({first.v + i}, end - i).failed()) all = false;
    i = std::max(end, i + 1);
  }
  return all;
}

// Part of one managed pageblock: pages [first, first + n).
bool drop_in_block(Core& core, PageIndex first, std::uint32_t n) {
  Pageblock& block = core.table.block(block_of(first));
  SpinGuard gate(block.gate);  // nothing is parked or brought home whole meanwhile
  // What was gathered unseen loses a part, is a huge page in parts then, and held perhaps.
  if (n < kPagesPerBlock) block.only_small.store(false, std::memory_order_relaxed);
  if (block.huge.load(std::memory_order_relaxed)) {
    block.huge.store(false, std::memory_order_relaxed);
    // A huge page in the park that loses a part: the rest is copied home when touched.
    if (n < kPagesPerBlock && block.count(PageState::kParked) != 0) {
      core.leave_residue(block);
    }
  }
  if (n == kPagesPerBlock) block.forget_pins();
  PageWord words[kPagesPerBlock];
  bool mapped = false;
  bool parked = false;
  for (std::uint32_t i = 0; i < n; ++i) {
    words[i] = core.table.lock({first.v + i});
    const PageState s = words[i].state();
    // An untouched page may have been filled by the kernel before registration took hold: release
    // it too.
    mapped =
        mapped || s == PageState::kResident || s == PageState::kClean || s == PageState::kUntouched;
    parked = parked || s == PageState::kParked;
    if (s == PageState::kStored || s == PageState::kClean)
      core.store->drop(SlotId{words[i].slot()});
  }
  bool released = true;
  if (mapped || (parked && core.protection != nullptr)) {
    released =
        core.ops.advise(core.home(first), std::size_t{n} * kPageSize, os::kAdviceDontNeed).ok();
  }
  bool hidden = false;  // and it stays so: its next touch shows it
  if (parked && core.protection != nullptr) {
    hidden = !show_all(core, first, words, n);
  } else if (parked && !block.residue.load(std::memory_order_relaxed)) {
    if (core.ops.advise(core.park(first), std::size_t{n} * kPageSize, os::kAdviceDontNeed)
            .failed()) {
      core.leave_residue(block);
    }
  }
  if (!released) core.stats.errors_advise.add();
  for (std::uint32_t i = 0; i < n; ++i) {
    const PageIndex p{first.v + i};
    const PageWord was = words[i];
    const PageState s = was.state();
    if (s == PageState::kUntouched || s == PageState::kPoisoned ||
        (hidden && s == PageState::kParked)) {
      core.table.unlock(p, was);
    } else if (!released && (s == PageState::kResident || s == PageState::kClean)) {
      // The kernel would not (locked memory): it stays mapped with what it holds, like any
      // allocator's.
      const PageWord now = was.with_state(PageState::kResident).with_slot(0);
      if (s == PageState::kClean) {
        core.settle(p, was, now, core.stats.pages_written);
      } else {
        core.table.unlock(p, was);
      }
    } else {
      core.settle(p, was, PageWord{}, freed(core.stats, s));
    }
  }
  resign(core, block_of(first));
  return released;
}

}  // namespace

void OperationGate::enter() {
  Backoff backoff;
  for (;;) {
    inside_.fetch_add(1, std::memory_order_seq_cst);
    if (!closed_.load(std::memory_order_seq_cst)) return;
    inside_.fetch_sub(1, std::memory_order_release);
    while (closed_.load(std::memory_order_acquire)) backoff.pause();
  }
}

void OperationGate::close() {
  closed_.store(true, std::memory_order_seq_cst);
  Backoff backoff;
  while (inside_.load(std::memory_order_seq_cst) != 0) backoff.pause();
}

bool drop_content(Core& core, std::uintptr_t at, std::size_t bytes) {
  const std::uintptr_t end = at + bytes;
  bool all = true;
  std::uintptr_t plain = at;  // start of a stretch of unmanaged pageblocks: one call for all of it
  while (at < end) {
    const PageIndex first = core.space.page_at(at);
    const std::uintptr_t block_end = core.space.address_of(block_of(first)) + kPageblockSize;
    const std::uintptr_t stop = block_end < end ? block_end : end;
    if (core.table.size() != 0 && core.table.managed(first)) {
      if (plain < at && core.ops.advise(plain, at - plain, os::kAdviceDontNeed).failed())
        all = false;
      if (!drop_in_block(core, first, static_cast<std::uint32_t>((stop - at) / kPageSize)))
        all = false;
      plain = stop;
    }
    at = stop;
  }
  if (plain < end && core.ops.advise(plain, end - plain, os::kAdviceDontNeed).failed()) all = false;
  return all;
}

void forget_content(Core& core, std::uintptr_t at, std::size_t bytes) {
  for (const std::uintptr_t end = at + bytes; at < end; at += kPageSize) {
    const PageIndex p = core.space.page_at(at);
    if (!core.table.managed(p)) {
      at = core.space.address_of(block_of(p)) + kPageblockSize - kPageSize;
      continue;
    }
    const PageWord was = core.table.lock(p);
    const PageState s = was.state();
    if (s == PageState::kStored || s == PageState::kClean) core.store->drop(SlotId{was.slot()});
    if (s == PageState::kParked) core.leave_residue(core.table.block(block_of(p)));
    if (s == PageState::kUntouched || s == PageState::kPoisoned) {
      core.table.unlock(p, was);
    } else {
      core.settle(p, was, PageWord{}, freed(core.stats, s));
    }
  }
}

}  // namespace heaptier
