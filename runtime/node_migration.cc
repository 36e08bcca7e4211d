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
  Pageblock& block = core_.table.block(b);
  const bool huge = block.huge.load(std::memory_order_relaxed);
  const bool managed = block.words.load(std::memory_order_acquire) != nullptr;
  // Old kernels do not say where hidden pages are (Linux 6.1).
  if (core_.protection != nullptr && block.count(PageState::kParked) != 0) return;
  const std::uint32_t every = huge ? kBlockPages / kProbes : managed ? 8 : 32;
  Places places = find_places(b, every, false);
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
  block.node.store(places.most_on, std::memory_order_relaxed);
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
  std::uint16_t on[kMaxNodes] = {};
  for (std::size_t i = 0; i < n; ++i) {
    const unsigned t = nodes.tier_of(status[i]);
    if (t >= nodes.count()) continue;
    ++places.on[t];
    ++places.found;
    if (++on[status[i]] > on[places.most_on]) places.most_on = static_cast<std::uint8_t>(status[i]);
    if (note) note_place(core_.table, {first_page(b).v + static_cast<std::uint32_t>(i)}, t == 0);
  }
  return places;
}

// All of them to one node; `flow` counts those that moved.
MovedPages Migration::move_to(int node, PagesOnMove* list, bool huge, Counter& flow) {
  for (std::size_t i = 0; i < list->count; ++i) {
    list->moves[i].node = static_cast<unsigned>(node);
    list->moves[i].huge = huge;
  }
  return count_moves(core_.stats, flow,
                     core_.nodes->own_mover().move(list->moves, list->count, list->status), huge);
}

// Small pages that have gone to `tier`: each word says so, and so do the block's counts. What the
// kernel has moved by itself is found out by locate() in its turn.
void Migration::note_arrived(BlockIndex b, const PagesOnMove& list, unsigned tier,
                             const MovedPages& pages) {
  if (tier > 1) return locate(b);  // some of them were below the first tier before
  Pageblock& block = core_.table.block(b);
  const bool above = tier == 0;
  std::uint32_t slow = block.slow.load(std::memory_order_relaxed);
  // Where all of it was above the words did not say so.
  for (std::uint32_t i = 0; !above && slow == 0 && i < kBlockPages; ++i) {
    note_place(core_.table, {first_page(b).v + i}, true);
  }
  for (std::size_t i = 0; i < list.count; ++i) {
    const bool there = core_.nodes->tier_of(list.status[i]) == tier;
    if (there)
      note_place(core_.table, core_.space.page_at(core_.home_of(list.moves[i].page)), above);
  }
  const std::uint32_t present = block.count(PageState::kResident) + block.count(PageState::kClean) +
                                block.count(PageState::kParked);
  slow = above ? slow - std::min(slow, pages.moved) : std::min(slow + pages.arrived(), present);
  block.slow.store(static_cast<std::uint16_t>(slow), std::memory_order_relaxed);
  if (above && 2 * slow <= present) block.tier.store(0, std::memory_order_relaxed);
  if (!above && 2 * slow > present) {
    block.tier.store(static_cast<std::uint8_t>(tier), std::memory_order_relaxed);
  }
}

// Old kernels do not move hidden pages (Linux 6.1), and who touches one that is being moved waits
// for the move when it is not hidden. What waits to move at its next touch stays as it is.
Migration::Hidden Migration::show_for_move(BlockIndex b) {
  Pageblock& block = core_.table.block(b);
  if (core_.protection == nullptr || block.count(PageState::kParked) == 0) return {};
  const Hidden hidden{true,
                      {block.parked_at.load(std::memory_order_relaxed),
                       block.parked_faults.load(std::memory_order_relaxed)}};
  (void)unpark(b, Unpark::kNotLazy);
  return hidden;
}

// A huge page that was watched goes on being watched, as if nothing had been.
void Migration::hide_after_move(BlockIndex b, const Hidden& hidden) {
  if (!hidden.any || park(b, Parking::kAll).moved == 0) return;
  note_parked(core_.table.block(b), hidden.since);
}

MoveOutcome Migration::promote(BlockIndex b, Wanted what, Gap soon) {
  NodeTiers& nodes = *core_.nodes;
  Pageblock& block = core_.table.block(b);
  const PageIndex first = first_page(b);
  MoveOutcome outcome;
  if (!block.served()) return outcome;
  PagesOnMove list;
  const bool huge = still_huge(b);
  const int target = nodes.target(0, block.hot_node.load(std::memory_order_relaxed), huge);
  for (std::uint32_t i = 0; i < (huge ? 1 : kBlockPages); ++i) {
    const PageIndex p{first.v + i};
    const PageWord word = core_.table.peek(p);
    if (huge || what == Wanted::kAll) {
      if (word.state() == PageState::kParked) list.add(core_.park(p));
      if (word.state() == PageState::kResident) list.add(core_.home(p));
    } else if (found_hot(word, what == Wanted::kTwice, soon)) {
      list.add(core_.home(p));
    }
  }
  if (list.count == 0) return outcome;
  const std::uint32_t each = huge ? kBlockPages : 1;
  if (target < 0) {
    core_.stats.nodes_refused_full.add(list.count * each);
    return outcome;
  }
  show_for_move(b);
  const MovedPages pages = move_to(target, &list, huge, core_.stats.nodes_promoted);
  outcome.moved = pages.moved;
  const std::uint32_t present = block.count(PageState::kResident) + block.count(PageState::kClean) +
                                block.count(PageState::kParked);
  if (2 * pages.arrived() > present) {
    block.node.store(static_cast<std::uint8_t>(target), std::memory_order_relaxed);
  }
  if (huge) {
    note_promoted(block, pages.arrived());
  } else {
    note_arrived(b, list, 0, pages);
  }
  return outcome;
}

