// What the movers of pages between nodes share: the time of parking in a page's word, and the
// books.
#pragma once

#include <algorithm>
#include <cstdint>

#include "policies/gap.h"
#include "runtime/config/stats.h"
#include "runtime/node_tiers.h"
#include "runtime/pageblock_table.h"
#include "runtime/tiers/node_mover.h"

namespace heaptier {

// A parked page's stamp: when it was parked, in quarters of a millisecond, 16 bits. It goes round
// in 17 s: of pages parked for longer one in hundreds seems fresh, which alone moves
// nothing (worth_promoting).
inline constexpr unsigned kParkStampShift = 18;
constexpr std::uint32_t park_stamp(Nanos now) {
  return static_cast<std::uint32_t>(static_cast<std::uint64_t>(now.v) >> kParkStampShift) & 0xffff;
}
constexpr Nanos since_parked(PageWord w, Nanos now) {
  const std::uint32_t units = (park_stamp(now) - w.stamp()) & 0xffff;
  return {static_cast<std::int64_t>(units) << kParkStampShift};
}

inline void note_parked(Pageblock& block, const WatchClock::Mark& mark) {
  block.parked_at.store(mark.at, std::memory_order_relaxed);
  block.parked_faults.store(mark.faults, std::memory_order_relaxed);
}

// Of a block touched as one huge page; its gate is held.
inline GapEstimate note_gap(Pageblock& block, Gap measured) {
  const GapEstimate e = GapEstimate{block.gap.load(std::memory_order_relaxed),
                                    block.gaps_measured.load(std::memory_order_relaxed)}
                            .after(measured);
  block.gap.store(e.gap, std::memory_order_relaxed);
  block.gaps_measured.store(e.measured, std::memory_order_relaxed);
  block.last_gap.store(measured, std::memory_order_relaxed);
  return e;
}

inline void note_promoted(Pageblock& block, std::size_t pages) {
  const std::uint16_t slow = block.slow.load(std::memory_order_relaxed);
  const auto left = static_cast<std::uint16_t>(slow - std::min<std::size_t>(slow, pages));
  block.slow.store(left, std::memory_order_relaxed);
  if (left == 0) block.tier.store(0, std::memory_order_relaxed);
}

// Nothing of what was measured is left: the next content is another.
inline void forget_heat(Pageblock& block) {
  block.gap.store(kUnknownGap, std::memory_order_relaxed);
  block.gaps_measured.store(0, std::memory_order_relaxed);
  block.last_gap.store(kUnknownGap, std::memory_order_relaxed);
  block.hot.store(0, std::memory_order_relaxed);
  block.slow.store(0, std::memory_order_relaxed);
  block.tier.store(0, std::memory_order_relaxed);
}

// Counts what became of one entry: `flow` if it moved. True: it did.
inline bool count_moved(Stats& stats, Counter& flow, int status, bool huge) {
  const std::uint64_t pages = huge ? kPagesPerBlock : 1;
  switch (outcome_of(status)) {
    case NodeMoveOutcome::kMoved:
    case NodeMoveOutcome::kAlreadyThere:
      flow.add(pages);
      if (huge) stats.nodes_huge_moved.add();
      return true;
    case NodeMoveOutcome::kAbsent:
    case NodeMoveOutcome::kNoMemory:
      stats.nodes_raced.add(pages);
      return false;
    case NodeMoveOutcome::kShared:
      stats.nodes_refused_shared.add(pages);
      return false;
    case NodeMoveOutcome::kPinned:
      stats.nodes_refused_pinned.add(pages);
      return false;
    case NodeMoveOutcome::kTargetFull:
    case NodeMoveOutcome::kThrottled:
      stats.nodes_refused_full.add(pages);
      return false;
    case NodeMoveOutcome::kNoRoomWhole:
      stats.nodes_refused_whole.add(pages);
      return false;
    case NodeMoveOutcome::kBadTarget:
    case NodeMoveOutcome::kFailed:
      stats.nodes_failed.add(pages);
      return false;
  }
  return false;
}

}  // namespace heaptier
