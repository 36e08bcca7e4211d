#include "runtime/zone.h"

#include <algorithm>
#include <cerrno>

#include "runtime/base/units.h"
#include "runtime/bootstrap_heap.h"

namespace heaptier {

Errno Zone::init(std::uintptr_t base, std::uint32_t blocks, bool claimed) {
  auto* words = bootstrap::allocate_array<std::uint64_t>(FreeRuns::words_for(blocks));
  auto* nodes = bootstrap::allocate_array<FreeRuns::Node>(FreeRuns::nodes_for(blocks));
  if (words == nullptr || nodes == nullptr) return {ENOMEM};
  free_.init(blocks, words, nodes);
  base_ = base;
  blocks_ = blocks;
  claimed_ = claimed ? blocks : 0;
  return kOk;
}

std::uintptr_t Zone::address(std::uint32_t block) const {
  return base_ + (std::uintptr_t{block} << kPageblockShift);
}

std::uint32_t Zone::align_up(std::uint32_t block, std::size_t align) const {
  const std::uintptr_t up = round_up(address(block), align) - base_;
  const std::uintptr_t index = up >> kPageblockShift;
  return index > blocks_ ? blocks_ : static_cast<std::uint32_t>(index);
}

std::size_t Zone::committed_bytes() const {
  return (std::size_t{committed_} - lost_) << kPageblockShift;
}

std::uint32_t Zone::take(MemoryOps& ops, std::uint32_t count, std::size_t align) {
  const std::uint32_t block = take_freed(ops, count, align);
  return block != kNone ? block : take_fresh(ops, count, align);
}

void Zone::give(MemoryOps& ops, std::uint32_t first, std::uint32_t count) {
  // What could not be done (too many mappings) is counted on, and that is all.
  if (frugal_) (void)ops.set_access(address(first), std::size_t{count} << kPageblockShift, false);
  free_.set_free(first, count, true);
}

// Free blocks below the frontier, before they are taken.
Errno Zone::make_writable(MemoryOps& ops, std::uint32_t first, std::uint32_t count) const {
  if (!frugal_ || count == 0) return kOk;
  return ops.set_access(address(first), std::size_t{count} << kPageblockShift, true);
}

bool Zone::take_at(MemoryOps& ops, std::uint32_t first, std::uint32_t count) {
  if (first > next_ || count > blocks_ - first) return false;
  const std::uint32_t end = first + count;
  const std::uint32_t below = std::min(end, next_) - first;
  if (below > 0 && free_.run_from(first) < below) return false;
  if (end > claimed_ && claim(ops, end).failed()) return false;
  if (end > committed_ && commit(ops, end).failed()) return false;
  if (make_writable(ops, first, below).failed()) return false;
  if (below > 0) free_.set_free(first, below, false);
  next_ = std::max(next_, end);
  return true;
}

std::uint32_t Zone::take_freed(MemoryOps& ops, std::uint32_t count, std::size_t align) {
  const auto align_blocks =
      static_cast<std::uint32_t>(std::min<std::size_t>(align >> kPageblockShift, blocks_));
  // The lowest run may happen to hold an aligned place; a run of count + align - 1 always does.
  for (const std::uint32_t wanted : {count, count + align_blocks - 1}) {
    const std::uint32_t run = free_.find(wanted);
    if (run == kNone) return kNone;
    const std::uint32_t block = align_up(run, align);
    if (block - run + count <= free_.run_from(run)) {
      if (make_writable(ops, block, count).failed()) return kNone;
      free_.set_free(block, count, false);
      return block;
    }
  }
  return kNone;
}

std::uint32_t Zone::take_fresh(MemoryOps& ops, std::uint32_t count, std::size_t align) {
  for (;;) {
    // What is free just below the frontier is the beginning of the run.
    const std::uint32_t block = align_up(next_ - free_.run_before(next_), align);
    if (count > blocks_ - block) return kNone;
    const std::uint32_t end = block + count;
    if (end > claimed_) {
      const Errno e = claim(ops, end);
      if (e.code == EEXIST) {
        step_over(ops);
        continue;
      }
      if (e.failed()) return kNone;
    }
    if (end > committed_ && commit(ops, end).failed()) return kNone;
    if (block < next_ && make_writable(ops, block, next_ - block).failed()) return kNone;
    if (block < next_) free_.set_free(block, next_ - block, false);
    if (block > next_) free_.set_free(next_, block - next_, true);
    next_ = end;
    return block;
  }
}

Errno Zone::claim(MemoryOps& ops, std::uint32_t end) {
  const std::uint32_t full =
      std::min(blocks_, static_cast<std::uint32_t>(round_up(end, kStepBlocks)));
  Errno e{ENOMEM};
  for (const std::uint32_t to : {full, end}) {
    std::uintptr_t at = 0;
    e = ops.reserve(address(claimed_), std::size_t{to - claimed_} << kPageblockShift, &at);
    if (e.ok()) {
      claimed_ = to;
      return kOk;
    }
    if (e.code == EEXIST) return e;
  }
  return e;
}

Errno Zone::commit(MemoryOps& ops, std::uint32_t end) {
  const std::uint32_t full =
      frugal_ ? end : std::min(claimed_, static_cast<std::uint32_t>(round_up(end, kStepBlocks)));
  Errno e{ENOMEM};
  for (const std::uint32_t to : {full, end}) {
    const std::size_t bytes = std::size_t{to - committed_} << kPageblockShift;
    e = ops.commit(address(committed_), bytes);
    if (e.ok()) {
      // A kernel without huge pages refuses, and all is as it would be anyway.
      if (advice_ != 0) (void)ops.advise(address(committed_), bytes, advice_);
      committed_ = to;
      return kOk;
    }
  }
  return e;
}

// Somebody else's mapping lies within the next steps: goes on one step further up.
void Zone::step_over(MemoryOps& ops) {
  if (claimed_ > next_) {
    if (committed_ == claimed_ || commit(ops, claimed_).ok()) {
      free_.set_free(next_, claimed_ - next_, true);
    } else {
      lost_ += claimed_ - std::max(next_, committed_);
    }
  }
  const std::uint32_t behind = std::min(blocks_, claimed_ + kStepBlocks);
  lost_ += behind - claimed_;
  next_ = committed_ = claimed_ = behind;
}

}  // namespace heaptier
