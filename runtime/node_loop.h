// The background thread's work where the chain has several tiers of memory nodes: sees where the
// heap lies, lets the placement policy decide, and does it. Stands in the tiering loop's place.
//
// Thread rule: one thread. Faults are served by others meanwhile.
#pragma once

#include <algorithm>
#include <cstdint>

#include "policies/placement.h"
#include "runtime/config/options.h"
#include "runtime/core.h"
#include "runtime/loop_host.h"
#include "runtime/migration.h"
#include "runtime/sampling/sampler.h"

namespace heaptier {

class NodeLoop final : private HeatSink {
 public:
  static constexpr std::size_t kMostSteps = 64;
  static constexpr std::size_t kMostWatches = 64;  // in a round
  // Huge pages watched at once. While one touch is served the others' clocks run on: of many that
  // are parked together the last seems cold however hot it is.
  static constexpr std::size_t kWatchedAtOnce = 2;

  NodeLoop(Core& core, Migration& migration, const Options& options, LoopHost& host)
      : core_(core), migration_(migration), options_(options), host_(host) {}

  // Memory for views and plans. ENOMEM.
  Errno init();
  // From now on it tells what is hot, as long as it tells; and then the pages are asked again.
  void use_sampler(Sampler& sampler) { sampler_ = &sampler; }
  // What a sampler is to look at. Until the next round.
  SampledBlocks blocks_in_use();
  // One round.
  void tick(Nanos now);
  // Another loop has the word: only sees where the heap lies, for the books.
  void keep_books(Nanos now);
  // It had it until now: what it has left parked comes home, and is watched anew.
  void take_over(Nanos now);
  Nanos pause_length() const { return pause_; }
  // Pages below the first tier, by the last look. Any thread.
  std::uint64_t slow_pages() const { return slow_pages_.load(std::memory_order_relaxed); }
  // Pages on a tier, by the last look. The background thread.
  std::uint64_t pages_on(unsigned t) const {
    return t == 0 ? present_pages_ - std::min(slow_pages(), present_pages_) : used_[t];
  }
  // What the first tier may hold. Any thread.
  std::uint64_t fast_bytes() const { return fast_bytes_.load(std::memory_order_relaxed); }

 private:
  // What is known of a block beside what the policy sees.
  struct Notes {
    bool seen = false;           // looked up, whatever came of it
    bool located = false;        // and its place is ours to choose
    std::uint16_t resident = 0;  // while it is not managed: by the last scan
  };

  void told(std::uintptr_t start, std::uintptr_t end, std::uint32_t looks, std::uint32_t used,
            Nanos each) override;
  void used(std::uintptr_t address, std::uint64_t times) override;
  void counted(Nanos now) override;
  void see_whether_told();
  bool take_charge(BlockIndex b);
  void look(Nanos now);
  void look_at(BlockIndex b, Nanos now);
  void find_places(Nanos now);
  void find_some_places(std::uint32_t* hand, bool unseen, Nanos end);
  void find_place(BlockIndex b);
  void measure_tiers();
  void take_stock(PlacedBlock& v, Nanos now);
  bool carry_out_all(const PlacementPlan& plan, bool home, bool* any);
  bool carry_out(const PlaceStep& step);
  bool watch(const PlaceStep& step);
  std::uint32_t park_for(const PlaceStep& step);
  void note_cost(Nanos began, std::uint32_t pages);
  bool demote(const PlaceStep& step);
  bool promote(const PlaceStep& step);
  bool cross(BlockIndex b);
  bool store(BlockIndex b);
  void begin_watch(bool more);
  PlacementBudget budget_for(Nanos since) const;

  Core& core_;
  Migration& migration_;
  const Options& options_;
  LoopHost& host_;
  PlacementPolicy policy_;
  Sampler* sampler_ = nullptr;

  UseShare uses_{};  // of all blocks, not yet counted()
  Nanos counted_at_{};

  PlacedBlock* blocks_ = nullptr;
  Notes* notes_ = nullptr;
  PlaceStep* steps_ = nullptr;
  std::uint64_t* in_use_ = nullptr;  // a bit for each block
  PlacementView view_{};
  BlockIndex parked_[kWatchedAtOnce] = {};
  std::size_t parked_count_ = 0;
  Nanos slept_{};  // of this round
  Nanos last_{};
  Nanos pause_ = millis(100);
  Nanos last_rooms_{};
  bool moved_ = true;           // since the rooms were looked at
  bool watching_ = false;       // small pages: the next round is to be soon
  std::int64_t move_cost_ = 0;  // of a page, ns; 0: not known
  std::uint32_t unseen_ = 0;    // blocks that nobody has looked up, by the last look
  std::uint32_t hand_ = 0;      // the next block whose place is looked up
  std::uint32_t new_hand_ = 0;  // and of those that never were
  std::uint32_t probes_ = 0;    // counts, so that each looks elsewhere
  std::uint64_t present_pages_ = 0;
  std::uint64_t used_[kMostPlaces] = {};  // pages that we have on each tier but the first
  std::atomic<std::uint64_t> slow_pages_{0};
  std::atomic<std::uint64_t> fast_bytes_{0};
};

}  // namespace heaptier
