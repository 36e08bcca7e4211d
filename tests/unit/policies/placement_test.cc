// The placement policy against a simulated machine of two nodes whose blocks are touched at random,
// and against views made by hand.
#include "policies/placement.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "policies/balance.h"
#include "policies/bounce.h"
#include "policies/density.h"
#include "policies/victims.h"

namespace heaptier {
namespace {

constexpr auto kBlockPages = static_cast<std::uint16_t>(kPagesPerBlock);

TEST(Gap, GrowsWithTheTimeInHalfOctaves) {
  EXPECT_EQ(gap_of({0}), 1);
  Gap last = 0;
  for (std::int64_t us = 1; us < (std::int64_t{1} << 30); us = us * 3 / 2 + 1) {
    const Gap g = gap_of(micros(us));
    EXPECT_GE(g, last);
    EXPECT_LE(g, kLongestGap);
    EXPECT_EQ(gap_of(length_of(g)), g);
    last = g;
  }
  EXPECT_EQ(last, kLongestGap);
  EXPECT_EQ(gap_of(micros(8 * 4096)) - gap_of(micros(4096)), 6);
  EXPECT_EQ(hotter(gap_of(micros(8 * 4096)), 6), gap_of(micros(4096)));
  EXPECT_EQ(hotter(3, 3), kUnknownGap);
  EXPECT_EQ(gap_of_each(20, 1), 20);
  EXPECT_EQ(gap_of_each(20, 512), 38);
  EXPECT_EQ(gap_of_each(20, 6), 25);
  EXPECT_EQ(gap_of_each(kLongestGap, 512), kCoolest);
  EXPECT_EQ(gap_of_each(kUnknownGap, 512), kUnknownGap);
  GapEstimate e;
  for (const int g : {20, 14, 22, 23}) e = e.after(static_cast<Gap>(g));
  EXPECT_EQ(e.gap, 20);
  EXPECT_EQ(e.measured, 4);
  EXPECT_EQ(e.after(25).gap, 22) << "rounded towards the new one";
  EXPECT_EQ(e.after(30).measured, 1) << "its use has changed";
  EXPECT_EQ(e.after(12).gap, 12);
}

// How often a huge page of which `hot` pages get all touches is judged so, of a thousand times; and
// the touches that takes.
int judged(Density as, std::uint32_t hot, double* touches) {
  std::mt19937_64 random{7};
  int count = 0;
  *touches = 0;
  for (int i = 0; i < 1000; ++i) {
    std::vector<bool> seen(hot);
    std::uint32_t samples = 0, repeats = 0;
    while (density(samples, repeats) == Density::kUnsure) {
      const auto page = std::uniform_int_distribution<std::uint32_t>(0, hot - 1)(random);
      repeats += seen[page] ? 1 : 0;
      seen[page] = true;
      ++samples;
    }
    count += density(samples, repeats) == as ? 1 : 0;
    *touches += samples * 1e-3;
  }
  return count;
}

TEST(Density, TellsAFewHotPagesFromAllOfThem) {
  double touches = 0;
  EXPECT_GT(judged(Density::kDense, 512, &touches), 970);
  EXPECT_LT(touches, 45);
  EXPECT_GT(judged(Density::kSparse, 128, &touches), 960);
  EXPECT_LT(touches, 60);
  EXPECT_GT(judged(Density::kSparse, 20, &touches), 999);
  EXPECT_LT(touches, 20);
}

// A machine of two nodes whose pages are touched at random, each as often as its weight says. Does
// what the loop and the fault path do: a parked page comes home at its first touch and is measured.
class Machine {
 public:
  Machine(std::uint32_t count, std::uint64_t fast_blocks, bool huge)
      : blocks_(count), pages_(std::size_t{count} * kBlockPages), estimates_(count) {
    view_.tier_count = 2;
    view_.tiers[0].capacity_pages = (fast_blocks + 4) * kPagesPerBlock;
    view_.tiers[1].capacity_pages = 2 * count * kPagesPerBlock;
    for (std::uint32_t i = 0; i < count; ++i) {
      PlacedBlock& b = blocks_[i];
      b.index = {i};
      b.movable = true;
      b.huge = huge;
      for (std::uint32_t k = 0; k < kBlockPages; ++k) page(b, k).slow = i >= fast_blocks;
      count_pages(b);
    }
    room_ = 4 * kPagesPerBlock;
  }

