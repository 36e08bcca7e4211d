// The part of migration.h that is about huge pages: to the park and home in one piece, and taking
// them apart.
#include <algorithm>

#include "runtime/migration.h"
#include "runtime/node_moves.h"
#include "runtime/os/advice.h"

namespace heaptier {
namespace {

constexpr auto kBlockPages = static_cast<std::uint32_t>(kPagesPerBlock);
// Pages of a huge page that answer for all of it before it is taken apart.
constexpr std::uint32_t kProbes = 4;

}  // namespace

// With the gate held. The kernel takes a huge page apart, without a word, that is to go where a
// page table is; and where that is dangerous (large_pages.h) it is only asked for what is whole
// now.
bool Migration::prepare_whole(BlockIndex b) {
  Pageblock& block = core_.table.block(b);
  if (core_.protection != nullptr) return true;
  if (parts_have_to_be_small() && !core_.large_pages->is_huge(core_.space.address_of(b))) {
    block.huge.store(false, std::memory_order_relaxed);
    return false;
  }
  return !block.park_in_parts.load(std::memory_order_relaxed) || core_.renew_park(b).ok();
}

MoveOutcome Migration::park_huge(BlockIndex b) {
  Pageblock& block = core_.table.block(b);
  const PageIndex first = first_page(b);
  MoveOutcome outcome;
  if (!prepare_whole(b)) {
    outcome.raced = 1;
    outcome.failed = block.huge.load(std::memory_order_relaxed);
    if (outcome.failed) core_.stats.errors_move.add();
    return outcome;
  }
  PageWord words[kPagesPerBlock];
  std::uint32_t held = 0;
  std::uint32_t stamp = 0;
  if (core_.nodes != nullptr) {
    const Nanos now = core_.ops.now();
    note_parked(block, core_.nodes->clock().mark(now));
    stamp = park_stamp(now);  // should it be taken apart
  }
  PageWord head;
  const bool joined = core_.table.try_lock_joined(b, &head);
  if (joined && head.state() != PageState::kResident) {
    core_.table.publish_joined(b, head, head.state(), head.stamp());
    outcome.raced = 1;
    return outcome;
  }
  for (; !joined && held < kBlockPages; ++held) {
    if (!core_.table.try_lock({first.v + held}, &words[held])) break;
    if (words[held].state() != PageState::kResident) {
      core_.table.unlock({first.v + held}, words[held]);
      // Not one huge page any more: the kernel or a free has split it.
      block.huge.store(false, std::memory_order_relaxed);
      break;
    }
  }
  if (!joined && held != kBlockPages) {
    for (std::uint32_t i = 0; i < held; ++i) core_.table.unlock({first.v + i}, words[i]);
    outcome.raced = 1;
    return outcome;
  }
  const RunResult r = core_.take_away(first, kBlockPages, true);
  if (r.done != kPageblockSize) {
    if (joined) core_.table.take_apart(b, words);
    return park_refused(b, r, words, stamp);
  }
  if (joined) {
    core_.table.publish_joined(b, head, PageState::kParked, stamp);
    core_.stats.pages_parked.add(kBlockPages);
  } else {
    PageWord parked[kPagesPerBlock];
    const bool seen_counts = core_.nodes != nullptr;
    std::transform(words, words + kBlockPages, parked, [=](PageWord was) {
      const PageWord now = PageWord{}
                               .with_state(PageState::kParked)
                               .with_stamp(stamp)
                               .with_incompressible(was.incompressible())
                               .with_slot(was.slot());
      return seen_counts ? with_seen(now, seen(was)) : now;
    });
    core_.settle_and_join(b, words, parked, core_.stats.pages_parked);
  }
  outcome.moved = kBlockPages;
  core_.stats.huge_parked.add();
  return outcome;
}

// The kernel would not move a huge page, all of whose words are held, or only a part of it.
MoveOutcome Migration::park_refused(BlockIndex b, RunResult r, const PageWord* words,
                                    std::uint32_t stamp) {
  Pageblock& block = core_.table.block(b);
  const PageIndex first = first_page(b);
  MoveOutcome outcome;
  if (r.error.code == EBUSY) {
    outcome.busy = kBlockPages;
    core_.stats.refused_busy.add(kBlockPages);
  } else if (r.error.code == EINVAL || r.error.code == ENOENT) {
    // Lies in two mappings, or the application has emptied a part: not one huge page.
    block.huge.store(false, std::memory_order_relaxed);
    outcome.raced = 1;
  } else if (r.error.code != ENOSPC) {
    core_.stats.errors_move.add();
    outcome.failed = true;
  }
  // It was not huge after all and some pages went: say which.
  block.park_in_parts.store(true, std::memory_order_relaxed);
  auto part = static_cast<std::uint32_t>(r.done / kPageSize);
  if (r.error.code == EEXIST && has_moved({first.v + part})) ++part;
  if (part != 0) block.huge.store(false, std::memory_order_relaxed);
  for (std::uint32_t i = 0; i < part; ++i) {
    core_.settle({first.v + i}, words[i],
                 PageWord{}
                     .with_state(PageState::kParked)
                     .with_stamp(stamp)
                     .with_estimate(words[i].estimate())
                     .with_slot(words[i].slot()),
                 core_.stats.pages_parked);
  }
  for (std::uint32_t i = part; i < kBlockPages; ++i) {
    core_.table.unlock({first.v + i}, words[i]);
  }
  outcome.moved = part;
  return outcome;
}

// All of it, if that can be. False: it is not one huge page any more, and its pages are to be
// brought home one by one.
bool Migration::unpark_huge(BlockIndex b, Unpark how, MoveOutcome* outcome) {
  Pageblock& block = core_.table.block(b);
  const PageIndex first = first_page(b);
  SpinGuard gate(block.gate);
  PageWord words[kPagesPerBlock];
  PageWord head;
  std::uint32_t held = 0;
  const bool joined = how != Unpark::kToRest && core_.table.try_lock_joined(b, &head);
  if (joined && head.state() != PageState::kParked) {
    core_.table.publish_joined(b, head, head.state(), head.stamp());
    outcome->raced = 1;
    return true;
  }
  for (; !joined && held < kBlockPages; ++held) {
    if (!core_.table.try_lock({first.v + held}, &words[held])) break;
    if (words[held].state() != PageState::kParked) {
      core_.table.unlock({first.v + held}, words[held]);
      break;
    }
  }
  RunResult r{kOk, 0};
  if (joined || held == kBlockPages) {
    r = core_.bring_home(first, kBlockPages, true);
  }
  // All, none, or what a split left.
  const auto home = static_cast<std::uint32_t>(r.done / kPageSize);
  if (joined && home == kBlockPages) {
    core_.table.publish_joined(b, head, PageState::kResident, 0);
    core_.stats.pages_unparked_other.add(kBlockPages);
  } else {
    if (joined) {
      core_.table.take_apart(b, words);
      held = kBlockPages;
    }
    PageWord now[kPagesPerBlock];
    std::transform(words, words + home, now, [=, this](PageWord w) { return at_home(w, how); });
    core_.settle_all(first, words, now, home, core_.stats.pages_unparked_other);
    for (std::uint32_t i = home; i < held; ++i) core_.table.unlock({first.v + i}, words[i]);
  }
  outcome->moved = home;
  if (home == kBlockPages) {
    core_.stats.huge_unparked.add();
    return true;
  }
  if (held != kBlockPages) {
    outcome->raced = 1;
    return true;
  }
  block.huge.store(false, std::memory_order_relaxed);
  core_.leave_residue(block);
  return false;
}

MoveOutcome Migration::park_split(BlockIndex b) {
  MoveOutcome outcome = park(b, Parking::kAll, PageSpan{});
  Pageblock& block = core_.table.block(b);
  SpinGuard gate(block.gate);
  if (block.count(PageState::kParked) != 0 &&
      block.huge.exchange(false, std::memory_order_relaxed)) {
    core_.leave_residue(block);
    core_.stats.huge_split.add();
  }
  return outcome;
}

// A parked huge page is not taken apart for nothing: a few of its pages answer for all.
bool Migration::hopeless_huge(BlockIndex b, MoveOutcome* outcome) {
  Pageblock& block = core_.table.block(b);
  SpinGuard gate(block.gate);
  if (!block.huge.load(std::memory_order_relaxed) || block.count(PageState::kParked) == 0) {
    return false;
  }
  for (std::uint32_t i = 0; i < kProbes; ++i) {
    const PageIndex p{first_page(b).v + kBlockPages / kProbes * i + kBlockPages / kProbes / 2};
    PageWord was;
    if (!core_.table.try_lock(p, &was)) return false;
    bool refuses = false;
    if (was.state() == PageState::kParked) {
      const void* content = reinterpret_cast<const void*>(core_.park(p));  // NOLINT
      std::uint32_t pattern = 0;
      SlotId slot;
      if (!same_filled(content, &pattern)) {
        const StoreOutcome stored = core_.store->store(worker_.workspace, content, p, &slot);
        if (stored == StoreOutcome::kStored) core_.store->drop(slot);
        refuses = stored == StoreOutcome::kIncompressible;
      }
    }
    core_.table.unlock(p, was);
    if (!refuses) return false;
  }
  core_.stats.store_tries.add(kProbes);
  core_.stats.store_incompressible.add(kProbes);
  outcome->incompressible = kBlockPages;
  return true;
}

MoveOutcome Migration::collapse(BlockIndex b) {
  MoveOutcome outcome;
  core_.stats.collapse_tries.add();
  const Errno e = core_.ops.advise(core_.space.address_of(b), kPageblockSize, os::kAdviceCollapse);
  if (e.failed()) {
    core_.stats.collapse_failed.add();
    outcome.failed = true;
    return outcome;
  }
  core_.stats.collapse_done.add();
  outcome.moved = kBlockPages;
  return outcome;
}

}  // namespace heaptier
