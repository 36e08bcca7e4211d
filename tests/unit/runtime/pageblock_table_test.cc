#include "runtime/pageblock_table.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "runtime/content.h"
#include "runtime/probation.h"
#include "runtime/rest.h"

namespace heaptier {
namespace {

constexpr PageIndex kPage{700};  // in block 1

PageblockTable* with_one_block(PageblockTable* table) {
  EXPECT_TRUE(table->init(4).ok());
  std::atomic<std::uint64_t>* words = table->make_words();
  table->seed(words, 3, PageState::kResident);
  table->adopt({1}, words);
  return table;
}

TEST(PageblockTable, CountsWhatItAdopts) {
  PageblockTable table;
  with_one_block(&table);
  EXPECT_FALSE(table.managed({0}));
  EXPECT_TRUE(table.managed(kPage));
  EXPECT_EQ(table.total(PageState::kResident), 1u);
  EXPECT_EQ(table.total(PageState::kUntouched), 511u);
  EXPECT_EQ(table.block({1}).count(PageState::kResident), 1u);
}

TEST(PageblockTable, CountsThePagesThatRest) {
  PageblockTable table;
  with_one_block(&table);
  const PageIndex p{512 + 3};
  const Nanos at = seconds(7);
  PageWord w = table.lock(p);
  table.publish(p, w, to_rest(w, at));
  EXPECT_EQ(table.resting_pages(), 1u);
  EXPECT_EQ(table.block({1}).resting.load(), 1u);
  w = table.lock(p);
  table.publish(p, w, to_rest(w, at));  // again: counted once
  EXPECT_EQ(table.resting_pages(), 1u);
  w = table.lock(p);
  table.publish(p, w, w.with_state(PageState::kParked));
  EXPECT_EQ(table.resting_pages(), 0u);
  EXPECT_EQ(table.block({1}).resting.load(), 0u);
}

TEST(Rest, LastsLongerEachTimeAndEnds) {
  PageWord w = PageWord{}.with_state(PageState::kResident);
  EXPECT_FALSE(w.resting());
  const Nanos begin = seconds(100);
  const std::int64_t lengths[] = {4, 16, 64, 64};
  for (const std::int64_t length : lengths) {
    w = to_rest(w, begin);
    EXPECT_TRUE(w.resting());
    EXPECT_FALSE(rested(w, begin));
    EXPECT_FALSE(rested(w, begin + seconds(length - 1)));
    EXPECT_TRUE(rested(w, begin + seconds(length + length / 8 + 2)));
  }
  // The clock wraps, and a begin at its zero is a begin.
  const Nanos wrap{std::int64_t{65536} << 30};
  w = to_rest(PageWord{}.with_state(PageState::kResident), wrap);
  EXPECT_TRUE(w.resting());
  EXPECT_FALSE(rested(w, wrap + seconds(1)));
  EXPECT_TRUE(rested(w, wrap + seconds(7)));
}

TEST(PageblockTable, APageHasOneOwner) {
  PageblockTable table;
  with_one_block(&table);
  PageWord a;
  PageWord b;
  ASSERT_TRUE(table.try_lock(kPage, &a));
  EXPECT_FALSE(table.try_lock(kPage, &b));
  table.unlock(kPage, a);
  EXPECT_TRUE(table.try_lock(kPage, &b));
  table.unlock(kPage, b);
}

TEST(PageblockTable, EveryIllegalMoveIsRefusedAndCounted) {
  for (int from = 0; from < kPageStates; ++from) {
    for (int to = 0; to < kPageStates; ++to) {
      PageblockTable table;
      ASSERT_TRUE(table.init(2).ok());
      std::atomic<std::uint64_t>* words = table.make_words();
      table.seed(words, 0, static_cast<PageState>(from));
      table.adopt({0}, words);
      const PageWord was = table.lock({0});
      const PageWord now = was.with_state(static_cast<PageState>(to));
      const bool legal =
          from == to || can_go(static_cast<PageState>(from), static_cast<PageState>(to));
      EXPECT_EQ(table.publish({0}, was, now), legal);
      EXPECT_EQ(table.refused(), legal ? 0u : 1u);
      EXPECT_EQ(static_cast<int>(table.peek({0}).state()), legal ? to : from);
      EXPECT_EQ(table.total(static_cast<PageState>(legal ? to : from)),
                (legal ? to : from) == 0 ? 512u : 1u);
      EXPECT_FALSE(table.peek({0}).locked());
    }
  }
}

// Of eight pages three rest, one may not go where it is asked to and one stays as it is.
TEST(PageblockTable, ManyPagesAreCountedTogetherAsTheyAreOneByOne) {
  constexpr std::uint32_t kPages = 8;
  PageblockTable one, all;
  PageWord was[kPages], now[kPages];
  for (PageblockTable* table : {&one, &all}) {
    ASSERT_TRUE(table->init(2).ok());
    std::atomic<std::uint64_t>* words = table->make_words();
    for (std::uint32_t i = 0; i < kPages; ++i) table->seed(words, i, PageState::kResident);
    table->adopt({0}, words);
    for (std::uint32_t i = 0; i < kPages; ++i) {
      const PageWord w = table->lock({i});
      const PageWord begun = i >= 3 && i < 6 ? w.with_incompressible(1).with_stamp(7) : w;
      table->publish({i}, w, begun);
      was[i] = table->lock({i});
      now[i] = was[i].with_stamp(0).with_state(PageState::kParked);
    }
    now[1] = was[1];
    now[6] = was[6].with_state(PageState::kStored);  // not from kResident
  }
  for (std::uint32_t i = 0; i < kPages; ++i) one.publish({i}, was[i], now[i]);
  std::uint32_t refused = 0;
  EXPECT_EQ(all.publish_all({0}, was, now, kPages, &refused), kPages - 2);
  EXPECT_EQ(refused, 1u);
  EXPECT_EQ(all.refused(), one.refused());
  for (int s = 0; s < kPageStates; ++s) {
    const auto state = static_cast<PageState>(s);
    EXPECT_EQ(all.total(state), one.total(state)) << to_string(state);
    EXPECT_EQ(all.block({0}).count(state), one.block({0}).count(state)) << to_string(state);
  }
  EXPECT_EQ(all.resting_pages(), 0u);
  for (std::uint32_t i = 0; i < kPages; ++i) {
    EXPECT_EQ(all.peek({i}).bits(), one.peek({i}).bits()) << i;
    EXPECT_FALSE(all.peek({i}).locked());
  }
}

TEST(PageblockTable, ThreadsThatLockTheSamePagesLoseNoCount) {
  PageblockTable table;
  with_one_block(&table);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&table] {
      for (std::uint32_t i = 0; i < 20000; ++i) {
        const PageIndex p{512 + i % 8};
        const PageWord was = table.lock(p);
        const bool away = was.state() == PageState::kUntouched;
        table.publish(p, was, was.with_state(away ? PageState::kResident : PageState::kUntouched));
      }
    });
  }
  for (std::thread& t : threads) t.join();
  std::uint64_t resident = 0;
  for (std::uint32_t i = 0; i < 512; ++i) {
    resident += table.peek({512 + i}).state() == PageState::kResident ? 1 : 0;
  }
  EXPECT_EQ(table.total(PageState::kResident), resident);
  EXPECT_EQ(table.total(PageState::kUntouched), 512 - resident);
}