  // Of the blocks from `first` on, `n` pages each are hot: every `step`th, from `offset` on.
  void set_hot(std::uint32_t first, std::uint32_t blocks, std::uint32_t step, double share,
               std::uint32_t offset = 0) {
    const double hot_pages = blocks * (kBlockPages / step);
    const double others = static_cast<double>(pages_.size()) - hot_pages;
    for (std::size_t i = 0; i < pages_.size(); ++i) {
      const std::uint64_t block = i / kBlockPages;
      const bool hot = block >= first && block < first + blocks && i % step == offset;
      pages_[i].weight = hot ? share / hot_pages : (1 - share) / others;
    }
    for (PlacedBlock& b : blocks_) {
      weight_of(b) = 0;
      for (std::uint32_t k = 0; k < kBlockPages; ++k) weight_of(b) += page(b, k).weight;
    }
  }

  void run(double seconds, double accesses_per_second) {
    const auto end = now_ + Nanos{static_cast<std::int64_t>(seconds * 1e9)};
    for (; now_ < end; now_ = now_ + kTick) {
      tick();
      for (PlacedBlock& b : blocks_) {
        if (b.parked > 0) touch_some(b, accesses_per_second);
      }
      accesses += static_cast<std::uint64_t>(accesses_per_second * 1e-9 * kTick.v);
    }
  }

  double share_fast() const {
    double sum = 0;
    for (const Page& p : pages_) sum += p.slow ? 0 : p.weight;
    return sum;
  }
  // Of the pages that are hotter than the mean.
  double hot_fast() const {
    double hot = 0, fast = 0;
    for (const Page& p : pages_) {
      if (p.weight * static_cast<double>(pages_.size()) <= 1) continue;
      ++hot;
      fast += p.slow ? 0 : 1;
    }
    return fast / hot;
  }
  std::uint32_t huge_blocks() const {
    std::uint32_t n = 0;
    for (const PlacedBlock& b : blocks_) n += b.huge ? 1 : 0;
    return n;
  }
  double moved_blocks() const { return static_cast<double>(moved) / kBlockPages; }

  std::uint64_t accesses = 0;
  std::uint64_t faults = 0;
  std::uint64_t moved = 0;  // pages, either way

 private:
  static constexpr Nanos kTick = millis(10);
  struct Page {
    double weight = 0;
    bool slow = false;
    bool parked = false;
    bool touched = false;    // since it was parked, so long after that:
    Gap gap = kUnknownGap;   // (of a huge page: ever)
    bool candidate = false;  // was touched soon the last time
  };
  struct Estimate {
    GapEstimate gap;
    double weight = 0;
  };

  Page& page(const PlacedBlock& b, std::uint32_t k) {
    return pages_[std::size_t{b.index.v} * kBlockPages + k];
  }
  double& weight_of(const PlacedBlock& b) { return estimates_[b.index.v].weight; }

  void count_pages(PlacedBlock& b) {
    b.parked = b.slow = 0;
    for (std::uint32_t k = 0; k < kBlockPages; ++k) {
      b.parked = static_cast<std::uint16_t>(b.parked + (page(b, k).parked ? 1 : 0));
      b.slow = static_cast<std::uint16_t>(b.slow + (page(b, k).slow ? 1 : 0));
    }
    b.resident = static_cast<std::uint16_t>(kBlockPages - b.parked);
    b.tier = b.slow > kBlockPages / 2 ? 1 : 0;
  }

  // Within this tick, if at all. What was parked a while ago has not been touched until now.
  bool next_touch(double rate, Nanos* at, const PlacedBlock& b) {
    const Nanos from = std::max(b.parked_since, now_);
    *at = from + Nanos{static_cast<std::int64_t>(
                     std::min(std::exponential_distribution<>(rate)(random_), 1e6) * 1e9)};
    return *at < now_ + kTick;
  }

