// What watching has found out about the small pages of a block, as their words keep it
// (node_moves.h).
//
// Thread rule: the background thread, while faults are served by others.
#pragma once

#include "policies/placed_block.h"
#include "runtime/core.h"

namespace heaptier {

// Whether the page lies on the first tier: by its word where the block is on several tiers, else by
// the block.
bool lies_above(const Pageblock& block, PageWord word);
// Says so in the word; locate() does.
void note_place(PageblockTable& table, PageIndex p, bool above);

// Fills in what has come of watching the block, but not the estimates. `soon`: see WatchedPart.
void take_stock(PageblockTable& table, BlockIndex b, Gap soon, WatchedPart* below,
                WatchedPart* above);

// Before the block is watched anew.
void forget_seen(PageblockTable& table, BlockIndex b);
// The same, but those below the first tier that were touched within this time are to be told from
// the others.
void mark_candidates(PageblockTable& table, BlockIndex b, Gap within);

// Whether the page was found worth promoting: touched soon, and if so asked once more when it was
// watched again.
bool found_hot(PageWord word, bool twice, Gap soon);

}  // namespace heaptier