// Block 1, all resident, parked and joined; page 7 was seen touched.
constexpr BlockIndex kJoined{1};
void with_joined_block(PageblockTable* table, std::uint32_t stamp = 9) {
  ASSERT_TRUE(table->init(2).ok());
  std::atomic<std::uint64_t>* words = table->make_words();
  for (std::uint32_t i = 0; i < kPagesPerBlock; ++i) table->seed(words, i, PageState::kResident);
  table->adopt(kJoined, words);
  PageWord was[kPagesPerBlock], now[kPagesPerBlock];
  for (std::uint32_t i = 0; i < kPagesPerBlock; ++i) {
    ASSERT_TRUE(table->try_lock({512 + i}, &was[i]));
    now[i] = was[i].with_state(PageState::kParked).with_stamp(stamp).with_credits(i == 7 ? 1 : 0);
  }
  std::uint32_t refused = 0;
  ASSERT_EQ(table->publish_and_join(kJoined, was, now, &refused), kPagesPerBlock);
  ASSERT_TRUE(table->block(kJoined).compound.load());
}

void expect_all(const PageblockTable& table, PageState state, std::uint32_t stamp) {
  for (std::uint32_t i = 0; i < kPagesPerBlock; ++i) {
    const PageWord w = table.peek({512 + i});
    ASSERT_EQ(w.state(), state) << i;
    ASSERT_EQ(w.stamp(), stamp) << i;
    ASSERT_EQ(w.credits(), i == 7 ? 1u : 0u) << i;
    ASSERT_FALSE(w.locked()) << i;
  }
  for (int s = 0; s < kPageStates; ++s) {
    const auto each = static_cast<PageState>(s);
    EXPECT_EQ(table.total(each), each == state ? kPagesPerBlock : 0) << to_string(each);
    EXPECT_EQ(table.block(kJoined).count(each), each == state ? kPagesPerBlock : 0);
  }
}