  void touch_some(PlacedBlock& b, double speed) {
    Nanos at;
    if (b.huge) {
      if (next_touch(weight_of(b) * speed, &at, b)) touch_huge(b, at);
      return;
    }
    for (std::uint32_t k = 0; k < kBlockPages; ++k) {
      Page& p = page(b, k);
      if (!p.parked || !next_touch(p.weight * speed, &at, b)) continue;
      p.parked = false;
      p.touched = true;
      p.gap = gap_of(at - b.parked_since);
      ++b.touches;
      ++b.touched;
      ++faults;
    }
    count_pages(b);
  }

  void touch_huge(PlacedBlock& b, Nanos at) {
    ++faults;
    const Gap measured = gap_of(at - b.parked_since);
    GapEstimate& e = estimates_[b.index.v].gap;
    e = e.after(measured);
    double where = std::uniform_real_distribution<>(0, weight_of(b))(random_);
    std::uint32_t k = 0;
    while (k + 1U < kBlockPages && (where -= page(b, k).weight) > 0) ++k;
    if (b.samples == 0 || b.count_anew) {
      b.samples = b.repeats = 0;
      b.count_anew = false;
      for (std::uint32_t i = 0; i < kBlockPages; ++i) page(b, i).touched = false;
    }
    b.repeats = static_cast<std::uint8_t>(b.repeats + (page(b, k).touched ? 1 : 0));
    page(b, k).touched = true;
    if (b.samples < UINT8_MAX) ++b.samples;
    b.gap = gap_of_each(e.gap, kBlockPages);
    b.times = e.measured;
    b.measured = gap_of_each(measured, kBlockPages);
    for (std::uint32_t i = 0; i < kBlockPages; ++i) page(b, i).parked = false;
    b.touches = kBlockPages;
    count_pages(b);
  }

  void take_stock(PlacedBlock& b) {
    for (WatchedPart* part : {&b.below, &b.above}) {
      part->touched = part->soon = part->parked = 0;
      part->away = {};
    }
    for (std::uint32_t k = 0; k < kBlockPages; ++k) {
      const Page& p = page(b, k);
      WatchedPart& part = p.slow ? b.below : b.above;
      if (p.parked) ++part.parked;
      if (!p.touched) continue;
      ++part.touched;
      part.away = part.away + length_of(p.gap);
      if (p.gap <= policy_.watcher().soon()) ++part.soon;
    }
  }

  void park(PlacedBlock& b, Watch how) {
    const auto first = std::uniform_int_distribution<std::uint32_t>(0, 120)(random_) * 2;
    const std::uint32_t run = how == Watch::kProbe ? 8 : how == Watch::kGlance ? 2 : 0;
    b.parked_since = now_;
    for (std::uint32_t k = 0; k < kBlockPages; ++k) {
      Page& p = page(b, k);
      const bool perhaps = p.touched && p.slow && p.gap <= policy_.watcher().perhaps();
      if (!b.huge) p.touched = false;
      p.candidate = how == Watch::kAgain && perhaps;
      const bool probed = k % 256 >= first && k % 256 < first + run;
      p.parked = b.huge || (how == Watch::kBelow && p.slow) || (how == Watch::kAbove && !p.slow) ||
                 probed || p.candidate;
    }
    count_pages(b);
    if (b.parked == 0) b.watch = Watch::kNone;
  }

  void promote(PlacedBlock& b, Wanted what) {
    for (std::uint32_t k = 0; k < kBlockPages; ++k) {
      Page& p = page(b, k);
      const bool hot =
          p.touched && p.gap <= policy_.watcher().soon() && (what != Wanted::kTwice || p.candidate);
      if (!p.slow || !(b.huge || what == Wanted::kAll || hot) || room_ == 0) continue;
      p.slow = false;
      --room_;
      ++moved;
    }
  }

  void demote(PlacedBlock& b) {
    for (std::uint32_t k = 0; k < kBlockPages; ++k) {
      Page& p = page(b, k);
      if (p.slow || !(b.huge || p.parked)) continue;
      p.slow = true;
      if (!b.huge) p.parked = false;
      ++room_;
      ++moved;
    }
  }