MoveOutcome Migration::balance(BlockIndex b) {
  Pageblock& block = core_.table.block(b);
  MoveOutcome outcome;
  const unsigned target = block.hot_node.load(std::memory_order_relaxed);
  if (block.pinned() || target == block.node.load(std::memory_order_relaxed) ||
      core_.nodes->tier_of(static_cast<int>(target)) != 0) {
    return outcome;
  }
  PagesOnMove list;
  const bool huge = still_huge(b);
  for (std::uint32_t i = 0; i < (huge ? 1 : kBlockPages); ++i) {
    const PageIndex p{first_page(b).v + i};
    const PageWord word = core_.table.peek(p);
    if (!lies_above(block, word)) continue;
    if (word.state() == PageState::kParked) list.add(core_.park(p));
    if (word.state() == PageState::kResident) list.add(core_.home(p));
  }
  const std::uint64_t pages = huge ? kBlockPages : list.count;
  if (pages == 0) return outcome;
  if (!core_.nodes->has_room(target, pages, huge)) {
    core_.stats.nodes_refused_full.add(pages);
    return outcome;
  }
  show_for_move(b);
  const MovedPages moved =
      move_to(static_cast<int>(target), &list, huge, core_.stats.nodes_balanced);
  outcome.moved = moved.moved;
  if (2 * moved.arrived() > pages) {
    block.node.store(static_cast<std::uint8_t>(target), std::memory_order_relaxed);
  }
  return outcome;
}

// The kernel copies them under its own locks: the application may use them meanwhile. It refuses
// where it does not make huge pages (prctl, MADV_NOHUGEPAGE), and where a page is pinned.
MoveOutcome Migration::gather(BlockIndex b) {
  Pageblock& block = core_.table.block(b);
  MoveOutcome outcome;
  if (block.pinned() || block.count(PageState::kResident) != kBlockPages) return outcome;
  // The kernel would look for room by taking it from others.
  const unsigned node = block.node.load(std::memory_order_relaxed);
  if (!core_.nodes->has_room(node, kBlockPages, true)) return outcome;
  // It would be taken apart by its next touch.
  LargePages* const large = core_.large_pages;
  if (large != nullptr && core_.protection == nullptr && !large->come_home_whole()) return outcome;
  block.only_small.store(false, std::memory_order_relaxed);
  outcome = collapse(b);
  if (outcome.moved == 0) return outcome;
  {
    SpinGuard gate(block.gate);
    if (block.count(PageState::kResident) != kBlockPages) return outcome;  // freed meanwhile
    forget_heat(block);
    block.found(true);
  }
  (void)still_huge(b);  // it may have been freed and filled again
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

// Takes those off the list that lie on the tier already, or below it, or are gone. Returns the node
// of the last that is left, or -1.
int Migration::leave_those_below(unsigned tier, PagesOnMove* list) {
  std::uintptr_t at[kPagesPerBlock];
  for (std::size_t i = 0; i < list->count; ++i) at[i] = list->moves[i].page;
  core_.nodes->own_mover().where(at, list->count, list->status);
  const std::size_t found = list->count;
  int from = -1;
  list->count = 0;
  for (std::size_t i = 0; i < found; ++i) {
    if (core_.nodes->tier_of(list->status[i]) >= tier) continue;
    from = list->status[i];
    list->add(at[i]);
  }
  return from;
}

MoveOutcome Migration::demote(BlockIndex b, unsigned tier, Cold which) {
  NodeTiers& nodes = *core_.nodes;
  Pageblock& block = core_.table.block(b);
  const PageIndex first = first_page(b);
  MoveOutcome outcome;
  if (block.pinned()) return outcome;
  const bool huge = still_huge(b);
  PagesOnMove list;
  for (std::uint32_t i = 0; i < (huge ? 1 : kBlockPages); ++i) {
    const PageIndex p{first.v + i};
    const PageWord word = core_.table.peek(p);
    const PageState s = word.state();
    if (!huge && LazyMark{word.slot()}.is_waiting() && s == PageState::kParked) continue;
    const bool at_home = s == PageState::kResident && (huge || which == Cold::kTold);
    if (s != PageState::kParked && !at_home) continue;
    if (!huge && tier == 1 && !lies_above(block, word)) continue;  // there already, or below it
    list.add(s == PageState::kParked ? core_.park(p) : core_.home(p));
  }
  const Hidden hidden = show_for_move(b);
  const std::size_t found = list.count;
  const int from = leave_those_below(tier, &list);
  if (list.count == 0) {
    outcome.raced = 1;
    if (found != 0) locate(b);
    return outcome;
  }
  const int target = nodes.target(tier, from, huge);
  if (target < 0) {
    outcome.store_full = true;
    core_.stats.nodes_refused_full.add(huge ? kPagesPerBlock : list.count);
    return outcome;
  }
  const MovedPages pages = move_to(target, &list, huge, core_.stats.nodes_demoted);
  outcome.moved = pages.moved;
  if (huge) hide_after_move(b, hidden);
  if (!huge) {
    note_arrived(b, list, tier, pages);
  } else if (pages.arrived() != 0) {
    block.slow.store(static_cast<std::uint16_t>(kBlockPages), std::memory_order_relaxed);
    block.tier.store(static_cast<std::uint8_t>(tier), std::memory_order_relaxed);
  }
  return outcome;
}

}  // namespace heaptier