TEST(JoinedWords, OneSpeaksForAll) {
  PageblockTable table;
  with_joined_block(&table);
  expect_all(table, PageState::kParked, 9);
  PageWord head, other;
  ASSERT_TRUE(table.try_lock_joined(kJoined, &head));
  EXPECT_FALSE(table.try_lock_joined(kJoined, &other));
  EXPECT_FALSE(table.try_lock({512}, &other));
  EXPECT_FALSE(table.try_lock({512 + 300}, &other));
  EXPECT_TRUE(table.peek({512 + 300}).locked());
  table.publish_joined(kJoined, head, PageState::kResident, 0);
  expect_all(table, PageState::kResident, 0);
  EXPECT_TRUE(table.block(kJoined).compound.load());
}

TEST(JoinedWords, WhoTakesOnePageTakesThemApart) {
  for (const std::uint32_t page : {0u, 7u, 511u}) {
    PageblockTable table;
    with_joined_block(&table);
    PageWord head;
    ASSERT_TRUE(table.try_lock_joined(kJoined, &head));
    table.publish_joined(kJoined, head, PageState::kResident, 0);
    PageWord was;
    ASSERT_TRUE(table.try_lock({512 + page}, &was));
    EXPECT_EQ(was.state(), PageState::kResident);
    EXPECT_FALSE(table.block(kJoined).compound.load());
    EXPECT_FALSE(table.try_lock_joined(kJoined, &head));
    table.unlock({512 + page}, was);
    expect_all(table, PageState::kResident, 0);
  }
}

TEST(JoinedWords, TakenApartByTheirOwnerTheyAreHisOneByOne) {
  PageblockTable table;
  with_joined_block(&table);
  PageWord head, other;
  PageWord words[kPagesPerBlock];
  ASSERT_TRUE(table.try_lock_joined(kJoined, &head));
  table.take_apart(kJoined, words);
  for (std::uint32_t i = 0; i < kPagesPerBlock; ++i) {
    EXPECT_EQ(words[i].state(), PageState::kParked);
    EXPECT_FALSE(table.try_lock({512 + i}, &other)) << i;
    EXPECT_TRUE(table.publish({512 + i}, words[i], words[i].with_state(PageState::kResident)));
  }
  expect_all(table, PageState::kResident, 9);
}

// A mark, a page that would not shrink, a state of another kind: each has to be kept by itself.
TEST(JoinedWords, OnlyWhatNeedsNoWordOfItsOwnIsJoined) {
  const auto joins = [](auto change) {
    PageblockTable table;
    EXPECT_TRUE(table.init(2).ok());
    std::atomic<std::uint64_t>* words = table.make_words();
    for (std::uint32_t i = 0; i < kPagesPerBlock; ++i) table.seed(words, i, PageState::kResident);
    table.adopt(kJoined, words);
    PageWord was[kPagesPerBlock], now[kPagesPerBlock];
    for (std::uint32_t i = 0; i < kPagesPerBlock; ++i) {
      was[i] = table.lock({512 + i});
      now[i] = was[i].with_state(PageState::kParked);
    }
    now[300] = change(now[300]);
    std::uint32_t refused = 0;
    table.publish_and_join(kJoined, was, now, &refused);
    for (std::uint32_t i = 0; i < kPagesPerBlock; ++i) EXPECT_FALSE(table.peek({512 + i}).locked());
    return table.block(kJoined).compound.load();
  };
  EXPECT_TRUE(joins([](PageWord w) { return w; }));
  EXPECT_FALSE(joins([](PageWord w) { return w.with_slot(5); }));
  EXPECT_FALSE(joins([](PageWord w) { return w.with_incompressible(1); }));
  EXPECT_FALSE(joins([](PageWord w) { return w.with_state(PageState::kResident); }));
}