  void carry_out(const PlaceStep& step) {
    PlacedBlock& b = blocks_[step.block.v];
    switch (step.action) {
      case PlaceAction::kCross:
      case PlaceAction::kGather:
        break;  // one socket; and not asked for
      case PlaceAction::kSplit:
        b.huge = false;
        [[fallthrough]];
      case PlaceAction::kWatch:
        park(b, step.watch);
        break;
      case PlaceAction::kHome:
        for (std::uint32_t k = 0; k < kBlockPages; ++k) page(b, k).parked = false;
        break;
      case PlaceAction::kPromote:
        promote(b, step.wanted);
        break;
      case PlaceAction::kDemote:
        ASSERT_EQ(step.tier, 1);
        demote(b);
        break;
      case PlaceAction::kStore:
        FAIL() << "there is no store";
    }
    count_pages(b);
  }

  void tick() {
    view_.blocks = blocks_;
    view_.tiers[0].room_pages = room_;
    view_.tiers[1].room_pages = view_.tiers[1].capacity_pages / 2;
    for (PlacedBlock& b : blocks_) {
      if (policy_.watcher().due(b, now_)) take_stock(b);
    }
    PlaceStep steps[256];
    PlacementPlan plan{steps};
    PlacementBudget budget;
    budget.hint_nanos = 100'000;
    budget.hint_saved = 3000 * budget.hint_nanos;
    budget.move_pages = 8 * kPagesPerBlock;
    policy_.decide(view_, now_, budget, plan);
    for (PlacedBlock& b : blocks_) b.touches = 0;
    for (std::size_t i = 0; i < plan.count; ++i) carry_out(steps[i]);
  }

