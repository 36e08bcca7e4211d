// NodeMover on a fake machine: outcomes in order, targets that fill up, calls that fail.
#include "runtime/tiers/node_mover.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "tests/fakes/fake_nodes.h"

namespace heaptier::test {
namespace {

using Outcome = NodeMoveOutcome;

constexpr std::uintptr_t kBase = std::uintptr_t{1} << 40;

class Mover : public ::testing::Test {
 protected:
  Mover() {
    nodes_.add_node(0, 100'000, 150);
    nodes_.add_node(2, 100'000, 150);
    nodes_.add_node(3, 100'000, 150);
  }

  // The n-th page and the n-th huge page of the test.
  static std::uintptr_t page(std::size_t n) { return kBase + n * kPageSize; }
  static std::uintptr_t block(std::size_t n) {
    return kBase + (std::uintptr_t{1} << 36) + n * kPageblockSize;
  }
  FakeNodes::Page& small(std::size_t n, int node = 0) {
    return nodes_.pages[page(n)] = {.node = node};
  }
  FakeNodes::Page& huge(std::size_t n, int node = 0) {
    return nodes_.pages[block(n)] = {.node = node, .huge = true};
  }

  NodeMoveTally move(NodeMover& mover, const std::vector<PageMove>& list) {
    // One slot more, to see that none is written beyond the list.
    statuses_.assign(list.size() + 1, 4711);
    const NodeMoveTally tally = mover.move(list.data(), list.size(), statuses_.data());
    EXPECT_EQ(statuses_.back(), 4711);
    statuses_.pop_back();
    EXPECT_EQ(tally.entries(), list.size());
    return tally;
  }
  NodeMoveTally move(const std::vector<PageMove>& list) {
    NodeMover mover(nodes_);
    return move(mover, list);
  }
  // Every status says where the page is, or why it is where it was.
  void expect_truth(const std::vector<PageMove>& list) {
    for (std::size_t i = 0; i < list.size(); ++i) {
      const FakeNodes::Page* p = nodes_.find(list[i].page);
      const int status = statuses_[i];
      EXPECT_NE(status, kStatusUnwritten) << i;
      if (status < 0) continue;
      ASSERT_NE(p, nullptr) << i;
      EXPECT_EQ(status, p->node) << i;
      EXPECT_EQ(static_cast<unsigned>(status), list[i].node) << i;
    }
  }

  FakeNodes nodes_;
  std::vector<int> statuses_;
};

TEST_F(Mover, AnEmptyListIsNoWork) {
  EXPECT_EQ(move({}).entries(), 0u);
  EXPECT_EQ(nodes_.calls, 0u);
}

TEST_F(Mover, EachPageGoesToItsOwnNode) {
  std::vector<PageMove> list;
  for (std::size_t i = 0; i < 3000; ++i) {
    small(i);
    list.push_back({page(i), i % 3 == 0 ? 2u : 3u});
  }
  const NodeMoveTally tally = move(list);
  EXPECT_EQ(tally.of(Outcome::kMoved), (NodeMoveTally::Line{3000, 3000 * kPageSize}));
  for (std::size_t i = 0; i < list.size(); ++i) EXPECT_EQ(statuses_[i], i % 3 == 0 ? 2 : 3);
  expect_truth(list);
  // Two targets a batch: not a call for every change of the target.
  EXPECT_EQ(nodes_.move_calls, 2 * ((3000 + NodeMover::kBatch - 1) / NodeMover::kBatch));
}

TEST_F(Mover, AHugePageMovesByOneAddress) {
  huge(0);
  huge(1);
  const std::vector<PageMove> list{{block(0), 2, true}, {block(1) + 77 * kPageSize + 5, 3, true}};
  const NodeMoveTally tally = move(list);
  EXPECT_EQ(tally.of(Outcome::kMoved), (NodeMoveTally::Line{2, 2 * kPageblockSize}));
  EXPECT_EQ(statuses_, (std::vector<int>{2, 3}));
  EXPECT_EQ(nodes_.rooms[2].huge_blocks, 149u);
}

TEST_F(Mover, MixedOutcomesInOrder) {
  small(0);
  small(2, 2);
  small(3).shared = true;
  small(4).busy = ~0u;
  small(5).zero_page = true;
  huge(6);
  huge(7).busy = ~0u;
  small(9);
  const std::vector<PageMove> list{
      {page(0), 2}, {page(1), 2},        {page(2), 2},        {page(3), 2}, {page(4), 2},
      {page(5), 2}, {block(6), 2, true}, {block(7), 2, true}, {page(9), 9}, {page(9), 3}};
  NodeMover mover(nodes_);
  const NodeMoveTally tally = move(mover, list);
  EXPECT_EQ(statuses_,
            (std::vector<int>{2, -ENOENT, 2, -EACCES, -EBUSY, -EFAULT, 2, -EBUSY, -ENODEV, 3}));
  EXPECT_EQ(tally.of(Outcome::kMoved).entries, 3u);
  EXPECT_EQ(tally.of(Outcome::kAlreadyThere).entries, 1u);
  EXPECT_EQ(tally.of(Outcome::kAbsent).entries, 1u);
  EXPECT_EQ(tally.of(Outcome::kNoMemory).entries, 1u);
  EXPECT_EQ(tally.of(Outcome::kShared).entries, 1u);
  EXPECT_EQ(tally.of(Outcome::kPinned), (NodeMoveTally::Line{2, kPageSize + kPageblockSize}));
  EXPECT_EQ(tally.of(Outcome::kBadTarget).entries, 1u);
  EXPECT_EQ(mover.total().lines, tally.lines);
  move(mover, list);
  EXPECT_EQ(mover.total().entries(), 2 * list.size());
}

TEST_F(Mover, APinnedPageHoldsUpNoOther) {
  std::vector<PageMove> list;
  for (std::size_t i = 0; i < 500; ++i) {
    FakeNodes::Page& p = small(i);
    p.busy = i % 7 == 3 ? ~0u : 0;
    p.shared = i % 50 == 0;
    list.push_back({page(i), 2});
  }
  move(list);
  for (std::size_t i = 0; i < 500; ++i) {
    EXPECT_EQ(statuses_[i], i % 50 == 0 ? -EACCES : i % 7 == 3 ? -EBUSY : 2) << i;
  }
  expect_truth(list);
}

TEST_F(Mover, TriesAgainWithLongerPausesAndThenGivesUp) {
  small(0).busy = 1;
  small(1).busy = 3;
  small(2).busy = 4;
  NodeMover mover(nodes_, {.tries = 4, .pause = millis(1)});
  move(mover, {{page(0), 2}, {page(1), 2}, {page(2), 2}});
  EXPECT_EQ(statuses_, (std::vector<int>{2, 2, -EBUSY}));
  EXPECT_EQ(nodes_.pauses, (std::vector<Nanos>{millis(1), millis(2), millis(4)}));
}

TEST_F(Mover, APageThatTheKernelHasUnderMigrationIsLookedForAgain) {
  small(0).hidden = 1;
  small(1).hidden = 2;
  small(2, 2).hidden = 1;
  small(3);
  const NodeMoveTally tally =
      move({{page(0), 2}, {page(1), 2}, {page(2), 2}, {page(3), 2}, {page(4), 2}});
  EXPECT_EQ(statuses_, (std::vector<int>{2, -ENOENT, 2, 2, -ENOENT}));
  EXPECT_EQ(tally.of(Outcome::kAlreadyThere).entries, 1u);
  EXPECT_EQ(tally.of(Outcome::kAbsent).entries, 2u);
}

TEST_F(Mover, OneTryNeverSleeps) {
  small(0).busy = 1;
  small(1);
  NodeMover mover(nodes_, {.tries = 1});
  move(mover, {{page(0), 2}, {page(1), 2}});
  EXPECT_EQ(statuses_, (std::vector<int>{-EBUSY, 2}));
  EXPECT_TRUE(nodes_.pauses.empty());
}

TEST_F(Mover, TwoAddressesOfAHugePageAreOneMove) {
  huge(0);
  move({{block(0), 2, true}, {block(0) + kPageSize, 2, true}});
  EXPECT_EQ(statuses_, (std::vector<int>{2, 2}));
}

TEST_F(Mover, ATargetWithoutAFreeHugePageIsNotTried) {
  nodes_.rooms[2] = {5000, 5000, 0};
  huge(0);
  huge(1, 2);
  small(2);
  move({{block(0), 2, true}, {block(1), 2, true}, {page(2), 2}});
  EXPECT_EQ(statuses_, (std::vector<int>{-ENOSPC, 2, 2}));
  EXPECT_EQ(nodes_.splits(), 0u);
  nodes_.rooms[2] = {900, 400, 0};
  move({{block(0), 2, true}});
  EXPECT_EQ(statuses_, (std::vector<int>{-ENOMEM})) << "not even the pages";
  EXPECT_EQ(nodes_.splits(), 0u);
}

TEST_F(Mover, TheKernelCompactsWhereItIsAskedToAndHasPagesInPlenty) {
  nodes_.rooms[2] = {9000, NodeMover::kPlenty + kPagesPerBlock, 0};
  nodes_.compactable.push_back(2);
  std::vector<PageMove> list;
  for (std::size_t i = 0; i < 4; ++i) {
    huge(i);
    list.push_back({block(i), 2, true});
  }
  NodeMover mover(nodes_, {.compact_directly = true});
  move(mover, list);
  EXPECT_EQ(statuses_, (std::vector<int>{2, 2, -ENOSPC, -ENOSPC}));
  EXPECT_EQ(nodes_.splits(), 0u);
}

TEST_F(Mover, AFullTargetIsNotTried) {
  nodes_.rooms[2] = {5000, 0, 0};
  for (std::size_t i = 0; i < 10; ++i) small(i);
  move({{page(0), 2}, {page(1), 3}, {page(2), 2}});
  EXPECT_EQ(statuses_, (std::vector<int>{-ENOMEM, 3, -ENOMEM}));
  EXPECT_EQ(nodes_.pages_passed, 1u);
}

TEST_F(Mover, ATargetFillsUpHalfWay) {
  nodes_.rooms[2] = {10'000, 3 * kPagesPerBlock + 700, 5};
  std::vector<PageMove> list;
  for (std::size_t i = 0; i < 4; ++i) {
    huge(i);
    list.push_back({block(i), 2, true});
  }
  for (std::size_t i = 0; i < 800; ++i) {
    small(i);
    list.push_back({page(i), 2});
  }
  move(list);
  // The fourth block fits, and 188 pages; then nothing does.
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(statuses_[i], 2);
  for (std::size_t i = 0; i < 800; ++i) EXPECT_EQ(statuses_[4 + i], i < 188 ? 2 : -ENOMEM) << i;
  EXPECT_EQ(nodes_.splits(), 0u);
  expect_truth(list);
}

TEST_F(Mover, SomebodyElseTakesTheRoomMeanwhile) {
  nodes_.rooms[2] = {10'000, 600, 0};
  nodes_.thief[2] = 150;
  std::vector<PageMove> list;
  for (std::size_t i = 0; i < 512; ++i) {
    small(i);
    list.push_back({page(i), 2});
  }
  const NodeMoveTally tally = move(list);
  EXPECT_EQ(tally.of(Outcome::kMoved).entries, 450u);
  EXPECT_EQ(tally.of(Outcome::kTargetFull).entries, 62u);
  expect_truth(list);
}

TEST_F(Mover, CallsAreBoundedInBytes) {
  std::vector<PageMove> list;
  for (std::size_t i = 0; i < 40; ++i) {
    huge(i);
    list.push_back({block(i), 2, true});
  }
  NodeMover mover(nodes_, {.call_bytes = 8 * kPageblockSize});
  move(mover, list);
  EXPECT_EQ(nodes_.move_calls, 5u);
  EXPECT_EQ(statuses_, std::vector<int>(40, 2));
}

TEST_F(Mover, TheCpusetForbidsTheTarget) {
  nodes_.outside_cpuset.push_back(3);
  small(0);
  small(1);
  move({{page(0), 3}, {page(1), 2}});
  EXPECT_EQ(statuses_, (std::vector<int>{-ENODEV, 2}));
}

TEST_F(Mover, TheRateHoldsAndSaysSo) {
  std::vector<PageMove> list;
  for (std::size_t i = 0; i < 10; ++i) {
    huge(i);
    list.push_back({block(i), 2, true});
  }
  small(0);
  small(1, 2);
  list.push_back({page(0), 2});
  list.push_back({page(1), 2});
  NodeMover mover(nodes_, {}, RateLimit(10 * kPageblockSize, 4 * kPageblockSize + kPageSize));
  NodeMoveTally tally = move(mover, list);
  EXPECT_EQ(tally.of(Outcome::kMoved).entries, 4u);
  EXPECT_EQ(tally.of(Outcome::kThrottled).entries, 7u) << "a small page does not pass by";
  EXPECT_EQ(statuses_[3], 2);
  EXPECT_EQ(statuses_[4], -EAGAIN);
  EXPECT_EQ(statuses_.back(), 2) << "what is there already costs nothing";
  // 400 ms give four more, and those that are there take none of it.
  nodes_.clock = nodes_.clock + millis(400);
  tally = move(mover, list);
  EXPECT_EQ(tally.of(Outcome::kMoved).entries, 4u);
  EXPECT_EQ(tally.of(Outcome::kAlreadyThere).entries, 5u);
}

TEST_F(Mover, WhatDidNotMoveDoesNotCountAgainstTheRate) {
  huge(0).busy = ~0u;
  huge(1).shared = true;
  huge(2);
  NodeMover mover(nodes_, {.tries = 2}, RateLimit(kPageSize, 3 * kPageblockSize));
  move(mover, {{block(0), 2, true}, {block(1), 2, true}, {block(2), 2, true}});
  EXPECT_EQ(statuses_, (std::vector<int>{-EBUSY, -EACCES, 2}));
  const Nanos now = nodes_.clock;
  EXPECT_EQ(mover.rate_limit().wait_for(2 * kPageblockSize, now), Nanos{0});
  EXPECT_GT(mover.rate_limit().wait_for(3 * kPageblockSize, now), Nanos{0});
}

TEST_F(Mover, WhereTellsOfEachPage) {
  NodeMover mover(nodes_);
  std::vector<std::uintptr_t> at;
  std::vector<int> expected;
  for (std::size_t i = 0; i < 1200; ++i) {
    at.push_back(page(i));
    if (i % 5 == 0) {
      expected.push_back(-ENOENT);
      continue;
    }
    small(i, i % 2 == 0 ? 2 : 3).zero_page = i % 7 == 0;
    expected.push_back(i % 7 == 0 ? -EFAULT : i % 2 == 0 ? 2 : 3);
  }
  std::vector<int> got(at.size());
  mover.where(at.data(), at.size(), got.data());
  EXPECT_EQ(got, expected);
  nodes_.fail_at(2, EPERM);
  mover.where(at.data(), at.size(), got.data());
  EXPECT_EQ(got[0], expected[0]);
  EXPECT_EQ(got[600], -EPERM);
  EXPECT_EQ(got[1100], expected[1100]);
}

// One list with everything in it, and the n-th call fails, for every n and many reasons.
TEST_F(Mover, EveryFailureAtEveryCall) {
  const FakeNodes clean = nodes_;
  for (const int code : {ENOSYS, EPERM, ENOMEM, ENODEV, EACCES, EFAULT, EINTR, EAGAIN, ENOTSUP}) {
    bool failed = true;
    for (std::uint64_t n = 1; failed; ++n) {
      ASSERT_LT(n, 200u);
      nodes_ = clean;
      std::vector<PageMove> list;
      for (std::size_t i = 0; i < 600; ++i) {
        if (i % 11 == 0) {
          huge(i).busy = i % 33 == 0 ? 1 : 0;
          list.push_back({block(i), i % 2 == 0 ? 2u : 3u, true});
        } else {
          if (i % 13 != 0) {
            small(i).shared = i % 17 == 0;
            nodes_.pages[page(i)].busy = i % 101 == 0 ? ~0u : 0;
          }
          list.push_back({page(i), i % 3 == 0 ? 2u : 3u});
        }
      }
      nodes_.fail_at(n, code);
      NodeMover mover(nodes_);
      move(mover, list);
      expect_truth(list);
      EXPECT_EQ(nodes_.splits(), 0u);
      failed = nodes_.failed_once();
      nodes_.stop_failing();
      if (HasFailure()) FAIL() << "call " << n << " failed with " << code;
      // What the failure spared is done; a second time everything is settled as if there was none.
      move(mover, list);
      for (std::size_t i = 0; i < list.size(); ++i) {
        const FakeNodes::Page* p = nodes_.find(list[i].page);
        const int expected = p == nullptr     ? -ENOENT
                             : p->shared      ? -EACCES
                             : p->busy == ~0u ? -EBUSY
                                              : static_cast<int>(list[i].node);
        ASSERT_EQ(statuses_[i], expected) << i << ", call " << n << ", " << code;
      }
    }
  }
}

TEST_F(Mover, RandomMachinesNeverLieAndNeverSplit) {
  std::mt19937 random(7);
  for (int round = 0; round < 300; ++round) {
    nodes_.pages.clear();
    nodes_.add_node(0, 100'000, 100);
    nodes_.add_node(2, random() % 4000, random() % 8);
    nodes_.rooms[2].huge_blocks =
        std::min(nodes_.rooms[2].huge_blocks, nodes_.rooms[2].pages / kPagesPerBlock);
    nodes_.add_node(3, random() % 400, 0);
    std::vector<PageMove> list;
    const std::size_t length = random() % 1500;
    for (std::size_t i = 0; i < length; ++i) {
      const int from = random() % 3 == 0 ? 2 : 0;
      const unsigned to = random() % 4 == 0 ? 3u : random() % 4 == 0 ? 0u : 2u;
      const bool is_huge = random() % 5 == 0;
      if (random() % 10 != 0) {
        FakeNodes::Page& p = is_huge ? huge(i, from) : small(i, from);
        p.busy = random() % 20 == 0 ? 2u : 0u;
        p.shared = random() % 30 == 0;
        p.zero_page = random() % 30 == 0;
      }
      list.push_back({is_huge ? block(i) : page(i), to, is_huge});
    }
    if (random() % 2 == 0) nodes_.fail_at(random() % 20 + 1, random() % 2 == 0 ? ENOMEM : EPERM);
    move(list);
    expect_truth(list);
    ASSERT_EQ(nodes_.splits(), 0u);
  }
}

TEST(NodeMoveOutcome, EveryOutcomeHasAStatusAndAName) {
  for (const int code : {ENOENT, EFAULT, EACCES, EBUSY, ENOMEM, ENOSPC, EAGAIN, ENODEV}) {
    EXPECT_NE(outcome_of(-code), Outcome::kFailed) << code;
  }
  EXPECT_EQ(outcome_of(-EPERM), Outcome::kFailed);
  EXPECT_EQ(outcome_of(0), Outcome::kMoved);
  EXPECT_STREQ(to_string(Outcome::kMoved), "moved");
  EXPECT_STREQ(to_string(Outcome::kThrottled), "throttled");
  EXPECT_STREQ(to_string(Outcome::kFailed), "failed");
}

}  // namespace
}  // namespace heaptier::test
