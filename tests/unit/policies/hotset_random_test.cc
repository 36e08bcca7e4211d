// What hotset must never plan, whatever memory looks like: random views, random budgets, random
// time.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <vector>

#include "policies/filter.h"
#include "policies/hotset.h"

namespace heaptier {
namespace {

class RandomMemory {
 public:
  explicit RandomMemory(std::uint64_t seed) : random_(seed) {
    blocks.resize(1 + below(60));
    for (std::uint32_t i = 0; i < blocks.size(); ++i) {
      blocks[i].index = {i * 3};  // numbers are not positions
      scramble(blocks[i]);
    }
    recount();
  }

  std::uint32_t below(std::uint32_t n) { return static_cast<std::uint32_t>(random_() % n); }
  std::uint16_t small(std::uint32_t n) { return static_cast<std::uint16_t>(below(n)); }

  // Everything about some blocks changes, as if by other threads.
  void churn() {
    for (BlockView& b : blocks) {
      b.touches = small(4) == 0 ? small(600) : std::uint16_t{0};
      if (small(3) == 0) scramble(b);
    }
    recount();
  }

  void scramble(BlockView& b) {
    b.phase = static_cast<BlockPhase>(below(4));
    b.mobility = static_cast<Mobility>(below(kMobilities));
    b.huge = small(3) == 0;
    b.resident = b.clean = b.parked = b.stored = 0;
    if (b.phase == BlockPhase::kParked) {
      b.parked = static_cast<std::uint16_t>(1 + small(512));
      b.resident = small(513U - b.parked);
      b.parked_since = {static_cast<std::int64_t>(random_() % (1ULL << 40))};
    } else {
      b.resident = small(513);
      if (b.phase == BlockPhase::kScattered) {
        b.clean = small(b.resident + 1U);
        b.stored = small(513U - b.resident);
      }
    }
    if (small(8) == 0) b.fruitless = small(20);
    if (small(4) == 0) b.fruitless = 0;
  }

