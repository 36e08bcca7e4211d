#include "runtime/hand_moves.h"

#include <algorithm>

#include "runtime/lazy_mark.h"
#include "runtime/node_moves.h"
#include "runtime/page_spot.h"

namespace heaptier {
namespace {

constexpr auto kBlockPages = static_cast<std::uint32_t>(kPagesPerBlock);
// Between two looks at who else wants something of this thread.
constexpr std::uint64_t kMovedAtOnce = std::uint64_t{16} << 20;
// A page that is touched while it is to be moved goes home, and is to be found there.
constexpr unsigned kRounds = 4;

bool absent(int node) {
  return node == -ENOENT || node == -EFAULT;
}

// Why a page did not get into the store.
int refusal(const MoveOutcome& why) {
  if (why.busy > 0) return -EBUSY;
  if (why.incompressible > 0) return -EFBIG;
  if (why.store_full) return -ENOMEM;
  return why.failed ? -EIO : -EAGAIN;
}

}  // namespace

struct HandMoves::Entry {
  enum class Do : std::uint8_t { kNothing, kStore, kMove, kAsFirst };

  std::uintptr_t home = 0;
  std::uintptr_t at = 0;  // where its frame is
  PageSpot::Kind kind = PageSpot::Kind::kNotOurs;
  bool huge = false;
  Do what = Do::kNothing;
  std::uint16_t first = 0;  // kAsFirst: the entry of the same page, or huge page
  int node = -ENOENT;       // where it is, or -errno. With one tier of nodes: 0, it is somewhere
  int want = 0;             // tier
  int status = 0;

