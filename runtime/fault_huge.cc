// The part of fault_service.h that is about huge pages: they come home in one piece.
#include "runtime/fault_service.h"
#include "runtime/lazy_mark.h"
#include "runtime/node_moves.h"

namespace heaptier {
namespace {

constexpr FaultReply kBusyReply{FaultVerdict::kBusy, 0, 0};

}  // namespace

// The first touch of a huge page that was watched. True: where it was touched before is to be
// forgotten.
bool FaultService::note_huge_touch(Pageblock& block, PageWord touched, const Worker& w) {
  const WatchClock::Mark mark{block.parked_at.load(std::memory_order_relaxed),
                              block.parked_faults.load(std::memory_order_relaxed)};
  const Nanos gap = core_.nodes->clock().lap(core_.ops.now(), mark);
  note_gap(block, gap_of(gap));
  note_toucher(block, w);
  return note_sample(block, seen(touched) == Seen::kTouched);
}

// With the gate held, which it gives back.
FaultReply FaultService::came_home(Pageblock& block, PageIndex first) {
  block.gate.unlock();
  block.touches.fetch_add(static_cast<std::uint16_t>(kPagesPerBlock), std::memory_order_relaxed);
  core_.stats.faults.add();
  core_.stats.faults_hint.add();
  core_.stats.huge_unparked.add();
  return {FaultVerdict::kWake, core_.home(first), kPageblockSize};
}

// Of a block whose words are joined. False: its pages have to be looked at one by one.
bool FaultService::touch_joined(PageIndex p, Worker& w, FaultReply* reply) {
  const BlockIndex b = block_of(p);
  const PageIndex first = first_page(b);
  Pageblock& block = core_.table.block(b);
  PageWord head;
  if (!core_.table.try_lock_joined(b, &head)) {
    if (!block.compound.load(std::memory_order_acquire)) return false;
    core_.stats.faults_waited.add();
    *reply = kBusyReply;
    return true;
  }
  const auto give_back = [&] { core_.table.publish_joined(b, head, head.state(), head.stamp()); };
  if (head.state() != PageState::kParked && core_.protection != nullptr) {
    give_back();
    return false;  // see denied()
  }
  if (head.state() != PageState::kParked) {  // see lost()
    (void)filled_again(p, w);
    give_back();
    *reply = wake(p);
    return true;
  }
  if (!block.huge.load(std::memory_order_relaxed)) {
    give_back();
    return false;
  }
  if (!block.gate.try_lock()) {
    give_back();
    *reply = kBusyReply;
    return true;
  }
  if (!block.huge.load(std::memory_order_relaxed)) {  // taken apart a moment ago
    block.gate.unlock();
    give_back();
    return false;
  }
  const bool noted = core_.nodes != nullptr;
  const bool anew = noted && note_huge_touch(block, core_.table.peek(p), w);
  const RunResult r = core_.bring_home(first, kPagesPerBlock, false);
  if (r.done != kPageblockSize) {
    PageWord words[kPagesPerBlock];
    core_.table.take_apart(b, words);
    for (std::uint32_t i = 0; i < kPagesPerBlock; ++i) {
      if (i != page_in_block(p)) core_.table.unlock({first.v + i}, words[i]);
    }
    *reply = came_apart(p, words[page_in_block(p)], r, w);
    return true;
  }
  const auto seen_as = [this](PageIndex q, Seen s) {
    core_.table.change_joined(q, [s](PageWord word) { return with_seen(word, s); });
  };
  for (std::uint32_t i = 0; anew && i < kPagesPerBlock; ++i) seen_as({first.v + i}, Seen::kNo);
  if (noted) seen_as(p, Seen::kTouched);
  core_.table.publish_joined(b, head, PageState::kResident, 0);
  core_.stats.pages_unparked_touch.add(kPagesPerBlock);
  *reply = came_home(block, first);
  return true;
}

FaultReply FaultService::unpark_huge(PageIndex p, PageWord was, const Worker& w) {
  const BlockIndex b = block_of(p);
  Pageblock& block = core_.table.block(b);
  if (!block.gate.try_lock()) {
    core_.table.unlock(p, was);
    return kBusyReply;
  }
  if (!block.huge.load(std::memory_order_relaxed)) return came_apart(p, was, {kOk, 0}, w);
  const PageIndex first = first_page(b);
  const bool noted = core_.nodes != nullptr && !LazyMark{was.slot()}.is_waiting();
  const bool anew = noted && note_huge_touch(block, was, w);
  const RunResult r = core_.bring_home(first, kPagesPerBlock, false);
  if (r.done != kPageblockSize) return came_apart(p, was, r, w);
  bool marked = false;
  PageWord words[kPagesPerBlock];
  PageWord home[kPagesPerBlock];
  for (std::uint32_t i = 0; i < kPagesPerBlock; ++i) {
    const PageIndex q{first.v + i};
    words[i] = q == p ? was : core_.table.lock(q);
    const bool parked = words[i].state() == PageState::kParked;
    marked = marked || (parked && LazyMark{words[i].slot()}.is_waiting());
    home[i] = words[i];
    if (parked) home[i] = note_wanted(words[i], w).with_state(PageState::kResident).with_stamp(0);
    if (noted && (anew || q == p)) {
      home[i] = with_seen(home[i], q == p ? Seen::kTouched : Seen::kNo);
    }
  }
  core_.settle_all(first, words, home, kPagesPerBlock, core_.stats.pages_unparked_touch);
  if (marked) core_.note_lazy_touch(block);
  return came_home(block, first);
}

// It is shared with a forked child, or was already being taken apart: from now on page by page, by
// copying. With the gate held, which it gives back.
FaultReply FaultService::came_apart(PageIndex p, PageWord was, RunResult moved, const Worker& w) {
  const PageIndex first = first_page(block_of(p));
  Pageblock& block = core_.table.block(block_of(p));
  bool marked = false;
  block.huge.store(false, std::memory_order_relaxed);
  core_.leave_residue(block);
  if (moved.error.code == EBUSY) core_.stats.refused_busy.add();
  // The kernel had split it and has moved a part: that part is at home.
  const auto part = static_cast<std::uint32_t>(moved.done / kPageSize);
  for (std::uint32_t i = 0; i < part; ++i) {
    const PageIndex q{first.v + i};
    const PageWord word = q == p ? was : core_.table.lock(q);
    if (word.state() == PageState::kParked) {
      marked = marked || LazyMark{word.slot()}.is_waiting();
      core_.settle(q, word, note_wanted(word, w).with_state(PageState::kResident),
                   core_.stats.pages_unparked_touch);
    } else {
      core_.table.unlock(q, word);
    }
  }
  if (marked) core_.note_lazy_touch(block);
  if (page_in_block(p) < part) {
    block.gate.unlock();
    core_.stats.faults.add();
    core_.stats.faults_hint.add();
    return {FaultVerdict::kWake, core_.home(first), moved.done};
  }
  if (part > 0 && core_.port != nullptr) (void)core_.port->wake(core_.home(first), moved.done);
  block.gate.unlock();
  core_.table.unlock(p, was);
  return kBusyReply;  // comes back at once, to the copying branch
}

}  // namespace heaptier
