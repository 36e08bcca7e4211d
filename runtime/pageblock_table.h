// What heaptier knows of every pageblock, and the words of its pages. The one place where a page
// changes state: publish() checks the move against can_go(), keeps the counts of the pageblock and
// of the whole heap, and unlocks. So the counts always add up to what the words say.
//
// The words of a huge page that goes to and fro as a whole are joined, like the kernel's compound
// pages: the first word's lock is the lock of all, and says for all whether they are at home or in
// the park. So a hint of a huge page changes two words instead of a thousand. Whoever wants a
// single page of it takes the words apart by locking it, and need not know.
//
// Thread rule: words by their lock bit; counts are atomic. The gate of a pageblock serialises
// operations on it as a whole (parking, unparking a huge page).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "policies/gap.h"
#include "runtime/base/errno.h"
#include "runtime/base/spinlock.h"
#include "runtime/base/units.h"
#include "runtime/pageblock.h"

namespace heaptier {

struct Pageblock {
  // 512 words, or null while the block is not managed. Published last, never taken back.
  std::atomic<std::atomic<std::uint64_t>*> words{nullptr};
  SpinLock gate;
  std::atomic<bool> huge{false};      // its pages are one huge page, at home or in the park
  std::atomic<bool> compound{false};  // its words are joined (PageblockTable::publish_joined)
  // Its pages are known to be small ones, and may be moved one by one (large_pages.h).
  std::atomic<bool> only_small{false};
  // Where it would be parked lies what is left of small pages that were: a page table, which a huge
  // page cannot be put in the place of.
  std::atomic<bool> park_in_parts{false};
  std::atomic<bool> park_unusable{false};  // making it anew has failed half-way
  std::atomic<bool> registered{false};     // faults come to us
  std::atomic<bool> residue{false};        // the park holds frames of pages that were copied home
  std::atomic<std::uint16_t> counts[kPageStates] = {};  // pages in each state (managed blocks)
  std::atomic<std::uint16_t> touches{0};   // hint faults and fetches since the last tick
  std::atomic<std::uint16_t> expected{0};  // page that continues a sequential run of faults
  std::atomic<std::uint8_t> window{1};     // pages to bring with the next such fault
  std::atomic<std::uint16_t> resting{0};   // pages that would not shrink and rest (rest.h)
  // Where there are several node tiers (node_tiers.h): most of its pages' tier, the pages below the
  // first tier, when it was last parked (ns), and how long it goes untouched as one huge page: as
  // estimated from so many measurements, and the last of them.
  std::atomic<std::uint8_t> tier{0};
  std::atomic<Gap> gap{kUnknownGap};
  std::atomic<std::uint8_t> gaps_measured{0};
  std::atomic<Gap> last_gap{kUnknownGap};
  std::atomic<std::uint16_t> slow{0};
  std::atomic<std::int64_t> parked_at{0};
  std::atomic<std::uint32_t> parked_faults{0};  // of WatchClock
  // The node of most of its pages, as far as we know; that of the last thread to touch a parked
  // page of it; and, since the last tick, touches from there if it is another one, and touches from
  // its own node (policies/balance.h). Of a huge page: how many touches were
  // seen since its use changed, and how many of them fell on a page that had been seen before
  // (density.h).
  std::atomic<std::uint8_t> node{0};
  std::atomic<std::uint8_t> hot_node{0};
  std::atomic<std::uint8_t> far_touches{0};
  std::atomic<std::uint8_t> near_touches{0};
  std::atomic<std::uint8_t> samples{0};
  std::atomic<std::uint8_t> repeats{0};
  // Some of its pages were to move at their next touch (lazy_mark.h), and that has come.
  std::atomic<bool> lazy_touched{false};
  // How often it was asked to stay: heaptier_advise, stacks, robust mutexes. All gone when the
  // block is freed.
  std::atomic<std::uint32_t> pins{0};
  // Its pages lie where interleaving has them: heaptier_advise. Gone when the block is freed.
  std::atomic<bool> interleaved{false};
  // The application has changed a mapping in it (mprotect, mlock, mremap) and not changed it back.
  std::atomic<bool> surrendered{false};

  // Managed, and its faults come to us: what demotion may work on. A block that changes hands
  // between heaps of different fault modes is managed, and all untouched, but not registered for a
  // while.
  bool served() const {
    return words.load(std::memory_order_acquire) != nullptr &&
           registered.load(std::memory_order_acquire);
  }
  std::uint32_t count(PageState s) const {
    return counts[static_cast<int>(s)].load(std::memory_order_relaxed);
  }
  bool pinned() const {
    return pins.load(std::memory_order_relaxed) != 0 || surrendered.load(std::memory_order_acquire);
  }
  // The kernel has said whether it is one huge page. What else is in it is not known then.
  void found(bool one_huge_page) {
    huge.store(one_huge_page);
    only_small.store(false, std::memory_order_relaxed);
  }
  // Tiering leaves it alone: it is pinned, or the place of its pages is settled otherwise.
  bool stays() const { return pinned() || interleaved.load(std::memory_order_relaxed); }
  void forget_pins() {
    interleaved.store(false, std::memory_order_relaxed);
    pins.store(0, std::memory_order_relaxed);
    surrendered.store(false, std::memory_order_relaxed);
  }
};

class PageblockTable {
 public:
  constexpr PageblockTable() = default;
  // Room for `blocks` pageblocks; memory is only used for those that are looked at.
  Errno init(std::uint32_t blocks);

