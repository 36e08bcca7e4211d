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

bool PageblockTable::try_lock(PageIndex p, PageWord* out) {
  std::atomic<std::uint64_t>& w = word(p);
  std::uint64_t bits = w.load(std::memory_order_relaxed);
  if (PageWord{bits}.locked()) return false;
  if (!w.compare_exchange_strong(bits, PageWord{bits}.with_lock(true).bits(),
                                 std::memory_order_acquire, std::memory_order_relaxed)) {
    return false;
  }
  *out = PageWord{bits};
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
