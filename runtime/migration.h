// The doer: carries out what a policy planned for one pageblock. Every function leaves each page
// either where it was or where it was to go, with the table saying so, whatever call fails in
// between.
//
// Thread rule: park, park_split, store, recall, unpark: any thread, each with a Worker of its own;
// they touch no managed memory. The others read it or decide what is managed: the background thread
// alone. Faults are served meanwhile.
#pragma once

#include <algorithm>
#include <cstdint>

#include "policies/placed_block.h"
#include "runtime/core.h"
#include "runtime/discard.h"

namespace heaptier {

struct MovedPages;   // node_moves.h
struct PagesOnMove;  // the same

// What became of a pageblock's pages. Named, so that policies and statistics need not guess.
struct MoveOutcome {
  std::uint32_t moved = 0;  // parked, stored or copied, as asked
  std::uint32_t busy = 0;   // pinned or shared with a forked child
  std::uint32_t incompressible = 0;
  std::uint32_t raced = 0;  // touched, freed or taken by somebody else
  bool store_full = false;
  bool failed = false;  // a call failed in a way that says: leave this pageblock alone
  bool gained() const { return moved > 0; }
  void add(const MoveOutcome& part) {
    moved += part.moved;
    busy += part.busy;
    incompressible += part.incompressible;
    raced += part.raced;
    store_full = store_full || part.store_full;
    failed = failed || part.failed;
  }
};

// Part of a pageblock, in pages.
struct PageSpan {
  std::uint32_t first = 0;
  std::uint32_t n = static_cast<std::uint32_t>(kPagesPerBlock);
};

// Calls part(block, span) for the part of each pageblock that the pages lie in, until it answers
// false.
template <class Part>
void each_part(PageIndex first, std::uint32_t pages, Part part) {
  while (pages > 0) {
    PageSpan span{page_in_block(first), 0};
    span.n = std::min(pages, static_cast<std::uint32_t>(kPagesPerBlock) - span.first);
    if (!part(block_of(first), span)) return;
    first.v += span.n;
    pages -= span.n;
  }
}

// Which resident pages park() takes.
enum class Parking : std::uint8_t {
  kAll,         // every one: the hint
  kAsked,       // every one, also those that rest because they would not shrink: not for a store
  kSpared,      // those without credits; the others pay one
  kWritten,     // of these, only those that are mapped writable: the rest can be copied out more
                // cheaply
  kBelow,       // those that lie below the first tier of nodes,
  kAbove,       // or on it,
  kCandidates,  // or that watching has marked (page_heat.h)
};

// Which resident pages copy_out() takes, credits permitting.
enum class CopyOut : std::uint8_t {
  kAll,
  kProtected,  // those that no write has reached since they were mapped: neither protection nor
               // grace time needed
};

// Which small pages demote() takes.
enum class Cold : std::uint8_t {
  kParked,  // those that are parked: nobody has touched them since
  kTold,    // those at home, too: somebody else knows that they are cold
};

class Migration {
 public:
  Migration(Core& core, Worker& worker) : core_(core), worker_(worker) {}

