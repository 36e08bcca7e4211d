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
    Pageblock& block = blocks_[block_of(p).v];
    block.counts[static_cast<int>(from)].fetch_sub(1, std::memory_order_relaxed);
    block.counts[static_cast<int>(to)].fetch_add(1, std::memory_order_relaxed);
    totals_[static_cast<int>(from)].fetch_sub(1, std::memory_order_relaxed);
    totals_[static_cast<int>(to)].fetch_add(1, std::memory_order_relaxed);
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

}  // namespace heaptier