  // Two entries with the same key are moved as one.
  std::uintptr_t key() const { return huge ? round_down(home, kPageblockSize) : home; }
};

void HandMoves::serve(HandBatch& batch) {
  batch.moved = 0;
  if (core_.nodes != nullptr) core_.nodes->look();
  for (std::size_t from = 0; from < batch.count; host_.between_steps()) {
    from += serve_some(batch, from);
  }
}

// Of the batch from `from` on, as much as can be done together. Returns how many.
std::size_t HandMoves::serve_some(HandBatch& batch, std::size_t from) {
  Entry entries[HandBatch::kMost];
  int before[HandBatch::kMost];
  const std::size_t n = gather(batch, from, entries);
  find(entries, n);
  for (std::size_t i = 0; i < n; ++i) {
    Entry& e = entries[i];
    before[i] = e.status = place_of(e);
    e.want = goal_of(batch, from + i, e);
    if (batch.goal != HandGoal::kLook && e.what != Entry::Do::kAsFirst) {
      decide(batch.goal, &e);
    }
  }
  store(entries, n);
  move_between_nodes(entries, n);
  for (std::size_t i = 0; i < n; ++i) {
    Entry& e = entries[i];
    if (e.what == Entry::Do::kAsFirst) {
      e.status = entries[e.first].status;
    } else if (batch.may_split && e.huge && e.status == -ENOSPC) {
      e.status = move_in_pieces(e.home, e.want);
    }
    // For a hint only the place counts.
    if (batch.goal != HandGoal::kTiers && e.status < 0 && before[i] >= 0) e.status = before[i];
    batch.status[from + i] = e.status;
    if (e.status == e.want && before[i] != e.want) ++batch.moved;
  }
  return n;
}

// Sees the pages, up to one that was in the batch already with another target.
std::size_t HandMoves::gather(const HandBatch& batch, std::size_t from, Entry* entries) {
  std::size_t n = 0;
  ScannedRun run{};
  std::uintptr_t highest = 0;
  for (; from + n < batch.count; ++n) {
    Entry& e = entries[n];
    e = Entry{};
    see(batch.page[from + n], &run, &e);
    // In address order there is nothing twice.
    const bool ascends = n == 0 || e.key() > highest;
    highest = std::max(highest, e.key());
    for (std::size_t j = 0; j < n && !ascends; ++j) {
      if (entries[j].key() != e.key() || entries[j].what == Entry::Do::kAsFirst) continue;
      if (batch.goal == HandGoal::kTiers && batch.tier[from + j] != batch.tier[from + n]) return n;
      e.what = Entry::Do::kAsFirst;
      e.first = static_cast<std::uint16_t>(j);
      break;
    }
  }
  return n;
}

// What the kernel has there: a huge page may be news to us. Empty: nothing of the application's.
// Some pages are looked at together; *run is what is known already.
bool HandMoves::is_present(std::uintptr_t at, ScannedRun* run) {
  constexpr std::size_t kTogether = 64 * kPageSize;
  if (at - run->start < run->bytes) return true;
  const std::size_t bytes = std::min(kTogether, kPageblockSize - (at & (kPageblockSize - 1)));
  std::size_t count = 0;
  std::uintptr_t next = 0;
  *run = ScannedRun{};
  if (core_.ops.scan(at, bytes, run, 1, &count, &next).failed()) {
    core_.stats.errors_scan.add();
    count = 0;
  }
  if (count == 0 || run->zero_page) *run = ScannedRun{};
  return at - run->start < run->bytes;
}

void HandMoves::see(std::uintptr_t page, ScannedRun* run, Entry* e) {
  const PageSpot spot = PageSpot::of(page, core_.space, &core_.table, core_.park_base);
  if (core_.protection != nullptr && spot.kind == PageSpot::Kind::kMapped) show(page);
  e->home = round_down(page, kPageSize);
  e->kind = spot.kind;
  e->at = spot.at;
  e->huge = false;
  e->node = -ENOENT;
  if (spot.kind != PageSpot::Kind::kMapped || !is_present(spot.at, run)) return;
  e->huge = run->huge;
  e->node = 0;
}

// Old kernels neither find nor move hidden pages.
void HandMoves::show(std::uintptr_t page) {
  const PageIndex p = core_.space.page_at(page);
  if (!core_.table.managed(p)) return;
  const PageWord word = core_.table.peek(p);
  if (word.state() != PageState::kParked) return;
  const bool waits = LazyMark{word.slot()}.is_waiting();
  (void)migration_.unpark(block_of(p),
                          waits ? Migration::Unpark::kAll : Migration::Unpark::kNotLazy);
}

void HandMoves::see_again(Entry* e) {
  ScannedRun run{};
  see(e->home, &run, e);
  look_up(e, 1);
}

// The nodes of what is present.
void HandMoves::look_up(Entry* entries, std::size_t count) {
  if (core_.nodes == nullptr) return;
  std::uintptr_t at[HandBatch::kMost];
  int node[HandBatch::kMost];
  std::size_t n = 0;
  for (std::size_t i = 0; i < count; ++i) {
    if (entries[i].kind == PageSpot::Kind::kMapped && entries[i].node >= 0) at[n++] = entries[i].at;
  }
  if (n == 0) return;
  core_.nodes->own_mover().where(at, n, node);
  n = 0;
  for (std::size_t i = 0; i < count; ++i) {
    Entry& e = entries[i];
    if (e.kind == PageSpot::Kind::kMapped && e.node >= 0) e.node = node[n++];
  }
}

void HandMoves::find(Entry* entries, std::size_t count) {
  look_up(entries, count);
  for (std::size_t i = 0; i < count; ++i) {
    Entry& e = entries[i];
    for (unsigned again = 1; again < kRounds && e.kind == PageSpot::Kind::kMapped && absent(e.node);
         ++again) {
      const std::uintptr_t seen = e.at;
      see_again(&e);
      if (e.at == seen && again > 1) break;  // it is not on its way
    }
  }
}

int HandMoves::place_of(const Entry& e) const {
  switch (e.kind) {
    case PageSpot::Kind::kNotOurs:
      return -EINVAL;
    case PageSpot::Kind::kUntouched:
      return -ENOENT;
    case PageSpot::Kind::kLost:
      return -EIO;
    case PageSpot::Kind::kInStore:
      return static_cast<int>(chain_.count) - 1;
    case PageSpot::Kind::kMapped:
      break;
  }
  if (e.node < 0) return absent(e.node) ? -ENOENT : e.node;
  if (core_.nodes == nullptr) {
    const bool one = chain_.count - (chain_.find(TierKind::kZpool) != nullptr ? 1 : 0) == 1;
    return one ? 0 : -ENOTSUP;
  }
  const unsigned tier = core_.nodes->tier_of(e.node);
  return tier < core_.nodes->count() ? static_cast<int>(tier) : -ENODEV;
}

int HandMoves::goal_of(const HandBatch& batch, std::size_t i, const Entry& e) const {
  switch (batch.goal) {
    case HandGoal::kLook:
      return e.status;
    case HandGoal::kTiers:
      return batch.tier[i];
    case HandGoal::kUp:
      return e.kind == PageSpot::Kind::kMapped ? 0 : e.status;
    case HandGoal::kDown:
      break;
  }
  const std::uintptr_t block = round_down(e.home, kPageblockSize);
  const bool whole = block >= batch.within.start && block + kPageblockSize <= batch.within.end();
  const bool stays = e.status < 0 || e.status + 1 >= static_cast<int>(chain_.count);
  return stays || (e.huge && !whole) ? e.status : e.status + 1;
}

// What is to be done, or why nothing is.
void HandMoves::decide(HandGoal goal, Entry* e) {
  if (e->want < 0 || e->want >= static_cast<int>(chain_.count)) {
    if (goal == HandGoal::kTiers) e->status = -EINVAL;
    return;
  }
  const bool elsewhere = e->status == -ENODEV;  // on a node that is of no tier
  if ((e->status < 0 && !elsewhere) || e->status == e->want) return;
  const Pageblock& block = core_.table.block(block_at(e->home));
  if (block.pins.load(std::memory_order_relaxed) != 0) {
    e->status = -EPERM;
  } else if (is_store(e->want) && core_.protection != nullptr) {
    e->status = -ENOTSUP;
  } else if (is_store(e->want)) {
    const bool locked = block.pinned() || core_.retired.load(std::memory_order_relaxed);
    if (locked) {
      e->status = -EPERM;
    } else {
      e->what = Entry::Do::kStore;
    }
  } else if (e->kind == PageSpot::Kind::kInStore) {
    e->status = -EAGAIN;
  } else if (core_.nodes == nullptr) {
    e->status = -ENOTSUP;
  } else {
    e->what = Entry::Do::kMove;
  }
}

// Neighbours together: each call interrupts the other CPUs.
void HandMoves::store(Entry* entries, std::size_t count) {
  for (std::size_t i = 0; i < count;) {
    if (entries[i].what != Entry::Do::kStore) {
      ++i;
      continue;
    }
    std::size_t end = i + 1;
    while (end < count && !entries[i].huge && !entries[end].huge &&
           entries[end].what == Entry::Do::kStore &&
           entries[end].home == entries[end - 1].home + kPageSize &&
           block_at(entries[end].home) == block_at(entries[i].home)) {
      ++end;
    }
    store_pages(entries + i, end - i);
    i = end;
    host_.between_steps();
  }
}

// One run, or one huge page. What did not go with the others is asked why, one by one.
void HandMoves::store_pages(Entry* entries, std::size_t count) {
  const PageIndex first =
      entries->huge ? first_page(block_at(entries->home)) : core_.space.page_at(entries->home);
  const std::uint32_t pages = entries->huge ? kBlockPages : static_cast<std::uint32_t>(count);
  MoveOutcome all;
  const int done = loop_.demote_range(first, pages, true, &all);
  for (std::size_t i = 0; i < count; ++i) {
    Entry& e = entries[i];
    const PageIndex p = core_.space.page_at(e.home);
    const auto there = [&] {
      const PageSpot spot = PageSpot::of(e.home, core_.space, &core_.table, core_.park_base);
      e.kind = spot.kind;
      return spot.kind == PageSpot::Kind::kInStore;
    };
    MoveOutcome why = all;
    if (!there() && done >= 0 && count > 1) {
      why = MoveOutcome{};
      (void)loop_.demote_range(p, 1, true, &why);
    }
    if (there()) {
      e.status = e.want;
    } else if (done < 0) {
      e.status = done;
    } else {
      e.status = e.kind == PageSpot::Kind::kMapped ? refusal(why) : place_of(e);
    }
  }
}

void HandMoves::move_between_nodes(Entry* entries, std::size_t count) {
  for (unsigned round = 1; round <= kRounds; ++round) {
    move_once(entries, count, round == kRounds);
    bool any = false;
    for (std::size_t i = 0; i < count; ++i) {
      Entry& e = entries[i];
      if (e.what != Entry::Do::kMove) continue;
      see_again(&e);
      const int now = place_of(e);
      const bool still = e.kind == PageSpot::Kind::kMapped && (now >= 0 || now == -ENODEV);
      if (!still || now == e.want) {
        e.what = Entry::Do::kNothing;
        e.status = e.kind == PageSpot::Kind::kInStore ? -EAGAIN : now;
      }
      any = any || e.what == Entry::Do::kMove;
    }
    if (!any) return;
    core_.nodes->look();
  }
}

// What has neither moved nor been refused for good stays kMove.
void HandMoves::move_once(Entry* entries, std::size_t count, bool last) {
  for (std::size_t i = 0; i < count;) {
    PageMove moves[HandBatch::kMost];
    int status[HandBatch::kMost];
    std::uint16_t which[HandBatch::kMost];
    std::size_t n = 0;
    for (std::uint64_t bytes = 0; i < count && bytes < kMovedAtOnce; ++i) {
      Entry& e = entries[i];
      if (e.what != Entry::Do::kMove) continue;
      const int target = core_.nodes->target(static_cast<unsigned>(e.want), e.node, e.huge);
      if (target < 0) {
        core_.stats.nodes_refused_full.add(e.huge ? kPagesPerBlock : 1);
        e.what = Entry::Do::kNothing;
        e.status = -ENOMEM;
        continue;
      }
      moves[n] = {e.at, static_cast<unsigned>(target), e.huge};
      which[n++] = static_cast<std::uint16_t>(i);
      bytes += moves[n - 1].bytes();
    }
    if (n == 0) continue;
    (void)count_moves(core_.stats, core_.stats.nodes_asked,
                      core_.nodes->own_mover().move(moves, n, status), false);
    BlockIndex located{UINT32_MAX};
    for (std::size_t k = 0; k < n; ++k) {
      Entry& e = entries[which[k]];
      const bool moved = status[k] >= 0;
      if (moved && e.huge) core_.stats.nodes_huge_moved.add();
      const bool several = core_.nodes->tier(static_cast<unsigned>(e.want)).nodes.count() > 1;
      e.status = moved ? e.want : absent(status[k]) ? -EAGAIN : status[k];
      if (moved || last || !(absent(status[k]) || (status[k] == -ENOMEM && several))) {
        e.what = Entry::Do::kNothing;
      }
      if (!moved || block_at(e.home) == located) continue;
      located = block_at(e.home);
      migration_.locate(located);
    }
    host_.between_steps();
  }
}

// A huge page that found no place whole. Parking one of its pages has it taken apart.
int HandMoves::move_in_pieces(std::uintptr_t page, int tier) {
  const BlockIndex b = block_at(page);
  Pageblock& block = core_.table.block(b);
  if (block.pinned() || !host_.ready_for_faults() || migration_.manage(b).failed()) return -ENOSPC;
  if (block.count(PageState::kParked) != 0) (void)migration_.unpark(b);
  const bool apart = core_.protection != nullptr
                         ? migration_.split_at_home(b)
                         : migration_.park(b, Parking::kAsked, {0, 1}).moved != 0;
  if (!apart) return -ENOSPC;
  core_.stats.huge_split.add();
  HandBatch part;
  part.goal = HandGoal::kTiers;
  part.count = kBlockPages;
  for (std::uint32_t i = 0; i < kBlockPages; ++i) {
    part.page[i] = core_.home({first_page(b).v + i});
    part.tier[i] = tier;
  }
  serve(part);
  return part.status[page_in_block(core_.space.page_at(page))];
}

int HandMoves::cool(PageIndex first, std::uint32_t pages) {
  return each_page(first, pages, HandGoal::kDown);
}

int HandMoves::warm(PageIndex first, std::uint32_t pages) {
  return core_.nodes == nullptr ? 0 : each_page(first, pages, HandGoal::kUp);
}

int HandMoves::each_page(PageIndex first, std::uint32_t pages, HandGoal goal) {
  HandBatch batch;
  batch.goal = goal;
  batch.within = {core_.home(first), std::size_t{pages} * kPageSize};
  std::size_t done = 0;
  // A pageblock at a time: a huge page that has moved is not to move on with the next batch.
  for (const std::uint32_t end = first.v + pages; first.v < end;
       first.v += static_cast<std::uint32_t>(batch.count)) {
    batch.count = std::min(end - first.v, kBlockPages - page_in_block(first));
    for (std::uint32_t i = 0; i < batch.count; ++i) batch.page[i] = core_.home({first.v + i});
    serve(batch);
    if (goal == HandGoal::kUp) {
      done += batch.moved;
    } else {
      done += static_cast<std::size_t>(std::count_if(batch.status, batch.status + batch.count,
                                                     [](int status) { return status > 0; }));
    }
  }
  return static_cast<int>(done);
}

int HandMoves::park_lazily(PageIndex first, std::uint32_t pages, unsigned tier) {
  if (core_.nodes == nullptr || core_.retired.load(std::memory_order_relaxed)) return 0;
  if (!host_.ready_for_faults()) return -ENOTSUP;
  std::uint32_t done = 0;
  each_part(first, pages, [&](BlockIndex b, PageSpan span) {
    if (b.v < core_.space.block_limit()) done += park_block(b, span, tier);
    host_.between_steps();
    return true;
  });
  return static_cast<int>(done);
}

// Marked first, parked second: whoever touches a page in between goes home with the mark.
std::uint32_t HandMoves::park_block(BlockIndex b, PageSpan span, unsigned tier) {
  Pageblock& block = core_.table.block(b);
  if (!core_.manageable(b) || block.pinned() || migration_.manage(b).failed() ||
      (block.huge.load(std::memory_order_relaxed) && span.n < kBlockPages)) {
    return 0;
  }
  migration_.recall(b, span);
  std::uintptr_t at[kPagesPerBlock];
  int node[kPagesPerBlock];
  for (std::uint32_t i = 0; i < span.n; ++i) {
    const PageIndex p{first_page(b).v + span.first + i};
    const bool parked = core_.table.peek(p).state() == PageState::kParked;
    at[i] = parked ? core_.park(p) : core_.home(p);
  }
  // Of a tier of several nodes it is the toucher's that counts.
  const NodeSet nodes = core_.nodes->tier(tier).nodes;
  if (nodes.count() == 1) core_.nodes->own_mover().where(at, span.n, node);
  bool marked[kPagesPerBlock] = {};
  for (std::uint32_t i = 0; i < span.n; ++i) {
    const PageIndex p{first_page(b).v + span.first + i};
    if (nodes.count() == 1 && core_.nodes->tier_of(node[i]) == tier) continue;
    PageWord was = core_.table.lock(p);
    marked[i] = was.state() == PageState::kResident || was.state() == PageState::kParked;
    core_.table.publish(p, was, marked[i] ? was.with_slot(LazyMark::wanted(tier).bits()) : was);
  }
  for (std::uint32_t i = 0; i < span.n; ++i) {
    std::uint32_t end = i;
    while (end < span.n && marked[end]) ++end;
    if (end > i) (void)migration_.park(b, Parking::kAsked, {span.first + i, end - i});
    i = end;
  }
  note_parked(block, core_.nodes->clock().mark(core_.ops.now()));
  std::uint32_t done = 0;
  for (std::uint32_t i = 0; i < span.n; ++i) {
    if (!marked[i]) continue;
    const PageIndex p{first_page(b).v + span.first + i};
    const PageWord was = core_.table.lock(p);
    // Would not be parked (pinned, shared with a child): no touch of it will be seen.
    const bool stays = was.state() == PageState::kResident && LazyMark{was.slot()}.is_waiting();
    if (was.state() == PageState::kParked) ++done;
    core_.table.publish(p, was, stays ? was.with_slot(0) : was);
  }
  return done;
}

void HandMoves::move_touched() {
  if (!core_.lazy_touched.exchange(false, std::memory_order_acquire)) return;
  core_.nodes->look();
  const std::uint32_t limit = core_.space.block_limit();
  for (std::uint32_t i = 0; (i = core_.space.next_block(i)) < limit; ++i) {
    if (!core_.table.block({i}).lazy_touched.exchange(false, std::memory_order_acquire)) continue;
    move_touched_in({i});
    host_.between_steps();
  }
}

void HandMoves::move_touched_in(BlockIndex b) {
  NodeTiers& nodes = *core_.nodes;
  PageMove moves[kPagesPerBlock];
  int status[kPagesPerBlock];
  std::size_t n = 0;
  bool whole = false;
  ScannedRun run{};
  for (std::uint32_t i = 0; i < kBlockPages; ++i) {
    const PageIndex p{first_page(b).v + i};
    const auto wanted = [](PageWord w) {
      const bool here = w.state() == PageState::kResident || w.state() == PageState::kParked;
      return here && LazyMark{w.slot()}.is_touched();
    };
    if (!wanted(core_.table.peek(p))) continue;
    const PageWord was = core_.table.lock(p);
    const bool ours = wanted(was);
    core_.table.publish(p, was, ours ? was.with_slot(0) : was);
    if (!ours || whole) continue;
    const std::uintptr_t at = was.state() == PageState::kParked ? core_.park(p) : core_.home(p);
    const bool present = is_present(at, &run);
    whole = present && run.huge;
    const LazyMark mark{was.slot()};
    const int target = nodes.target(mark.tier(), static_cast<int>(mark.node()), whole);
    if (target < 0) {
      core_.stats.nodes_refused_full.add(whole ? kPagesPerBlock : 1);
    } else if (present) {
      moves[n++] = {at, static_cast<unsigned>(target), whole};
    }
  }
  if (n == 0) return;
  (void)count_moves(core_.stats, core_.stats.nodes_asked, nodes.own_mover().move(moves, n, status),
                    whole);
  migration_.locate(b);
}

}  // namespace heaptier
