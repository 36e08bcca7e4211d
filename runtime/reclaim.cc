#include "runtime/reclaim.h"

#include <algorithm>

#include "runtime/discard.h"
#include "runtime/migration.h"

namespace heaptier {
namespace {

// Clean pages discarded at once: one TLB flush.
constexpr std::size_t kDiscards = 64;
// Pages of main memory looked at, at once: a span of one pageblock.
constexpr std::uint32_t kSpanPages = 64;
constexpr std::uint32_t kSpansPerBlock = static_cast<std::uint32_t>(kPagesPerBlock) / kSpanPages;
// Enough stored for this fault and those behind it: about 200 us.
constexpr std::uint32_t kEnough = 24;
// Looked at in vain before giving up.
constexpr std::uint32_t kMostSpans = 48;
constexpr std::uint32_t kMostBlocks = 8192;
// Tried in vain, because they would not shrink or the kernel would not move them (pinned, shared
// with a forked child), before giving up.
constexpr std::uint32_t kMostRefusals = 48;
// When the kernel would not, nobody tries on behalf of a fault for so long, doubled while it stays
// in vain: of a heap that a fork has just shared hardly a page can move.
constexpr Nanos kShortestRest = millis(1);
constexpr Nanos kLongestRest = millis(64);

bool worth_looking(const Core& core, BlockIndex b) {
  const Pageblock& block = core.table.block(b);
  return block.served() && !block.stays() && core.space.mobility_of(b) != Mobility::kUnmovable &&
         !block.huge.load(std::memory_order_relaxed) &&
         block.count(PageState::kResident) > block.resting.load(std::memory_order_relaxed);
}

struct Eviction {
  std::uint32_t stored = 0;
  std::uint32_t busy = 0;
  std::uint32_t incompressible = 0;  // these rest by themselves (rest.h)
  bool full = false;                 // the store refused for lack of room
};

Eviction evict_main(Core& core, Worker& w) {
  Migration migration(core, w);
  Eviction done;
  const std::uint64_t limit = std::uint64_t{core.space.block_limit()} * kSpansPerBlock;
  if (limit == 0) return done;
  std::uint32_t blocks = 0;
  for (std::uint32_t spans = 0; spans < kMostSpans && blocks < kMostBlocks &&
                                done.stored < kEnough &&
                                done.busy + done.incompressible < kMostRefusals;) {
    const std::uint64_t at = core.reclaim_hand.fetch_add(1, std::memory_order_relaxed) % limit;
    const BlockIndex b{static_cast<std::uint32_t>(at / kSpansPerBlock)};
    if (!worth_looking(core, b)) {
      // On to the next pageblock; another fault may have moved the hand meanwhile, which does no
      // harm.
      core.reclaim_hand.store((at / kSpansPerBlock + 1) * kSpansPerBlock,
                              std::memory_order_relaxed);
      ++blocks;
      continue;
    }
    ++spans;
    const PageSpan span{static_cast<std::uint32_t>(at % kSpansPerBlock) * kSpanPages, kSpanPages};
    const MoveOutcome parked = migration.park(b, Parking::kSpared, span);
    done.busy += parked.busy;
    if (parked.moved == 0) continue;
    const MoveOutcome out = migration.store(b, kSpanPages, Evictor::kInline, span);
    done.stored += out.moved;
    done.incompressible += out.incompressible;
    if (out.store_full) {
      done.full = true;
      break;
    }
  }
  return done;
}

void rest_after(Core& core, const Eviction& e, Nanos now) {
  if (e.full) core.store_refused(now);
  if (e.busy < kMostRefusals / 2) return;
  const Nanos last{core.reclaim_rest.load(std::memory_order_relaxed)};
  const Nanos rest = std::clamp(last + last, kShortestRest, kLongestRest);
  core.reclaim_rest.store(rest.v, std::memory_order_relaxed);
  core.reclaim_rests_until.store((now + rest).v, std::memory_order_relaxed);
}

}  // namespace

Reclaimed reclaim_for_fault(Core& core, Worker& w) {
  if (!core.above_high()) return Reclaimed::kNotNeeded;
  core.kicked.store(1, std::memory_order_release);
  const std::uint64_t keep = core.probation_pages.load(std::memory_order_relaxed);
  if (core.fetched.size() > keep && discard_fetched(core, kDiscards, Evictor::kInline) > 0) {
    return Reclaimed::kSome;
  }
  const Nanos now = core.ops.now();
  bool full = core.store_rests(now);
  if (!full && now.v >= core.reclaim_rests_until.load(std::memory_order_relaxed)) {
    const Eviction e = evict_main(core, w);
    if (e.stored > 0) {
      core.reclaim_rest.store(0, std::memory_order_relaxed);
      return Reclaimed::kSome;
    }
    rest_after(core, e, now);
    full = e.full;
  }
  if (discard_fetched(core, kDiscards, Evictor::kInline) > 0) return Reclaimed::kSome;
  return full ? Reclaimed::kStoreFull : Reclaimed::kNothing;
}

}  // namespace heaptier
