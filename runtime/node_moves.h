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
// in 17 s, which is longer than pages are left parked that somebody waits for.
inline constexpr unsigned kParkStampShift = 18;
constexpr std::uint32_t park_stamp(Nanos now) {
  return static_cast<std::uint32_t>(static_cast<std::uint64_t>(now.v) >> kParkStampShift) & 0xffff;
}
constexpr Nanos since_parked(PageWord w, Nanos now) {
  const std::uint32_t units = (park_stamp(now) - w.stamp()) & 0xffff;
  return {static_cast<std::int64_t>(units) << kParkStampShift};
}
// Whether it was parked when its block was, the last time, and not before: then the time is known
// more exactly.
constexpr bool parked_with_block(PageWord w, Nanos block_parked) {
  constexpr std::uint32_t kTakes = 64;  // 16 ms
  return ((park_stamp(block_parked) - w.stamp() + kTakes) & 0xffff) <= 2 * kTakes;
}

// What watching has found out about a page is kept in its word until it is watched anew: the gap in
// place of the refault estimate, and this in place of the credits.
enum class Seen : std::uint8_t {
  kNo,
  kTouched,         // since it was parked; of a huge page: in one of the samples
  kCandidate,       // touched, and to be watched once more for it
  kCandidateAgain,  // and touched again
};
inline constexpr std::uint32_t kSeenBits = 3;
constexpr Seen seen(PageWord w) {
  return static_cast<Seen>(w.credits() & kSeenBits);
}
constexpr PageWord with_seen(PageWord w, Seen s) {
  return w.with_credits((w.credits() & ~kSeenBits) | static_cast<unsigned>(s));
}
// And whether it lies on the first tier, in a block of small pages of which only some do.
inline constexpr std::uint32_t kFirstTierBit = 4;
constexpr bool on_first_tier(PageWord w) {
  return (w.credits() & kFirstTierBit) != 0;
}
constexpr PageWord with_first_tier(PageWord w, bool on) {
  return w.with_credits((w.credits() & kSeenBits) | (on ? kFirstTierBit : 0));
}
constexpr bool touched(PageWord w) {
  return w.state() == PageState::kResident &&
         (seen(w) == Seen::kTouched || seen(w) == Seen::kCandidateAgain);
}

inline void note_parked(Pageblock& block, const WatchClock::Mark& mark) {
  block.parked_at.store(mark.at, std::memory_order_relaxed);
  block.parked_faults.store(mark.faults, std::memory_order_relaxed);
}

// Of a block touched as one huge page; its gate is held.
inline void note_gap(Pageblock& block, Gap measured) {
  const GapEstimate e = GapEstimate{block.gap.load(std::memory_order_relaxed),
                                    block.gaps_measured.load(std::memory_order_relaxed)}
                            .after(measured);
  block.gap.store(e.gap, std::memory_order_relaxed);
  block.gaps_measured.store(e.measured, std::memory_order_relaxed);
  block.last_gap.store(measured, std::memory_order_relaxed);
}

// Of the same block: the touch fell on a page that had been seen, or not. True: it is the first
// that is counted, what the words say is of another time. Not beyond what is ever asked for.
inline bool note_sample(Pageblock& block, bool repeat) {
  const std::uint8_t samples = block.samples.load(std::memory_order_relaxed);
  const bool first = samples == 0;
  if (samples == UINT8_MAX) return false;
  if (first) block.repeats.store(0, std::memory_order_relaxed);
  if (repeat && !first) block.repeats.fetch_add(1, std::memory_order_relaxed);
  block.samples.store(static_cast<std::uint8_t>(samples + 1), std::memory_order_relaxed);
  return first;
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
  block.samples.store(0, std::memory_order_relaxed);
  block.repeats.store(0, std::memory_order_relaxed);
  block.slow.store(0, std::memory_order_relaxed);
  block.tier.store(0, std::memory_order_relaxed);
}

// Pages of one block that are to move: by their address, at home or in the park, and what became of
// each (NodeMover::move).
struct PagesOnMove {
  PageMove moves[kPagesPerBlock];
  int status[kPagesPerBlock];
  std::size_t count = 0;
  void add(std::uintptr_t page) { moves[count++].page = page; }
};

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