  std::vector<PlacedBlock> blocks_;
  std::vector<Page> pages_;
  std::vector<Estimate> estimates_;
  PlacementView view_;
  PlacementPolicy policy_;
  std::mt19937_64 random_{5};
  Nanos now_ = seconds(1);
  std::uint64_t room_ = 0;  // pages
};

// 400 blocks, of which half fit; of the other half `blocks` hold the hot set, in every `step`th
// page.
struct Scatter {
  bool huge;
  std::uint32_t blocks;
  std::uint32_t step;
};

class Scattered : public testing::TestWithParam<Scatter> {};

TEST_P(Scattered, HotSetIsBroughtUpAndFollowed) {
  const Scatter& s = GetParam();
  const double hot_blocks = double(s.blocks) / s.step;
  for (const double speed : {1e6, 1e8}) {
    Machine m(400, 200, s.huge);
    m.set_hot(205, s.blocks, s.step, 0.9);
    // An oracle leaves as many cold ones fast as there is room for.
    const double best = 0.9 + 0.1 * (196 - hot_blocks) / (400 - hot_blocks);
    m.run(10, speed);
    EXPECT_GT(m.share_fast(), 0.95 * best) << speed;
    // Some huge pages seem so hot at first sight that they go up whole.
    EXPECT_LT(m.moved_blocks(), 2 * hot_blocks * (s.huge && s.step > 1 ? 1.75 : 1.5)) << speed;
    if (s.step == 1) {
      m.set_hot(300, s.blocks, s.step, 0.9);
    } else {
      m.set_hot(205, s.blocks, s.step, 0.9, 2);
    }
    m.run(15, speed);
    EXPECT_GT(m.share_fast(), 0.95 * best) << speed;
    EXPECT_GT(m.hot_fast(), 0.98) << speed;
    EXPECT_LT(m.moved_blocks(), 4 * hot_blocks * 3 / 2) << speed;
    EXPECT_GE(m.huge_blocks(), !s.huge ? 0u : s.step == 1 ? 395u : 150u);
    // Nothing more to gain: hardly a fault, and nothing moves.
    const double moved = m.moved_blocks();
    m.run(15, speed);
    const std::uint64_t faults = m.faults;
    const std::uint64_t accesses = m.accesses;
    m.run(30, speed);
    EXPECT_LE(m.moved_blocks(), moved + 40) << speed;
    // Huge pages that are hardly hotter than the bar are judged again and again.
    const double hints = s.huge && s.step > 1 ? 2.2e-4 : 1.1e-4;
    EXPECT_LT(static_cast<double>(m.faults - faults), hints * double(m.accesses - accesses))
        << speed;
  }
}

INSTANTIATE_TEST_SUITE_P(Placement, Scattered,
                         testing::Values(Scatter{true, 50, 1}, Scatter{false, 50, 1},
                                         Scatter{true, 195, 4}, Scatter{false, 195, 4}));

// A block of a tier with two sockets, as the fault path tells of it: each touch from afar or not.
class Socket {
 public:
  Socket() {
    block.index = {0};
    block.movable = block.huge = true;
    block.resident = kBlockPages;
    block.gap = gap_of(millis(20));
    block.times = GapEstimate::kMost;
    view.blocks = {&block, 1};
    view.tier_count = 1;
    view.several_sockets = true;
    view.tiers[0] = {4 * kPagesPerBlock, 2 * kPagesPerBlock, 0};
  }
  // True: it is to go to the other one.
  bool touch(bool far) {
    now = now + millis(10);
    (far ? block.far : block.near) = 1;
    block.touches = kBlockPages;
    PlaceStep steps[8];
    PlacementPlan plan{steps};
    PlacementBudget budget;
    budget.hint_nanos = budget.hint_saved = 1'000'000;
    budget.move_pages = kPagesPerBlock;
    policy.decide(view, now, budget, plan);
    block.watch = Watch::kNone;
    const bool goes = std::any_of(steps, steps + plan.count, [](const PlaceStep& step) {
      return step.action == PlaceAction::kCross;
    });
    if (goes && !full) note_crossing(block, now);
    return goes;
  }
  PlacedBlock block;
  PlacementView view;
  PlacementPolicy policy;
  Nanos now = seconds(1);
  bool full = false;  // the other one: nothing moves
};

TEST(Balance, WhatIsUsedFromTheOtherSocketGoesThere) {
  Socket s;
  for (unsigned i = 1; i < kPulled; ++i) EXPECT_FALSE(s.touch(true)) << i;
  EXPECT_TRUE(s.touch(true));
}

TEST(Balance, WhatBothUseStays) {
  std::minstd_rand random(1);
  int crossed = 0;
  for (int run = 0; run < 100; ++run) {
    Socket s;
    for (int i = 0; i < 50; ++i) crossed += s.touch(random() % 2 == 0) ? 1 : 0;
  }
  EXPECT_LE(crossed, 50) << "of 5000 touches";
}

TEST(Balance, WhatIsSeldomUsedIsNotWorthIt) {
  Socket s;
  s.block.gap = gap_of(seconds(500));
  for (unsigned i = 0; i < 4 * kPulled; ++i) EXPECT_FALSE(s.touch(true));
}

TEST(Balance, WhatWasRefusedIsTriedAgainAsSoonAsBefore) {
  Socket s;
  s.full = true;
  for (int tries = 0; tries < 4; ++tries) {
    unsigned touches = 1;
    while (!s.touch(true)) ++touches;
    EXPECT_EQ(touches, kPulled) << tries;
  }
}

TEST(Balance, ToAndFroTakesLongerEachTime) {
  Socket s;
  unsigned before = 0;
  for (unsigned crossing = 0; crossing < 4; ++crossing) {
    unsigned touches = 1;
    while (!s.touch(true)) ++touches;
    EXPECT_GT(touches, before) << crossing;
    before = touches;
  }
  s.now = s.now + kBouncedWithin + kBouncedWithin;
  unsigned touches = 1;
  while (!s.touch(true)) ++touches;
  EXPECT_EQ(touches, kPulled);
}

TEST(Bounce, RaisesTheBarWhileItGoesOnAndIsForgotten) {
  PlacedBlock b;
  Nanos now = seconds(10);
  note_hop(b, true, now);
  EXPECT_EQ(bar_of(b, now), 0u);
  for (unsigned i = 1; i <= 6; ++i) {
    now = now + seconds(2);
    note_hop(b, i % 2 == 0, now);
    EXPECT_EQ(bar_of(b, now), kGapsPerOctave * std::min<unsigned>(i, kMostHops)) << i;
  }
  note_hop(b, true, now + seconds(1));  // not back: the same way once more
  EXPECT_EQ(bar_of(b, now + seconds(1)), kGapsPerOctave * kMostHops);
  // It stays where it is, and is judged as any other in the end.
  EXPECT_EQ(bar_of(b, now + kBouncesForgotten + seconds(2)), kGapsPerOctave * (kMostHops - 1));
  EXPECT_EQ(bar_of(b, now + seconds(3600)), 0u);
  note_hop(b, false, now + seconds(3600));
  EXPECT_EQ(bar_of(b, now + seconds(3600)), 0u);
}

// Of two blocks of the same heat the one that was just brought up stays.
TEST(Bounce, WhatHasJustComeUpGoesDownLast) {
  PlacedBlock b;
  b.index = {0};
  b.movable = b.huge = true;
  b.resident = kBlockPages;
  b.gap = gap_of_each(gap_of(seconds(1)), kBlockPages);
  b.times = GapEstimate::kMost;
  const Victim before = victim_of(b, 0, seconds(20));
  note_hop(b, false, seconds(18));
  note_hop(b, true, seconds(20));
  const Victim after = victim_of(b, 0, seconds(20));
  EXPECT_EQ(before.pages, after.pages);
  EXPECT_EQ(before.gap, after.gap + kGapsPerOctave);
}

TEST(Placement, EqualHeatIsLeftWhereItIs) {
  for (const bool huge : {true, false}) {
    Machine m(400, 208, huge);
    m.set_hot(0, 400, 1, 1.0);
    m.run(30, 1e6);
    EXPECT_LT(m.moved_blocks(), 40u) << "of 400, in half a minute";
    EXPECT_EQ(m.huge_blocks(), huge ? 400u : 0u);
  }
}

// What goes up because there is room for all has nobody go down for it: else that room would be
// found and filled again, for ever.
TEST(Placement, RoomIsFilledAndNotMadeAnew) {
  PlacementPolicy policy;
  std::vector<PlacedBlock> blocks(60);
  for (std::uint32_t i = 0; i < blocks.size(); ++i) {
    PlacedBlock& b = blocks[i];
    b.index = {i};
    b.movable = b.huge = true;
    b.resident = kBlockPages;
    b.gap = 40;
    b.times = GapEstimate::kMost;
    b.not_before = seconds(1000);
    if (i >= 40) b.tier = 1, b.slow = kBlockPages;
  }
  PlacementView view;
  view.blocks = blocks;
  view.tier_count = 2;
  view.tiers[0] = {200 * kPagesPerBlock, 20 * kPagesPerBlock, 0};
  view.tiers[1] = {200 * kPagesPerBlock, 100 * kPagesPerBlock, 0};
  PlaceStep steps[64];
  PlacementBudget budget;
  budget.move_pages = 100 * kPagesPerBlock;
  unsigned up = 0;
  unsigned down = 0;
  for (Nanos now = seconds(1); now < seconds(5); now = now + millis(10)) {
    PlacementPlan plan{steps};
    policy.decide(view, now, budget, plan);
    for (std::size_t i = 0; i < plan.count; ++i) {
      PlacedBlock& b = blocks[steps[i].block.v];
      const bool promoted = steps[i].action == PlaceAction::kPromote;
      if (!promoted && steps[i].action != PlaceAction::kDemote) continue;
      ++(promoted ? up : down);
      b.tier = promoted ? 0 : 1;
      b.slow = promoted ? 0 : kBlockPages;
      if (!promoted) view.tiers[0].room_pages += kPagesPerBlock;  // else the plan has counted it
    }
    // Each of them has been touched while there was room for all.
    for (PlacedBlock& b : blocks) {
      if (b.slow == 0 || policy.watcher().promote_below() != kCoolest) continue;
      b.wanted = Wanted::kAll;
      b.wanted_pages = kBlockPages;
      b.wanted_below = kCoolest;
      b.wanted_since = now;
    }
  }
  EXPECT_GE(up, 14U);
  EXPECT_LE(up, 18U);
  EXPECT_EQ(down, 0U);
}

// A block of small pages on the last tier, which is full: it is swept, and when nobody has touched
// it for long enough what is parked goes to the store. Not the hot one.
TEST(Placement, WhatLiesParkedOnTheLastNodeGoesToTheStore) {
  PlacementPolicy policy;
  PlacedBlock blocks[2];
  for (std::uint32_t i = 0; i < 2; ++i) {
    PlacedBlock& b = blocks[i];
    b.index = {i};
    b.movable = true;
    b.tier = 1;
    b.resident = b.slow = kBlockPages;
    b.below.gap = i == 0 ? 60 : 10;
    b.not_before = seconds(1000);
  }
  PlacementView view;
  view.blocks = blocks;
  view.tier_count = 2;
  view.tiers[0] = {100000, 0, 0};
  view.tiers[1] = {100000, 1400, 0};
  view.store_has_room = true;
  PlaceStep steps[8];
  PlacementBudget budget;
  budget.hint_nanos = budget.hint_saved = 1'000'000;
  Nanos now = seconds(1);
  std::vector<PlaceAction> done;
  for (; now < seconds(6); now = now + millis(10)) {
    PlacementPlan plan{steps};
    policy.decide(view, now, budget, plan);
    for (std::size_t i = 0; i < plan.count; ++i) {
      EXPECT_EQ(plan.steps[i].block.v, 0u);
      done.push_back(plan.steps[i].action);
      if (plan.steps[i].action == PlaceAction::kWatch) {
        blocks[0].parked = kBlockPages;
        blocks[0].below.parked = kBlockPages;
        blocks[0].resident = 0;
        blocks[0].parked_since = now;
      } else {
        blocks[0].parked = 0;
        view.tiers[1].room_pages = 20000;
      }
    }
  }
  EXPECT_EQ(done, (std::vector{PlaceAction::kWatch, PlaceAction::kStore}));
}

// Small pages of the first tier that are all hot become a huge page, also where the option's part
// of the tier is full and all of it equally hot; not where the nodes have no room for the copy.
TEST(Placement, HotSmallPagesAreGatheredWhateverTheOptionLeaves) {
  for (const std::uint64_t free : {0 * kPagesPerBlock, 1 * kPagesPerBlock, 9 * kPagesPerBlock}) {
    PlacementPolicy policy;
    PlacedBlock blocks[8];
    for (std::uint32_t i = 0; i < 8; ++i) {
      PlacedBlock& b = blocks[i];
      b.index = {i};
      b.movable = true;
      b.resident = kBlockPages;
      b.above.gap = 10;
      b.not_before = seconds(1000);
      b.dense = i != 0;
    }
    PlacementView view;
    view.blocks = blocks;
    view.tier_count = 2;
    view.tiers[0] = {8 * kPagesPerBlock, 0, 0};
    view.tiers[1] = {100000, 0, 0};
    view.gather_pages = free;
    PlaceStep steps[16];
    PlacementPlan plan{steps};
    policy.decide(view, seconds(1), PlacementBudget{}, plan);
    std::size_t gathered = 0;
    for (std::size_t i = 0; i < plan.count; ++i) {
      if (plan.steps[i].action != PlaceAction::kGather) continue;
      ++gathered;
      EXPECT_NE(plan.steps[i].block.v, 0u);
    }
    EXPECT_EQ(gathered, std::min<std::size_t>(free / kPagesPerBlock, 4));
  }
}

TEST(Placement, OneTierIsNothingToDo) {
  PlacementPolicy policy;
  PlacedBlock block;
  block.movable = true;
  block.resident = kBlockPages;
  PlacementView view;
  view.blocks = {&block, 1};
  view.tier_count = 1;
  PlaceStep steps[4];
  PlacementPlan plan{steps};
  PlacementBudget budget;
  budget.hint_nanos = 1'000'000;
  policy.decide(view, seconds(1), budget, plan);
  EXPECT_EQ(plan.count, 0u);
}

}  // namespace
}  // namespace heaptier
