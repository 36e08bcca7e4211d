// Moving by hand: what the application asks for by heaptier_move, heaptier_move_lazy and
// heaptier_advise, where it is more than parking and storing a range.
//
// Thread rule: the background thread alone. Of the application's memory it touches nothing, its
// arrays included: who asks copies them into a HandBatch, a part at a time (hand_calls.cc).
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/config/options.h"
#include "runtime/core.h"
#include "runtime/loop_host.h"
#include "runtime/migration.h"
#include "runtime/tiering_loop.h"

namespace heaptier {

enum class HandGoal : std::uint8_t {
  kLook,   // only say where they are
  kTiers,  // each to the tier beside it
  kDown,   // each to the next tier below its own, if there is one
  kUp,     // all to the first tier
};

// Some pages and what is to become of them. In memory that is not managed.
struct HandBatch {
  static constexpr std::size_t kMost = kPagesPerBlock;

  std::size_t count = 0;
  HandGoal goal = HandGoal::kLook;
  // kTiers: a huge page for which the target has pages but no free block is taken apart.
  bool may_split = false;
  // kDown: huge pages that reach beyond this stay.
  AddressRange within{};
  std::uintptr_t page[kMost];  // any address within
  int tier[kMost];             // kTiers: by its number in the chain
  // Out: the tier where the page now is, or -errno as heaptier_move lists them.
  int status[kMost];
  std::size_t moved = 0;  // out: pages that are in another tier than before
};

class HandMoves {
 public:
  HandMoves(Core& core, Migration& migration, TieringLoop& loop, LoopHost& host,
            const TierChain& chain)
      : core_(core), migration_(migration), loop_(loop), host_(host), chain_(chain) {}

  // In order; the same page twice as if in two calls. To a node: what lies in a store is -EAGAIN,
  // for the one who asked to fetch (a fault is no business of this thread).
  void serve(HandBatch& batch);
  // The pages go one tier down, or up to the first. Returns how many are below the first tier
  // afterwards, or how many came up.
  int cool(PageIndex first, std::uint32_t pages);
  int warm(PageIndex first, std::uint32_t pages);
  // Parks what is not on the tier and marks it (lazy_mark.h). Returns pages parked with the mark,
  // or -ENOTSUP.
  int park_lazily(PageIndex first, std::uint32_t pages, unsigned tier);
  // Moves what was marked and has been touched since.
  void move_touched();

 private:
  struct Entry;

  std::size_t gather(const HandBatch& batch, std::size_t from, Entry* entries);
  std::size_t serve_some(HandBatch& batch, std::size_t from);
  void see(std::uintptr_t page, ScannedRun* run, Entry* e);
  void see_again(Entry* e);
  void show(std::uintptr_t page);
  void find(Entry* entries, std::size_t count);
  void look_up(Entry* entries, std::size_t count);
  int place_of(const Entry& e) const;
  int goal_of(const HandBatch& batch, std::size_t i, const Entry& e) const;
  void decide(HandGoal goal, Entry* e);
  void store(Entry* entries, std::size_t count);
  void store_pages(Entry* entries, std::size_t count);
  void move_between_nodes(Entry* entries, std::size_t count);
  void move_once(Entry* entries, std::size_t count, bool last);
  int move_in_pieces(std::uintptr_t page, int tier);
  int each_page(PageIndex first, std::uint32_t pages, HandGoal goal);
  std::uint32_t park_block(BlockIndex b, PageSpan span, unsigned tier);
  void move_touched_in(BlockIndex b);
  BlockIndex block_at(std::uintptr_t home) const { return block_of(core_.space.page_at(home)); }
  bool is_store(int tier) const {
    return chain_.tiers[static_cast<unsigned>(tier)].kind == TierKind::kZpool;
  }
  bool is_present(std::uintptr_t at, ScannedRun* run);

  Core& core_;
  Migration& migration_;
  TieringLoop& loop_;
  LoopHost& host_;
  const TierChain& chain_;
};

}  // namespace heaptier