  Pageblock& block(BlockIndex b) { return blocks_[b.v]; }
  const Pageblock& block(BlockIndex b) const { return blocks_[b.v]; }
  std::uint32_t size() const { return size_; }

  // Memory for a block's words, all kUntouched, not yet published. nullptr: out of memory.
  std::atomic<std::uint64_t>* make_words();
  // From now on the block is managed.
  void adopt(BlockIndex b, std::atomic<std::uint64_t>* words);

  bool managed(PageIndex p) const {
    return blocks_[block_of(p).v].words.load(std::memory_order_acquire) != nullptr;
  }
  // The word as it is now, locked or not. The page must be managed.
  PageWord peek(PageIndex p) const {
    const bool joined = blocks_[block_of(p).v].compound.load(std::memory_order_acquire);
    return joined ? peek_joined(p) : PageWord{word(p).load(std::memory_order_acquire)};
  }
  // Takes the page; *out is its word (with the lock bit off). False: somebody has it.
  bool try_lock(PageIndex p, PageWord* out);
  // Takes the page, waiting for its owner.
  PageWord lock(PageIndex p);
  // Ends ownership: `was` as lock() gave it, `now` the new word. An illegal move is refused: the
  // old word stays, refused() counts it, and false is returned.
  bool publish(PageIndex p, PageWord was, PageWord now);
  // The same for `n` pages of one pageblock from `first` on, counted together: of a huge page four
  // counters are changed, not thousands of times. Returns how many pages moved; `refused`: how many
  // moves were illegal.
  std::uint32_t publish_all(PageIndex first, const PageWord* was, const PageWord* now,
                            std::uint32_t n, std::uint32_t* refused);
  // Takes all pages of a block whose words are joined; *head is the first word, whose state and
  // stamp are those of all. False: they are not, or somebody has them.
  bool try_lock_joined(BlockIndex b, PageWord* head);
  // Ends that ownership, with another state and stamp for all or none. Only between at home and in
  // the park, and only while none of the pages rests.
  void publish_joined(BlockIndex b, PageWord was, PageState state, std::uint32_t stamp);
  // Makes it ownership of each single page: words[i] as try_lock() would have given it.
  void take_apart(BlockIndex b, PageWord* words);
  // publish_all() of a whole block, all of whose words are owned. They are joined from then on if
  // nothing but what they are joined for is in them.
  std::uint32_t publish_and_join(BlockIndex b, const PageWord* was, const PageWord* now,
                                 std::uint32_t* refused);
  // What is known of the heat of one page of joined words that are owned.
  template <class Change>
  void change_joined(PageIndex p, Change change) {
    std::atomic<std::uint64_t>& w = word(p);
    w.store(change(PageWord{w.load(std::memory_order_relaxed)}).bits(), std::memory_order_relaxed);
  }
  // Ends ownership without change.
  void unlock(PageIndex p, PageWord was) { publish(p, was, was); }
  // While words are not adopted yet: sets a page's state without locks.
  void seed(std::atomic<std::uint64_t>* words, std::uint32_t page, PageState state) {
    words[page].store(PageWord{}.with_state(state).bits(), std::memory_order_relaxed);
  }

  // Pages of managed blocks in each state.
  std::uint64_t total(PageState s) const {
    return totals_[static_cast<int>(s)].load(std::memory_order_relaxed);
  }
  std::uint64_t present_pages() const {
    return total(PageState::kResident) + total(PageState::kClean) + total(PageState::kParked);
  }
  // Of the resident ones, those that rest because they would not shrink.
  std::uint64_t resting_pages() const { return resting_.load(std::memory_order_relaxed); }
  std::uint64_t refused() const { return refused_.load(std::memory_order_relaxed); }
  std::uint32_t managed_blocks() const { return managed_.load(std::memory_order_relaxed); }

 private:
  PageWord peek_joined(PageIndex p) const;
  bool split_words(PageIndex p);
  void spread(BlockIndex b, PageWord head);
  void release_from(BlockIndex b, std::uint32_t page);
  void count(Pageblock& block, PageState from, PageState to, std::uint16_t pages);
  std::atomic<std::uint64_t>& word(PageIndex p) const {
    return blocks_[block_of(p).v].words.load(std::memory_order_acquire)[page_in_block(p)];
  }
  Pageblock* blocks_ = nullptr;
  std::uint32_t size_ = 0;
  std::atomic<std::uint32_t> managed_{0};
  std::atomic<std::uint64_t> refused_{0};
  std::atomic<std::uint64_t> resting_{0};
  alignas(64) std::atomic<std::uint64_t> totals_[kPageStates] = {};
};

}  // namespace heaptier
