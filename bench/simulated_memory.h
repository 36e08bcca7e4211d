// A model of the runtime at page level, in simulated time, around a real policy: parking, fetches
// on probation, batched discards and eviction inline with the fault, as design.md sections 5 and 6
// have them. No memory is moved and no clock is read. For bench/simulate and for the policies' unit
// tests.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <functional>
#include <vector>

#include "policies/clock.h"
#include "policies/policy.h"
#include "policies/refault.h"
#include "runtime/pageblock.h"

namespace heaptier::simulation {

// Nanoseconds, as measured on the prototype.
struct Costs {
  std::int64_t access = 350;
  std::int64_t first_touch = 20'000;  // and filling it: a loader of 200 MB/s
  std::int64_t hint_fault = 6'000;
  std::int64_t fetch = 8'000;
  std::int64_t write_fault = 3'000;
  std::int64_t compress = 6'600;
  std::int64_t discard = 600;
  std::int64_t park_huge = 1'200;
  std::int64_t park_page = 50;
  std::int64_t split = 400'000;
};

struct Config {
  std::uint32_t blocks = 128;
  std::uint32_t budget_percent = 50;  // of all blocks
  std::int64_t tick_us = 20'000;
  bool huge = false;  // first touches make huge pages
  RefaultTuning tuning;
  Costs costs;
};

struct Counts {
  std::uint64_t accesses, fetches, hints, write_faults;
  std::uint64_t promotions, compressions, discards, inline_discards;
  std::uint64_t ticks, parks, splits, stores, sweeps, unparks, collapses;
  std::int64_t background_ns;
  std::uint64_t used_sum, used_most, over_high;  // pages, summed over accesses; accesses
};

class Memory {
 public:
  Memory(const Config& config, Policy& policy)
      : config_(config),
        policy_(policy),
        words_(std::size_t{config.blocks} * kPagesPerBlock),
        queued_(words_.size()),
        blocks_(config.blocks),
        shift_(stamp_shift(words_.size())) {
    for (std::uint32_t i = 0; i < config.blocks; ++i) blocks_[i].index = {i};
    view_.blocks = blocks_;
    budget_.fast_bytes = words_.size() * kPageSize * config.budget_percent / 100;
    budget_.high_bytes = budget_.fast_bytes * 98 / 100;
    budget_.low_bytes = budget_.fast_bytes * 95 / 100;
    budget_.hint_nanos = static_cast<std::uint64_t>(config.tick_us) * 1000 / 100;
    budget_.hint_cost = static_cast<std::uint64_t>(config.costs.hint_fault);
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  void access(std::uint32_t page, bool write) {
    ++counts.accesses;
    now_.v += config_.costs.access;
    switch (words_[page].state()) {
      case PageState::kUntouched:
        first_touch(page);
        break;
      case PageState::kParked:
        hint_fault(page);
        break;
      case PageState::kStored:
        fetch(page);
        break;
      default:
        break;
    }
    if (write && words_[page].state() == PageState::kClean) {
      ++counts.write_faults;
      now_.v += config_.costs.write_fault;
      go(page, PageState::kResident);
    }
    idle_until(now_);
    counts.used_sum += used();
    counts.used_most = std::max(counts.used_most, used());
    if (over_high()) ++counts.over_high;
  }

  // Lets time pass without an access. The background thread ticks when its time has come, and above
  // the high watermark as soon as a millisecond after it was done.
  void idle_until(Nanos then) {
    while (true) {
      const Nanos due = over_high() ? std::min(next_tick_, idle_since_ + millis(1)) : next_tick_;
      if (due > then) break;
      now_ = std::max(now_, due);
      tick();
    }
    now_ = std::max(now_, then);
  }

  Counts counts{};
  // Sees every step before it is carried out.
  std::function<void(const BlockView&, const Step&)> on_step;

  Nanos now() const { return now_; }
  Budget& budget() { return budget_; }
  std::vector<BlockView>& blocks() { return blocks_; }
  std::uint64_t pages() const { return words_.size(); }
  std::uint64_t used() const { return resident_ + parked_; }
  std::uint64_t stored() const { return stored_; }
  PageState state(std::uint32_t page) const { return words_[page].state(); }

 private:
  bool over_high() const { return used() * kPageSize > budget_.high_bytes; }
  BlockView& block(std::uint32_t page) { return blocks_[page / kPagesPerBlock]; }

  template <class F>
  void for_each_page(const BlockView& b, F f) {
    const std::uint32_t first = first_page(b.index).v;
    for (std::uint32_t p = first; p < first + kPagesPerBlock; ++p) f(p);
  }

  void go(std::uint32_t page, PageState to) {
    const PageState from = words_[page].state();
    if (!can_go(from, to)) std::abort();
    words_[page] = words_[page].with_state(to);
    count(block(page), from, -1);
    count(block(page), to, +1);
  }

  void count(BlockView& b, PageState s, int n) {
    const auto add = [n](std::uint16_t& block, std::uint64_t& all) {
      block = static_cast<std::uint16_t>(block + n);
      all += static_cast<std::uint64_t>(std::int64_t{n});
    };
    if (s == PageState::kResident || s == PageState::kClean) add(b.resident, resident_);
    if (s == PageState::kClean) add(b.clean, clean_);
    if (s == PageState::kParked) add(b.parked, parked_);
    if (s == PageState::kStored) add(b.stored, stored_);
  }

  // The kernel fills it; heaptier does not hear of it.
  void first_touch(std::uint32_t page) {
    BlockView& b = block(page);
    if (!config_.huge) {
      now_.v += config_.costs.first_touch;
      return go(page, PageState::kResident);
    }
    now_.v += config_.costs.first_touch * static_cast<std::int64_t>(kPagesPerBlock);
    b.huge = true;
    for_each_page(b, [&](std::uint32_t p) { go(p, PageState::kResident); });
  }

  void hint_fault(std::uint32_t page) {
    ++counts.hints;
    now_.v += config_.costs.hint_fault;
    BlockView& b = block(page);
    ++b.touches;
    if (b.huge) return come_home(b);
    go(page, PageState::kResident);
    if (b.parked == 0) come_home(b);
  }

  void come_home(BlockView& b) {
    for_each_page(b, [&](std::uint32_t p) {
      if (words_[p].state() == PageState::kParked) go(p, PageState::kResident);
    });
    b.phase = b.stored > 0 ? BlockPhase::kScattered : BlockPhase::kWhole;
  }

  void fetch(std::uint32_t page) {
    ++counts.fetches;
    now_.v += config_.costs.fetch;
    if ((used() + 1) * kPageSize > budget_.high_bytes) evict_inline();
    PageWord& w = words_[page];
    const RefaultVerdict v = judge_refault(
        {discards_, w.stamp(), shift_, w.estimate(), resident_ - clean_, stored_}, config_.tuning);
    w = w.with_estimate(v.estimate).with_credits(v.credits);
    ++block(page).touches;
    if (v.promote) {
      ++counts.promotions;
      go(page, PageState::kResident);
    } else {
      go(page, PageState::kClean);
      probation_.push_back({page, ++queued_[page]});
    }
  }

  // The oldest clean page goes; false when there is none.
  bool discard_one() {
    while (!probation_.empty()) {
      const auto [page, turn] = probation_.front();
      probation_.pop_front();
      if (words_[page].state() != PageState::kClean || queued_[page] != turn) continue;
      to_store(page);
      return true;
    }
    return false;
  }

  void to_store(std::uint32_t page) {
    words_[page] = words_[page].with_stamp(refault_stamp(discards_++, shift_));
    ++counts.discards;
    go(page, PageState::kStored);
  }

  std::int64_t sweep(BlockView& b) {
    ++counts.sweeps;
    std::int64_t cost = b.huge ? config_.costs.split : 0;
    b.huge = false;
    b.phase = BlockPhase::kScattered;
    for_each_page(b, [&](std::uint32_t p) {
      PageWord& w = words_[p];
      if (w.state() != PageState::kResident) return;
      if (w.credits() > 0) {
        w = w.with_credits(w.credits() - 1);
        return;
      }
      ++counts.compressions;
      cost += config_.costs.compress;
      go(p, PageState::kClean);
      probation_.push_back({p, ++queued_[p]});
    });
    return cost;
  }

  // 64 pages leave in the faulting thread: from probation while it is long enough, else after a
  // sweep.
  void evict_inline() {
    for (int left = 64; left > 0;) {
      if (clean_ > probation_target(resident_) && discard_one()) {
        --left;
        ++counts.inline_discards;
        now_.v += config_.costs.discard;
        continue;
      }
      Step storage[1];
      Plan plan(storage);
      policy::plan_sweeps(view_, now_, 1, true, plan);
      if (plan.steps().empty()) {
        tick();
        return;
      }
      now_.v += sweep(blocks_[plan.steps()[0].block.v]);
    }
  }

  void tick() {
    ++counts.ticks;
    const std::int64_t work_before = counts.background_ns;
    view_.resident_bytes = resident_ * kPageSize;
    view_.parked_bytes = parked_ * kPageSize;
    view_.stored_bytes = stored_ * kPageSize;
    view_.probation_bytes = clean_ * kPageSize;
    Step storage[256];
    Plan plan(storage);
    policy_.decide(view_, now_, budget_, plan);
    for (BlockView& b : blocks_) b.touches = 0;
    for (const Step& s : plan.steps()) carry_out(blocks_[s.block.v], s);
    while (used() * kPageSize > budget_.low_bytes && clean_ > probation_target(resident_) &&
           discard_one()) {
      counts.background_ns += config_.costs.discard;
    }
    // What it planned takes the background thread its time, though it is seen to happen at once.
    idle_since_ = now_ + Nanos{counts.background_ns - work_before};
    next_tick_ = std::max(idle_since_, now_ + micros(config_.tick_us));
  }

  void carry_out(BlockView& b, const Step& s) {
    if (on_step) on_step(b, s);
    switch (s.action) {
      case Action::kParkSplit:
        ++counts.splits;
        b.huge = false;
        counts.background_ns += config_.costs.split;
        return park(b);
      case Action::kPark:
        return park(b);
      case Action::kStore:
        ++counts.stores;
        b.huge = false;
        b.phase = BlockPhase::kScattered;
        for_each_page(b, [&](std::uint32_t p) {
          if (words_[p].state() != PageState::kParked) return;
          ++counts.compressions;
          counts.background_ns += config_.costs.compress;
          to_store(p);
        });
        return;
      case Action::kSweep:
        counts.background_ns += sweep(b);
        return;
      case Action::kUnpark:
        ++counts.unparks;
        return come_home(b);
      case Action::kCollapse:
        ++counts.collapses;
        b.huge = true;
        return;
    }
  }

  void park(BlockView& b) {
    ++counts.parks;
    b.parked_since = now_;
    b.phase = BlockPhase::kParked;
    counts.background_ns += b.huge ? config_.costs.park_huge : config_.costs.park_page * b.resident;
    for_each_page(b, [&](std::uint32_t p) {
      if (words_[p].state() == PageState::kResident) go(p, PageState::kParked);
    });
  }

  struct Queued {
    std::uint32_t page, turn;
  };
  const Config config_;
  Policy& policy_;
  std::vector<PageWord> words_;
  std::vector<std::uint32_t> queued_;  // a page's latest turn in probation_
  std::vector<BlockView> blocks_;
  std::deque<Queued> probation_;
  View view_;
  Budget budget_;
  const std::uint32_t shift_;
  std::uint64_t discards_ = 0;
  std::uint64_t resident_ = 0, clean_ = 0, parked_ = 0, stored_ = 0;
  Nanos now_{0}, idle_since_{0}, next_tick_{0};
};

}  // namespace heaptier::simulation