  // Registers the pageblock with userfaultfd and takes stock of its pages, where they are hidden
  // each time anew. Idempotent.
  Errno manage(BlockIndex b);
  // Moves resident pages of the block to the park: a huge page in one piece, small ones in runs.
  MoveOutcome park(BlockIndex b, Parking how, PageSpan span = {});
  // The same, and a huge page is taken apart there: a touch brings home (copies) one page, not all
  // of them.
  MoveOutcome park_split(BlockIndex b);
  // Parked pages go to the store and their frames to the kernel, at most `max` pages.
  MoveOutcome store(BlockIndex b, std::uint32_t max, Evictor who, PageSpan span = {});
  // Clean pages of the part give up their copies, so that they can be parked.
  void recall(BlockIndex b, PageSpan span);
  // Protects and copies up to kStagingPages resident pages without credits, from page `*next` on:
  // they become clean and leave later by discard.h. *next: where to go on; kPagesPerBlock at the
  // end.
  MoveOutcome copy_out(BlockIndex b, std::uint32_t* next, CopyOut which);
  // Takes a huge page apart that is at home, without touching it. False: the kernel would not.
  bool split_at_home(BlockIndex b);
  // Everything parked comes home; kToRest: because it would not shrink (rest.h); kNotLazy: but what
  // is to move at its next touch, of small pages (lazy_mark.h).
  enum class Unpark : std::uint8_t { kAll, kToRest, kNotLazy };
  MoveOutcome unpark(BlockIndex b, Unpark how = Unpark::kAll);
  // Pages that have rested long enough may be tried again; at most *most, which is counted down.
  void end_rests(BlockIndex b, std::uint32_t* most);
  // Sees of which tier of nodes the block's pages are (Pageblock::tier, slow), by some of them; if
  // small ones lie on the first tier and below it, by all of them. Several tiers only.
  void locate(BlockIndex b);
  // Takes what is wanted to the first tier, to the node of who touched it if that has room. `soon`:
  // see page_heat.h.
  MoveOutcome promote(BlockIndex b, Wanted what, Gap soon);
  // Takes what is cold to a node of the tier: of small pages those that are named, a huge page
  // whole, wherever it is. What was parked stays so: its next touch is seen.
  MoveOutcome demote(BlockIndex b, unsigned tier, Cold which = Cold::kParked);
  // Takes what lies on the first tier to that node of it where its touches come from.
  MoveOutcome balance(BlockIndex b);
  // Makes small pages that are all at home one huge page, on the node of most of them.
  MoveOutcome gather(BlockIndex b);
  // Makes a dense block that is not registered one huge page.
  MoveOutcome collapse(BlockIndex b);
  // Takes stock of a managed block anew, where first touches do not come to us (protection.h). Not
  // while some of it is parked.
  void look_again(BlockIndex b);
  // Counts the present pages of an unmanaged block.
  Errno scan(BlockIndex b, std::uint16_t* present, bool* huge);
  Worker& worker() { return worker_; }
  // Gives back frames that were left in the park by copies, once nothing else is parked there.
  void clear_residue(BlockIndex b);

 private:
  struct Places {
    std::uint32_t every = 1;  // every so manieth page was looked at
    std::uint32_t on[kMaxTiers] = {};
    std::uint32_t found = 0;
    std::uint8_t most_on = 0;  // the node
  };

  // Of a block whose pages are hidden.
  struct Hidden {
    bool any = false;
    WatchClock::Mark since;
  };

  Hidden show_for_move(BlockIndex b);
  void hide_after_move(BlockIndex b, const Hidden& hidden);
  Errno manage_again(BlockIndex b);
  Places find_places(BlockIndex b, std::uint32_t every, bool note);
  MovedPages move_to(int node, PagesOnMove* list, bool huge, Counter& flow);
  void note_arrived(BlockIndex b, const PagesOnMove& list, unsigned tier, const MovedPages& pages);
  int leave_those_below(unsigned tier, PagesOnMove* list);
  bool still_huge(BlockIndex b);
  Errno enlist(BlockIndex b);
  void delist(BlockIndex b);
  bool make_a_part_cold(BlockIndex b);
  template <class Found>
  Errno each_present(BlockIndex b, bool* huge, Found found);
  bool parts_have_to_be_small() const;
  void know_parts(BlockIndex b, bool empty);
  bool make_parts_small(BlockIndex b, std::uint32_t pages, MoveOutcome* outcome);
  bool has_to_go_in_parts();
  bool prepare_whole(BlockIndex b);
  bool has_moved(PageIndex p);
  MoveOutcome park_huge(BlockIndex b);
  PageWord at_home(PageWord was, Unpark how) const;
  bool unpark_huge(BlockIndex b, Unpark how, MoveOutcome* outcome);
  MoveOutcome park_refused(BlockIndex b, RunResult r, const PageWord* words, std::uint32_t stamp);
  bool hopeless_huge(BlockIndex b, MoveOutcome* outcome);
  void release_residue(BlockIndex b);
  void move_runs(BlockIndex b, const PageWord* words, const bool* held, MoveOutcome* outcome);
  void bring_some_home(PageIndex first, const PageWord* was, const PageWord* now, std::uint32_t n,
                       MoveOutcome* outcome);
  void bring_home(PageIndex p, PageWord was, PageWord now, Counter& flow, MoveOutcome* outcome);

  Core& core_;
  Worker& worker_;
};

}  // namespace heaptier
