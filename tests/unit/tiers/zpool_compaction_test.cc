// Compaction of the compressed tier: it makes sparse pools dense, takes no for an answer, and
// survives owners that change their minds, damaged headers and forks in its middle.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <set>
#include <utility>
#include <vector>

#include "runtime/bootstrap_heap.h"
#include "runtime/tiers/zpool.h"
#include "tests/unit/tiers/zpool_fixture.h"

namespace heaptier {
namespace {

using testing::kMiB;
using testing::mixed_page;
using testing::Page;
using testing::Pool;
using testing::Rng;

// Owns slots as the page words do; refuses those it was told to refuse.
class Mover final : public SlotMover {
 public:
  bool relocate(PageIndex owner, SlotId from, SlotId to) override {
    ++asked;
    EXPECT_NE(from, to);
    if (owner.v >= slots.size() || slots[owner.v] != from) return false;
    if (stubborn.contains(owner.v)) return false;
    slots[owner.v] = to;
    return true;
  }
  std::vector<SlotId> slots;
  std::set<std::uint32_t> stubborn;
  std::size_t asked = 0;
};

class Compaction : public ::testing::Test {
 protected:
  static constexpr std::uint32_t kPages = 6000;
  void SetUp() override {
    for (std::uint32_t i = 0; i < kPages; ++i)
      mover_.slots.push_back(pool_.store(mixed_page(i), i));
  }
  void drop_randomly(unsigned percent) {
    Rng rng(percent);
    for (SlotId& slot : mover_.slots) {
      if (slot.v == 0 || rng.below(100) >= percent) continue;
      pool_.zpool->drop(slot);
      slot = {};
    }
  }
  void expect_all() {
    std::size_t live = 0;
    for (std::uint32_t i = 0; i < kPages; ++i) {
      if (mover_.slots[i].v == 0) continue;
      ++live;
      ASSERT_TRUE(pool_.holds(mover_.slots[i], mixed_page(i))) << i;
    }
    EXPECT_EQ(pool_.zpool->usage().slots, live);
  }
  Pool pool_{{.capacity_bytes = 64 * kMiB}};
  Mover mover_;
};

TEST_F(Compaction, MakesADensePoolOfASparseOne) {
  for (const unsigned percent : {30u, 50u, 70u}) {
    drop_randomly(percent);
    const ZPoolFragmentation before = pool_.zpool->fragmentation();
    const std::size_t freed = pool_.zpool->compact(mover_);
    const ZPoolFragmentation after = pool_.zpool->fragmentation();
    EXPECT_EQ(freed, before.reclaimable);
    EXPECT_EQ(after.reclaimable, 0u);
    EXPECT_EQ(after.used, before.used);
    EXPECT_LE(after.held, before.held - freed + SpanPool::kReserveSpans * kSpanBytes);
    expect_all();
  }
  EXPECT_EQ(pool_.zpool->drops_refused(), 0u);
  EXPECT_TRUE(pool_.memory.untouched());
}

TEST_F(Compaction, HasNothingToDoInADensePool) {
  EXPECT_EQ(pool_.zpool->compact(mover_), 0u);
  EXPECT_EQ(mover_.asked, 0u);
}

TEST_F(Compaction, StopsAtItsBudget) {
  drop_randomly(60);
  (void)pool_.zpool->compact(mover_, 100);
  EXPECT_EQ(mover_.asked, 100u);
  expect_all();
  EXPECT_GT(pool_.zpool->fragmentation().reclaimable, 0u);
  (void)pool_.zpool->compact(mover_);
  EXPECT_EQ(pool_.zpool->fragmentation().reclaimable, 0u);
  expect_all();
}

TEST_F(Compaction, LeavesWhatItsOwnerKeeps) {
  drop_randomly(60);
  for (std::uint32_t i = 0; i < kPages; i += 20) mover_.stubborn.insert(i);
  const std::vector<SlotId> before = mover_.slots;
  (void)pool_.zpool->compact(mover_);
  for (const std::uint32_t i : mover_.stubborn) EXPECT_EQ(mover_.slots[i], before[i]);
  expect_all();
  // What was in its way comes loose: the next run ends where it should.
  mover_.stubborn.clear();
  (void)pool_.zpool->compact(mover_);
  EXPECT_EQ(pool_.zpool->fragmentation().reclaimable, 0u);
  expect_all();
}

TEST_F(Compaction, EndsWhenNobodyMoves) {
  drop_randomly(80);
  for (std::uint32_t i = 0; i < kPages; ++i) mover_.stubborn.insert(i);
  EXPECT_EQ(pool_.zpool->compact(mover_), 0u);
  expect_all();
}

TEST_F(Compaction, DoesNotTrustDamagedHeaders) {
  drop_randomly(70);
  char* span = pool_.memory.first_mapping();
  for (std::size_t i = 0; i < kSpanBytes; ++i) span[i] = static_cast<char>(span[i] ^ 0x5a);
  (void)pool_.zpool->compact(mover_);
  // Nothing of span 0 moved, and the rest is whole.
  std::size_t damaged = 0;
  for (std::uint32_t i = 0; i < kPages; ++i) {
    const SlotId slot = mover_.slots[i];
    if (slot.v == 0) continue;
    if (span_of(slot) != 0) {
      ASSERT_TRUE(pool_.holds(slot, mixed_page(i)));
      continue;
    }
    Page out;
    EXPECT_EQ(pool_.zpool->fetch(pool_.ws, slot, out.data()), FetchOutcome::kCorrupt);
    ++damaged;
  }
  EXPECT_GT(damaged, 0u);
}

// An owner that drops or replaces pages in the middle of the run.
TEST_F(Compaction, PagesChangeHandsMeanwhile) {
  class Restless final : public SlotMover {
   public:
    Restless(Pool& pool, Mover& inner) : pool_(pool), inner_(inner) {}
    bool relocate(PageIndex owner, SlotId from, SlotId to) override {
      const auto victim = static_cast<std::uint32_t>(rng_.below(inner_.slots.size()));
      if (inner_.slots[victim].v != 0) {
        pool_.zpool->drop(inner_.slots[victim]);
        inner_.slots[victim] =
            rng_.below(2) == 0 ? SlotId{} : pool_.store(mixed_page(victim), victim);
      }
      return inner_.relocate(owner, from, to);
    }

   private:
    Pool& pool_;
    Mover& inner_;
    Rng rng_{5};
  };
  drop_randomly(60);
  Restless restless(pool_, mover_);
  (void)pool_.zpool->compact(restless, 20'000);
  expect_all();
  EXPECT_EQ(pool_.zpool->drops_refused(), 0u);
}

// Forks with the locks held as the engine does. In the child `verdict` runs and its failures are
// the exit status.
template <class Verdict>
void fork_and_expect(ZPool& pool, Verdict verdict) {
  pool.fork_prepare();
  bootstrap::lock_for_fork();
  const pid_t child = fork();
  bootstrap::unlock_after_fork();
  pool.fork_done(child == 0);
  if (child == 0) {
    verdict();
    _exit(::testing::Test::HasFailure() ? 1 : 0);
  }
  ASSERT_GT(child, 0);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

// The child does not have the thread that was emptying a span: the span must not be lost to it.
TEST_F(Compaction, ForkInTheMiddleOfAMove) {
  class Forking final : public SlotMover {
   public:
    explicit Forking(std::function<void()> at_move) : at_move_(std::move(at_move)) {}
    bool relocate(PageIndex, SlotId, SlotId) override {
      if (at_move_) std::exchange(at_move_, nullptr)();
      return false;
    }

   private:
    std::function<void()> at_move_;
  };
  drop_randomly(60);
  Forking forking([this] {
    fork_and_expect(*pool_.zpool, [this] {
      std::size_t live = 0;
      for (std::uint32_t i = 0; i < kPages; ++i) {
        if (mover_.slots[i].v == 0) continue;
        ++live;
        ASSERT_TRUE(pool_.holds(mover_.slots[i], mixed_page(i)));
      }
      EXPECT_EQ(pool_.zpool->usage().slots, live + 1);  // the place the move was about to take
      (void)pool_.zpool->compact(mover_);
      EXPECT_EQ(pool_.zpool->fragmentation().reclaimable, 0u);
      for (const SlotId slot : mover_.slots) {
        if (slot.v != 0) pool_.zpool->drop(slot);
      }
      (void)pool_.zpool->trim();
      EXPECT_EQ(pool_.zpool->fragmentation().held, kSpanBytes);  // of that one place
    });
  });
  (void)pool_.zpool->compact(forking);
  expect_all();
}

TEST_F(Compaction, ForkWhileMemoryIsGivenBack) {
  pool_.memory.before_discard = [this] {
    fork_and_expect(*pool_.zpool, [this] {
      expect_all();
      for (const SlotId slot : mover_.slots) {
        if (slot.v != 0) pool_.zpool->drop(slot);
      }
      (void)pool_.zpool->trim();
      EXPECT_EQ(pool_.zpool->fragmentation().held, 0u);  // no span fell between the two
    });
  };
  // From the end, so that spans empty before all slots are dropped.
  for (std::uint32_t i = kPages; i-- > kPages / 2;) {
    const SlotId slot = std::exchange(mover_.slots[i], {});
    pool_.zpool->drop(slot);
  }
  EXPECT_FALSE(pool_.memory.before_discard) << "nothing was given back";
  expect_all();
}

}  // namespace
}  // namespace heaptier
