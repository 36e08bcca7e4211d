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

struct MovedPages {
  std::uint32_t moved = 0;
  std::uint32_t there = 0;  // before anybody moved them
  std::uint32_t arrived() const { return moved + there; }
};

// Counts what became of a list of pages: `flow`, those that moved.
inline MovedPages count_moves(Stats& stats, Counter& flow, const NodeMoveTally& tally, bool huge) {
  using enum NodeMoveOutcome;
  const auto pages = [&tally](NodeMoveOutcome o) {
    return static_cast<std::uint32_t>(tally.of(o).bytes / kPageSize);
  };
  flow.add(pages(kMoved));
  if (huge) stats.nodes_huge_moved.add(tally.of(kMoved).entries);
  stats.nodes_raced.add(pages(kAbsent) + pages(kNoMemory));
  stats.nodes_refused_shared.add(pages(kShared));
  stats.nodes_refused_pinned.add(pages(kPinned));
  stats.nodes_refused_full.add(pages(kTargetFull) + pages(kThrottled));
  stats.nodes_refused_whole.add(pages(kNoRoomWhole));
  stats.nodes_failed.add(pages(kBadTarget) + pages(kFailed));
  return {pages(kMoved), pages(kAlreadyThere)};
}

}  // namespace heaptier