  Budget budget() {
    Budget b;
    const std::uint64_t all = blocks.size() * kPageblockSize;
    b.fast_bytes = below(10) == 0 ? 0 : random_() % (all + all / 2);
    b.high_bytes = b.fast_bytes - b.fast_bytes * below(10) / 100;
    b.low_bytes = b.high_bytes - b.high_bytes * below(10) / 100;
    b.hint_nanos = random_() % (1ULL << below(40));
    b.hint_cost = 1 + below(100'000);
    b.collapse = below(2) == 0;
    return b;
  }

  void recount() {
    view.blocks = blocks;
    view.resident_bytes = view.parked_bytes = view.probation_bytes = 0;
    for (const BlockView& b : blocks) {
      view.resident_bytes += b.resident * kPageSize;
      view.parked_bytes += b.parked * kPageSize;
      view.probation_bytes += b.clean * kPageSize;
    }
    view.store_has_room = below(10) != 0;
    if (below(10) == 0) view.clock_hand = below(1000);  // blocks may have gone
  }

  std::vector<BlockView> blocks;
  View view;

 private:
  std::mt19937_64 random_;
};

std::uint64_t pages_over(const View& v, std::uint64_t bytes) {
  const std::uint64_t used = v.resident_bytes + v.parked_bytes;
  return used > bytes ? (used - bytes + kPageSize - 1) / kPageSize : 0;
}

void check(const RandomMemory& before, const Budget& budget, const Plan& plan, Nanos now) {
  const View& view = before.view;
  const bool limited = budget.fast_bytes != 0;
  const std::uint64_t used = (view.resident_bytes + view.parked_bytes) / kPageSize;
  // Down to the target, 1/64 below low.
  const std::uint64_t need = pages_over(view, budget.low_bytes - budget.low_bytes / 64);
  const bool high = limited && pages_over(view, budget.high_bytes) > 0;
  std::set<std::uint32_t> seen;
  std::uint64_t parked = 0, stored = 0, swept = 0;  // pages that the steps are about
  for (const Step& s : plan.steps()) {
    ASSERT_TRUE(seen.insert(s.block.v).second) << "twice";
    ASSERT_EQ(s.block.v % 3, 0U);
    ASSERT_LT(s.block.v / 3, before.blocks.size());
    const BlockView& b = before.blocks[s.block.v / 3];
    ASSERT_NE(b.mobility, Mobility::kUnmovable);
    switch (s.action) {
      case Action::kParkSplit:
        EXPECT_TRUE(b.huge);
        [[fallthrough]];
      case Action::kPark:
        EXPECT_GT(b.resident, 0);
        EXPECT_TRUE(b.phase == BlockPhase::kUnmanaged || b.phase == BlockPhase::kWhole);
        parked += b.resident;
        break;
      case Action::kStore:
        EXPECT_GT(b.parked, 0);
        stored += b.parked;
        break;
      case Action::kSweep:
        EXPECT_GT(b.resident, b.clean);
        EXPECT_TRUE(b.phase == BlockPhase::kScattered || (high && b.phase != BlockPhase::kParked));
        swept += policy::main_pages(b);
        break;
      case Action::kUnpark:
        EXPECT_FALSE(high);
        EXPECT_GT(b.parked, 0);
        break;
      case Action::kCollapse:
        EXPECT_TRUE(budget.collapse);
        EXPECT_FALSE(b.huge);
        EXPECT_GE(b.resident, 502);  // adds 2 % at most
        break;
    }
    // Fruitless once more since it was last looked at: rests from now on.
    if (b.fruitless > b.noted && s.action != Action::kUnpark) {
      ADD_FAILURE() << to_string(b.mobility) << " block tried again at once, at " << now.v;
    }
  }
  // No more than the need and the rest of one block, of each kind. Parking is a guess: four times
  // as much at most.
  if (!limited) {
    EXPECT_EQ(parked + stored + swept, 0U);
  }
  EXPECT_LT(stored, need + kPagesPerBlock);
  EXPECT_LT(parked, std::max(need * 4 + 4, used / 16) + kPagesPerBlock);
  EXPECT_LT(swept, need + kPagesPerBlock);
  if (!view.store_has_room) {
    EXPECT_EQ(parked + stored + swept, 0U);
  }
}

TEST(HotsetRandom, NeverPlansWhatItMustNot) {
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    RandomMemory memory(seed);
    HotsetPolicy policy;
    Nanos now{1};
    for (int tick = 0; tick < 50; ++tick) {
      const Budget budget = memory.budget();
      const RandomMemory before = memory;
      Step storage[40];
      Plan plan(std::span<Step>(storage).first(memory.below(41)));
      policy.decide(memory.view, now, budget, plan);
      // The copy's view still looks at the original's blocks; only its totals are used.
      check(before, budget, plan, now);
      if (HasFatalFailure() || HasNonfatalFailure()) FAIL() << "seed " << seed << " tick " << tick;
      now.v += static_cast<std::int64_t>(memory.below(1U << 31)) << memory.below(8);
      memory.churn();
    }
  }
}

TEST(HotsetRandom, ManyEmptyOrNoBlocksAreNoProblem) {
  HotsetPolicy policy;
  Step storage[4];
  View view;
  Budget budget;
  budget.fast_bytes = budget.high_bytes = budget.low_bytes = 1;
  budget.collapse = true;
  {
    Plan plan(storage);
    policy.decide(view, {1}, budget, plan);
    EXPECT_TRUE(plan.steps().empty());
  }
  std::vector<BlockView> blocks(100'000);
  view.blocks = blocks;
  view.resident_bytes = kPageSize;  // says the total; no block has it
  Plan plan(storage);
  policy.decide(view, {1}, budget, plan);
  EXPECT_TRUE(plan.steps().empty());
}

}  // namespace
}  // namespace heaptier
