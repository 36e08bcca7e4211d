#include "runtime/pageblock_table.h"

#include "runtime/bootstrap_heap.h"

namespace heaptier {

Errno PageblockTable::init(std::uint32_t blocks) {
  // Zeroed memory is a valid table: every atomic starts as zero, window 0 counts as 1.
  blocks_ = static_cast<Pageblock*>(bootstrap::allocate(blocks * sizeof(Pageblock), kPageSize));
  if (blocks_ == nullptr) return {ENOMEM};
  size_ = blocks;
  return kOk;
}

std::atomic<std::uint64_t>* PageblockTable::make_words() {
  static_assert(sizeof(std::atomic<std::uint64_t>) == sizeof(std::uint64_t));
  return bootstrap::allocate_array<std::atomic<std::uint64_t>>(kPagesPerBlock);
}

void PageblockTable::adopt(BlockIndex b, std::atomic<std::uint64_t>* words) {
  Pageblock& block = blocks_[b.v];
  std::uint16_t found[kPageStates] = {};
  for (std::size_t i = 0; i < kPagesPerBlock; ++i) {
    ++found[static_cast<int>(PageWord{words[i].load(std::memory_order_relaxed)}.state())];
  }
  for (int s = 0; s < kPageStates; ++s) {
    block.counts[s].store(found[s], std::memory_order_relaxed);
    totals_[s].fetch_add(found[s], std::memory_order_relaxed);
  }
  managed_.fetch_add(1, std::memory_order_relaxed);
  block.words.store(words, std::memory_order_release);
}

namespace {

// What the first of joined words says for another one.
constexpr PageWord as_head_says(PageWord own, PageWord head) {
  return own.with_state(head.state()).with_stamp(head.stamp()).with_lock(head.locked());
}

bool try_take(std::atomic<std::uint64_t>& w, PageWord* out) {
  std::uint64_t bits = w.load(std::memory_order_relaxed);
  if (PageWord{bits}.locked()) return false;
  if (!w.compare_exchange_strong(bits, PageWord{bits}.with_lock(true).bits(),
                                 std::memory_order_acquire, std::memory_order_relaxed)) {
    return false;
  }
  *out = PageWord{bits};
  return true;
}

}  // namespace

PageWord PageblockTable::peek_joined(PageIndex p) const {
  const Pageblock& block = blocks_[block_of(p).v];
  for (;;) {
    const bool joined = block.compound.load(std::memory_order_acquire);
    const PageWord own{word(p).load(std::memory_order_acquire)};
    if (!joined) return own;
    const PageWord head{word(first_page(block_of(p))).load(std::memory_order_acquire)};
    // Taken apart meanwhile, they would be of different times.
    if (block.compound.load(std::memory_order_acquire)) return as_head_says(own, head);
  }
}

// The words but the first stay locked while they are joined: whoever has not seen that they are
// gets none of them.
void PageblockTable::spread(BlockIndex b, PageWord head) {
  Pageblock& block = blocks_[b.v];
  for (std::uint32_t i = 1; i < kPagesPerBlock; ++i) {
    std::atomic<std::uint64_t>& w = word({first_page(b).v + i});
    const PageWord own{w.load(std::memory_order_relaxed)};
    w.store(as_head_says(own, head).with_lock(true).bits(), std::memory_order_relaxed);
  }
  block.compound.store(false, std::memory_order_release);
}

void PageblockTable::release_from(BlockIndex b, std::uint32_t page) {
  for (; page < kPagesPerBlock; ++page) {
    std::atomic<std::uint64_t>& w = word({first_page(b).v + page});
    const PageWord own{w.load(std::memory_order_relaxed)};
    w.store(own.with_lock(false).bits(), std::memory_order_release);
  }
}

void PageblockTable::take_apart(BlockIndex b, PageWord* words) {
  const PageIndex first = first_page(b);
  spread(b, PageWord{word(first).load(std::memory_order_relaxed)});
  for (std::uint32_t i = 0; i < kPagesPerBlock; ++i) {
    words[i] = PageWord{word({first.v + i}).load(std::memory_order_relaxed)}.with_lock(false);
  }
}

// So that page p can be had by itself. False: somebody has all of them.
bool PageblockTable::split_words(PageIndex p) {
  const BlockIndex b = block_of(p);
  PageWord head;
  if (!try_lock_joined(b, &head)) {
    return !blocks_[b.v].compound.load(std::memory_order_acquire);
  }
  spread(b, head);
  release_from(b, 0);
  return true;
}

bool PageblockTable::try_lock_joined(BlockIndex b, PageWord* head) {
  const Pageblock& block = blocks_[b.v];
  if (!block.compound.load(std::memory_order_acquire)) return false;
  std::atomic<std::uint64_t>& w = word(first_page(b));
  if (!try_take(w, head)) return false;
  if (block.compound.load(std::memory_order_relaxed)) return true;
  w.store(head->bits(), std::memory_order_release);
  return false;
}

void PageblockTable::publish_joined(BlockIndex b, PageWord was, PageState state,
                                    std::uint32_t stamp) {
  // The owner may have changed what else is in it.
  std::atomic<std::uint64_t>& w = word(first_page(b));
  const PageWord now{w.load(std::memory_order_relaxed)};
  if (state != was.state()) count(blocks_[b.v], was.state(), state, kPagesPerBlock);
  w.store(now.with_state(state).with_stamp(stamp).with_lock(false).bits(),
          std::memory_order_release);
}

std::uint32_t PageblockTable::publish_and_join(BlockIndex b, const PageWord* was,
                                               const PageWord* now, std::uint32_t* refused) {
  const PageIndex first = first_page(b);
  const auto alike = [now, was](std::uint32_t i) {
    return now[i].state() == now[0].state() && was[i].state() == was[0].state() &&
           now[i].stamp() == now[0].stamp() && now[i].slot() == 0 && now[i].incompressible() == 0 &&
           !now[i].write_protected() && !was[i].resting();
  };
  bool all = now[0].state() == PageState::kParked && was[0].state() == PageState::kResident;
  for (std::uint32_t i = 0; all && i < kPagesPerBlock; ++i) all = alike(i);
  if (!all) return publish_all(first, was, now, kPagesPerBlock, refused);
  *refused = 0;
  Pageblock& block = blocks_[b.v];
  count(block, was[0].state(), now[0].state(), kPagesPerBlock);
  for (std::uint32_t i = 0; i < kPagesPerBlock; ++i) {
    word({first.v + i}).store(now[i].with_lock(true).bits(), std::memory_order_relaxed);
  }
  block.compound.store(true, std::memory_order_release);
  word(first).store(now[0].with_lock(false).bits(), std::memory_order_release);
  return kPagesPerBlock;
}

bool PageblockTable::try_lock(PageIndex p, PageWord* out) {
  const BlockIndex b = block_of(p);
  const Pageblock& block = blocks_[b.v];
  if (block.compound.load(std::memory_order_acquire) && !split_words(p)) return false;
  if (!try_take(word(p), out)) return false;
  // Joined a moment ago: then this is the first word, and all of them are ours.
  if (!block.compound.load(std::memory_order_relaxed)) return true;
  spread(b, *out);
  release_from(b, 1);
  return true;
}

PageWord PageblockTable::lock(PageIndex p) {
  PageWord got;
  Backoff backoff;
  while (!try_lock(p, &got)) backoff.pause();
  return got;
}

void PageblockTable::count(Pageblock& block, PageState from, PageState to, std::uint16_t pages) {
  block.counts[static_cast<int>(from)].fetch_sub(pages, std::memory_order_relaxed);
  block.counts[static_cast<int>(to)].fetch_add(pages, std::memory_order_relaxed);
  totals_[static_cast<int>(from)].fetch_sub(pages, std::memory_order_relaxed);
  totals_[static_cast<int>(to)].fetch_add(pages, std::memory_order_relaxed);
}

bool PageblockTable::publish(PageIndex p, PageWord was, PageWord now) {
  std::atomic<std::uint64_t>& w = word(p);
  const PageState from = was.state();
  const PageState to = now.state();
  if (from != to) {
    if (!can_go(from, to)) {
      refused_.fetch_add(1, std::memory_order_relaxed);
      w.store(was.with_lock(false).bits(), std::memory_order_release);
      return false;
    }
    count(blocks_[block_of(p).v], from, to, 1);
  }
  if (was.resting() != now.resting()) {
    const int change = now.resting() ? 1 : -1;
    blocks_[block_of(p).v].resting.fetch_add(static_cast<std::uint16_t>(change),
                                             std::memory_order_relaxed);
    resting_.fetch_add(static_cast<std::uint64_t>(change), std::memory_order_relaxed);
  }
  w.store(now.with_lock(false).bits(), std::memory_order_release);
  return true;
}

std::uint32_t PageblockTable::publish_all(PageIndex first, const PageWord* was, const PageWord* now,
                                          std::uint32_t n, std::uint32_t* refused) {
  std::uint32_t moved = 0;
  *refused = 0;
  for (std::uint32_t i = 0; i < n;) {
    const PageState from = was[i].state();
    const PageState to = now[i].state();
    const auto alike = [&](std::uint32_t k) {
      return was[k].state() == from && now[k].state() == to && !was[k].resting() &&
             !now[k].resting();
    };
    std::uint32_t end = i;
    while (end < n && alike(end)) ++end;
    if (end - i < 2 || from == to || !can_go(from, to)) {
      const bool legal = publish({first.v + i}, was[i], now[i]);
      if (!legal) ++*refused;
      if (legal && from != to) ++moved;
      ++i;
      continue;
    }
    // First the counts, then the words: whoever takes a page next finds it counted.
    count(blocks_[block_of(first).v], from, to, static_cast<std::uint16_t>(end - i));
    moved += end - i;
    for (; i < end; ++i) {
      word({first.v + i}).store(now[i].with_lock(false).bits(), std::memory_order_release);
    }
  }
  return moved;
}

}  // namespace heaptier
