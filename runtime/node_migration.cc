// The part of migration.h that is about memory nodes: where a block's pages are, and moving them up
// and down.
#include <algorithm>

#include "runtime/lazy_mark.h"
#include "runtime/migration.h"
#include "runtime/node_moves.h"
#include "runtime/page_heat.h"

namespace heaptier {
namespace {

constexpr auto kBlockPages = static_cast<std::uint32_t>(kPagesPerBlock);
// Pages of a huge page that answer for where all of it is.
constexpr std::uint32_t kProbes = 4;

}  // namespace

// Looks at some of the pages, wherever the kernel has put them meanwhile.
void Migration::locate(BlockIndex b) {
  constexpr std::uint32_t kEvery = 8;
  Pageblock& block = core_.table.block(b);
  const bool huge = block.huge.load(std::memory_order_relaxed);
  const bool managed = block.words.load(std::memory_order_acquire) != nullptr;
  Places places = find_places(b, huge ? kBlockPages / kProbes : kEvery, false);
  if (places.found == 0) {
    block.slow.store(0, std::memory_order_relaxed);
    return;
  }
  const bool mixed = places.on[0] != 0 && places.on[0] != places.found;
  if (mixed && !huge && managed) places = find_places(b, 1, true);
  if (places.on[0] == 0 && !huge && managed) {
    for (std::uint32_t i = 0; i < kBlockPages; ++i) {
      note_place(core_.table, {first_page(b).v + i}, false);
    }
  }
  const auto most = std::max_element(places.on, places.on + kMaxTiers);
  if (huge && *most != places.found) {  // on several nodes: the kernel has taken it apart
    SpinGuard gate(block.gate);
    block.huge.store(false, std::memory_order_relaxed);
  }
  const std::uint32_t below = (places.found - places.on[0]) * places.every;
  block.tier.store(static_cast<std::uint8_t>(most - places.on), std::memory_order_relaxed);
  block.slow.store(static_cast<std::uint16_t>(std::min(below, kBlockPages)),
                   std::memory_order_relaxed);
}

// Every so manieth page of the block: how many are on each tier. With `note` each word says whether
// its page is on the first.
Migration::Places Migration::find_places(BlockIndex b, std::uint32_t every, bool note) {
  NodeTiers& nodes = *core_.nodes;
  const bool managed = core_.table.managed(first_page(b));
  std::uintptr_t at[kPagesPerBlock];
  int status[kPagesPerBlock];
  std::size_t n = 0;
  for (std::uint32_t i = 0; i < kBlockPages; i += every) {
    const PageIndex p{first_page(b).v + i};
    const bool parked = managed && core_.table.peek(p).state() == PageState::kParked;
    at[n++] = parked ? core_.park(p) : core_.home(p);
  }
  nodes.own_mover().where(at, n, status);
  Places places;
  places.every = every;
  for (std::size_t i = 0; i < n; ++i) {
    const unsigned t = nodes.tier_of(status[i]);
    if (t >= nodes.count()) continue;
    ++places.on[t];
    ++places.found;
    if (note) note_place(core_.table, {first_page(b).v + static_cast<std::uint32_t>(i)}, t == 0);
  }
  return places;
}

// All of them to one node; `flow` counts those that moved.
MovedPages Migration::move_to(int node, PageMove* moves, std::size_t n, bool huge, Counter& flow) {
  int status[kPagesPerBlock];
  for (std::size_t i = 0; i < n; ++i) {
    moves[i].node = static_cast<unsigned>(node);
    moves[i].huge = huge;
  }
  return count_moves(core_.stats, flow, core_.nodes->own_mover().move(moves, n, status), huge);
}

MoveOutcome Migration::promote(BlockIndex b, Wanted what, Gap soon) {
  NodeTiers& nodes = *core_.nodes;
  Pageblock& block = core_.table.block(b);
  const PageIndex first = first_page(b);
  MoveOutcome outcome;
  PageMove moves[kPagesPerBlock];
  std::size_t n = 0;
  const bool huge = still_huge(b);
  const int target = nodes.target(0, block.hot_node.load(std::memory_order_relaxed), huge);
  for (std::uint32_t i = 0; i < (huge ? 1 : kBlockPages); ++i) {
    const PageIndex p{first.v + i};
    const PageWord word = core_.table.peek(p);
    if (huge || what == Wanted::kAll) {
      if (word.state() == PageState::kParked) moves[n++].page = core_.park(p);
      if (word.state() == PageState::kResident) moves[n++].page = core_.home(p);
    } else if (found_hot(word, what == Wanted::kTwice, soon)) {
      moves[n++].page = core_.home(p);
    }
  }
  if (n == 0) return outcome;
  const std::uint32_t each = huge ? kBlockPages : 1;
  if (target < 0) {
    core_.stats.nodes_refused_full.add(n * each);
    return outcome;
  }
  const MovedPages pages = move_to(target, moves, n, huge, core_.stats.nodes_promoted);
  outcome.moved = pages.moved;
  note_promoted(block, pages.arrived());
  if (!huge && (what != Wanted::kAll || pages.arrived() != n)) locate(b);
  return outcome;
}

// The kernel may have taken a huge page apart, and parking moves its pages all the same: what is
// moved by one address must be one.
bool Migration::still_huge(BlockIndex b) {
  Pageblock& block = core_.table.block(b);
  if (!block.huge.load(std::memory_order_relaxed)) return false;
  const PageIndex first = first_page(b);
  const bool parked = core_.table.peek(first).state() == PageState::kParked;
  const std::uintptr_t at = parked ? core_.park(first) : core_.home(first);
  ScannedRun run{};
  std::size_t count = 0;
  std::uintptr_t next = 0;
  if (core_.ops.scan(at, kPageblockSize, &run, 1, &count, &next).failed()) return false;
  if (count == 1 && run.huge && run.bytes == kPageblockSize) return true;
  // Or it was touched and went home while we looked: then nothing is there.
  if (count != 0) {
    SpinGuard gate(block.gate);
    block.huge.store(false, std::memory_order_relaxed);
  }
  return false;
}

MoveOutcome Migration::demote(BlockIndex b, unsigned tier) {
  NodeTiers& nodes = *core_.nodes;
  Pageblock& block = core_.table.block(b);
  const PageIndex first = first_page(b);
  MoveOutcome outcome;
  if (block.pinned()) return outcome;
  const bool huge = still_huge(b);
  std::uintptr_t at[kPagesPerBlock];
  PageMove moves[kPagesPerBlock];
  int status[kPagesPerBlock];
  std::size_t n = 0;
  for (std::uint32_t i = 0; i < (huge ? 1 : kBlockPages); ++i) {
    const PageIndex p{first.v + i};
    const PageWord word = core_.table.peek(p);
    const PageState s = word.state();
    if (!huge && LazyMark{word.slot()}.is_waiting() && s == PageState::kParked) continue;
    if (s != PageState::kParked && !(huge && s == PageState::kResident)) continue;
    at[n++] = s == PageState::kParked ? core_.park(p) : core_.home(p);
  }
  nodes.own_mover().where(at, n, status);
  const std::size_t found = n;
  n = 0;
  int from = -1;
  for (std::size_t i = 0; i < found; ++i) {
    if (nodes.tier_of(status[i]) >= tier) continue;  // there already, below it, or gone
    from = status[i];
    moves[n++].page = at[i];
  }
  if (n == 0) {
    outcome.raced = 1;
    if (found != 0) locate(b);
    return outcome;
  }
  const int target = nodes.target(tier, from, huge);
  if (target < 0) {
    outcome.store_full = true;
    core_.stats.nodes_refused_full.add(huge ? kPagesPerBlock : n);
    return outcome;
  }
  const MovedPages pages = move_to(target, moves, n, huge, core_.stats.nodes_demoted);
  outcome.moved = pages.moved;
  if (!huge) {
    locate(b);
  } else if (pages.arrived() != 0) {
    block.slow.store(static_cast<std::uint16_t>(kBlockPages), std::memory_order_relaxed);
    block.tier.store(static_cast<std::uint8_t>(tier), std::memory_order_relaxed);
  }
  return outcome;
}

}  // namespace heaptier