// Some move all of it to and fro, some want single pages, and one joins them again.
TEST(JoinedWords, ThreadsThatWantThemWholeAndOneByOneLoseNothing) {
  PageblockTable table;
  with_joined_block(&table);
  std::atomic<bool> stop{false};
  std::atomic<std::uint32_t> whole{0}, single{0};
  std::vector<std::thread> threads;
  for (std::uint32_t t = 0; t < 2; ++t) {
    threads.emplace_back([&] {
      while (!stop.load()) {
        PageWord head;
        if (!table.try_lock_joined(kJoined, &head)) continue;
        const bool away = head.state() == PageState::kParked;
        table.publish_joined(kJoined, head, away ? PageState::kResident : PageState::kParked, 9);
        whole.fetch_add(1);
      }
    });
    threads.emplace_back([&, t] {
      for (std::uint32_t i = t; !stop.load(); ++i) {
        const PageIndex p{512 + i * 37 % 512};
        PageWord was;
        if (!table.try_lock(p, &was)) continue;
        const bool away = was.state() == PageState::kParked;
        table.publish(
            p, was, was.with_state(away ? PageState::kResident : PageState::kParked).with_stamp(9));
        single.fetch_add(1);
        if (i % 64 == 0) std::this_thread::yield();
      }
    });
  }
  threads.emplace_back([&] {
    for (std::uint32_t n = 0; n < 2000;) {
      PageWord was[kPagesPerBlock], now[kPagesPerBlock];
      for (std::uint32_t i = 0; i < kPagesPerBlock; ++i) {
        for (was[i] = table.lock({512 + i}); was[i].state() == PageState::kParked;) {
          table.publish({512 + i}, was[i], was[i].with_state(PageState::kResident));
          was[i] = table.lock({512 + i});
        }
        now[i] = was[i].with_state(PageState::kParked).with_stamp(9);
      }
      std::uint32_t refused = 0;
      table.publish_and_join(kJoined, was, now, &refused);
      ++n;
    }
    stop.store(true);
  });
  for (std::thread& t : threads) t.join();
  std::uint64_t parked = 0;
  for (std::uint32_t i = 0; i < kPagesPerBlock; ++i) {
    const PageWord w = table.peek({512 + i});
    EXPECT_FALSE(w.locked()) << i;
    EXPECT_EQ(w.credits(), i == 7 ? 1u : 0u) << i;
    parked += w.state() == PageState::kParked ? 1 : 0;
  }
  EXPECT_EQ(table.total(PageState::kParked), parked);
  EXPECT_EQ(table.total(PageState::kResident), kPagesPerBlock - parked);
  EXPECT_EQ(table.refused(), 0u);
  EXPECT_GT(whole.load() + single.load(), 0u);
}

TEST(Probation, FirstInFirstOutAndBounded) {
  Probation q;
  ASSERT_TRUE(q.init(2).ok());
  for (std::uint32_t i = 0; i < 4; ++i) EXPECT_TRUE(q.push({i}, millis(i)));
  EXPECT_FALSE(q.push({9}, millis(9))) << "full";
  PageIndex out[4];
  EXPECT_EQ(q.pop(out, 4, millis(1)), 2u) << "only those that came by then";
  EXPECT_EQ(out[0].v, 0u);
  EXPECT_EQ(out[1].v, 1u);
  EXPECT_EQ(q.size(), 2u);
  EXPECT_EQ(q.pop(out, 1, seconds(1)), 1u);
  EXPECT_EQ(out[0].v, 2u);
}

TEST(Probation, GrowsWhenCrowdedAndKeepsItsOrder) {
  Probation q;
  ASSERT_TRUE(q.init(3).ok());
  PageIndex out[64];
  for (std::uint32_t i = 0; i < 5; ++i) ASSERT_TRUE(q.push({i}, Nanos{}));
  ASSERT_EQ(q.pop(out, 5, Nanos{}), 5u);  // so that the queue lies across the end of the ring
  for (std::uint32_t i = 100; i < 105; ++i) ASSERT_TRUE(q.push({i}, Nanos{}));
  ASSERT_TRUE(q.grow_if_crowded().ok());
  ASSERT_TRUE(q.push({105}, Nanos{}));
  ASSERT_TRUE(q.grow_if_crowded().ok());
  for (std::uint32_t i = 106; i < 112; ++i) ASSERT_TRUE(q.push({i}, Nanos{}));
  ASSERT_EQ(q.pop(out, 64, Nanos{}), 12u);
  for (std::uint32_t i = 0; i < 12; ++i) EXPECT_EQ(out[i].v, 100 + i);
}

TEST(OperationGate, ClosingWaitsForThoseInsideAndHoldsOthersBack) {
  OperationGate gate;
  std::atomic<int> done{0};
  gate.enter();
  std::thread closer([&] {
    gate.close();
    EXPECT_EQ(done.load(), 1);
    gate.open();
  });
  done = 1;
  gate.leave();
  closer.join();
  gate.enter();
  gate.leave();
}

}  // namespace
}  // namespace heaptier
