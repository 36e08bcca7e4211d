#include "runtime/page_heat.h"

#include "runtime/lazy_mark.h"
#include "runtime/node_moves.h"

namespace heaptier {
namespace {

template <class Change>
void change_words(PageblockTable& table, BlockIndex b, Change change) {
  if (!table.managed(first_page(b))) return;
  for (std::uint32_t i = 0; i < kPagesPerBlock; ++i) {
    const PageIndex p{first_page(b).v + i};
    PageWord word = table.peek(p);
    // Who has a page at this moment marks it himself.
    if (change(word).bits() == word.bits() || !table.try_lock(p, &word)) continue;
    table.publish(p, word, change(word));
  }
}

}  // namespace

bool found_hot(PageWord word, bool twice, Gap soon) {
  return touched(word) && (!twice || seen(word) == Seen::kCandidateAgain) &&
         word.estimate() <= soon;
}

bool lies_above(const Pageblock& block, PageWord word) {
  return block.slow.load(std::memory_order_relaxed) == 0 || on_first_tier(word);
}

void note_place(PageblockTable& table, PageIndex p, bool above) {
  PageWord word = table.peek(p);
  if (on_first_tier(word) == above || !table.try_lock(p, &word)) return;
  table.publish(p, word, with_first_tier(word, above));
}

void take_stock(PageblockTable& table, BlockIndex b, Gap soon, WatchedPart* below,
                WatchedPart* above) {
  for (WatchedPart* part : {below, above}) {
    part->parked = part->touched = part->soon = 0;
    part->away = {};
  }
  if (!table.managed(first_page(b))) return;
  const Pageblock& block = table.block(b);
  for (std::uint32_t i = 0; i < kPagesPerBlock; ++i) {
    const PageWord word = table.peek({first_page(b).v + i});
    WatchedPart& part = lies_above(block, word) ? *above : *below;
    const bool lazy = LazyMark{word.slot()}.is_waiting();  // parked for another reason
    if (word.state() == PageState::kParked && !lazy) ++part.parked;
    if (!touched(word)) continue;
    ++part.touched;
    part.away = part.away + length_of(static_cast<Gap>(word.estimate()));
    if (found_hot(word, false, soon)) ++part.soon;
  }
}

void forget_seen(PageblockTable& table, BlockIndex b) {
  change_words(table, b, [](PageWord w) { return with_seen(w, Seen::kNo); });
}

void mark_candidates(PageblockTable& table, BlockIndex b, Gap within) {
  const Pageblock& block = table.block(b);
  change_words(table, b, [&block, within](PageWord w) {
    const bool may_be_hot = found_hot(w, false, within) && !lies_above(block, w);
    return with_seen(w, may_be_hot ? Seen::kCandidate : Seen::kNo);
  });
}

}  // namespace heaptier
