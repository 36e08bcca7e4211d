// The background thread's work: sees how the heap lies, lets the policy decide, and does it. Every
// part of it is a method that a test can call by itself, with its own clock.
//
// Thread rule: one thread. Faults are served meanwhile by others.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>

#include "policies/policy.h"
#include "runtime/budget.h"
#include "runtime/config/options.h"
#include "runtime/core.h"
#include "runtime/loop_host.h"
#include "runtime/migration.h"

namespace heaptier {

class TieringLoop {
 public:
  static constexpr std::size_t kMaxSteps = 512;

  TieringLoop(Core& core, Migration& migration, Policy& policy, const Options& options,
              LoopHost& host)
      : core_(core),
        migration_(migration),
        policy_(policy),
        options_(options),
        host_(host),
        budget_(options.fast) {}

  // Memory for views and plans. ENOMEM.
  Errno init();

  // One round. `situation` with the machine's side filled in; the heap's side is measured here.
  void tick(Nanos now, MemorySituation situation);
  // In a chain of several tiers of nodes another loop has the word, and FAST speaks of the first
  // tier; this one is for the cgroup's limit alone.
  void serve_the_limit_alone() { budget_ = FastBudget{}; }
  // Keeps the marks that follow from the situation and has growth beyond them come as faults, for a
  // loop that does not tick at this moment.
  void keep_marks(MemorySituation situation);
  // Another loop has planned until now: what is parked is taken as it is.
  void take_over(Nanos now);
  // Registers what was carved since, if the heap could by now hold more than its budget.
  void manage_growth();
  // Has some of the pages that rested long enough tried again. A part of tick(), for whoever stands
  // in the loop's place.
  void end_some_rests();
  // How long the next round may wait when nothing calls for it.
  Nanos pause_length() const { return pause_; }
  const Watermarks& watermarks() const { return marks_; }
  // Bytes that are present and cannot leave, by the last look. Any thread.
  std::uint64_t stuck_bytes() const {
    return stuck_pages_.load(std::memory_order_relaxed) * kPageSize;
  }

  // Demotes, parks or counts a range on request, page by page. Page aligned, inside the Space.
  // Returns the number of pages that are then as asked, or a negative errno. *why: what kept the
  // others.
  int demote_range(PageIndex first, std::uint32_t pages, bool store, MoveOutcome* why = nullptr);

 private:
  void look(Nanos now);
  void look_at(BlockIndex b);
  void set_marks(const MemorySituation& situation);
  void carry_out(const Step& step);
  MoveOutcome sweep(BlockIndex b);
  void drain_probation();

  Core& core_;
  Migration& migration_;
  Policy& policy_;
  const Options& options_;
  LoopHost& host_;
  FastBudget budget_;

  BlockView* blocks_ = nullptr;  // one a pageblock of the Space; the policy's notes live here
  Step* steps_ = nullptr;
  View view_{};
  Watermarks marks_{};
  Nanos last_{};
  Nanos last_scan_{};
  std::atomic<std::uint64_t> stuck_pages_{0};  // cannot leave: resting or pinned
  std::uint32_t rest_hand_ = 0;
  Nanos scan_cost_{};
  Nanos pause_ = millis(100);
};

}  // namespace heaptier
