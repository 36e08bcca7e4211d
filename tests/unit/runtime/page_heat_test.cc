// What the words of a watched block say, on a table alone.
#include "runtime/page_heat.h"

#include <gtest/gtest.h>

#include "runtime/node_moves.h"

namespace heaptier::test {
namespace {

class PageHeat : public testing::Test {
 protected:
  static constexpr BlockIndex kBlock{1};
  static constexpr Gap kSoon = 20;

  PageHeat() {
    EXPECT_TRUE(table_.init(4).ok());
    std::atomic<std::uint64_t>* words = table_.make_words();
    for (std::uint32_t i = 0; i < kPagesPerBlock; ++i) {
      table_.seed(words, i, PageState::kResident);
    }
    table_.adopt(kBlock, words);
  }
  static PageIndex page(std::uint32_t i) { return {first_page(kBlock).v + i}; }
  PageWord word(std::uint32_t i) { return table_.peek(page(i)); }
  void set(std::uint32_t i, PageState state, Seen s, Gap gap) {
    const PageWord was = table_.lock(page(i));
    table_.publish(page(i), was, with_seen(was.with_state(state).with_estimate(gap), s));
  }

  PageblockTable table_;
};

TEST_F(PageHeat, StockTellsWhatIsBelowFromWhatIsAbove) {
  table_.block(kBlock).slow.store(300);
  for (std::uint32_t i = 0; i < 4; ++i) note_place(table_, page(i), true);
  set(0, PageState::kResident, Seen::kTouched, 10);
  set(1, PageState::kParked, Seen::kNo, 0);
  set(7, PageState::kResident, Seen::kTouched, 10);
  set(8, PageState::kResident, Seen::kTouched, 30);
  set(9, PageState::kResident, Seen::kCandidateAgain, 20);
  set(10, PageState::kParked, Seen::kCandidate, 5);
  set(11, PageState::kParked, Seen::kNo, 5);
  set(12, PageState::kResident, Seen::kNo, 5);
  WatchedPart below, above;
  below.gap = 33;
  take_stock(table_, kBlock, kSoon, &below, &above);
  EXPECT_EQ(above.touched, 1);
  EXPECT_EQ(above.parked, 1);
  EXPECT_EQ(below.touched, 3);
  EXPECT_EQ(below.soon, 2);
  EXPECT_EQ(below.parked, 2);
  EXPECT_EQ(below.away, length_of(10) + length_of(30) + length_of(20));
  EXPECT_EQ(below.gap, 33) << "the policy's";
  // On the first tier as a whole: the words do not count.
  table_.block(kBlock).slow.store(0);
  take_stock(table_, kBlock, kSoon, &below, &above);
  EXPECT_EQ(below.touched + below.parked, 0);
  EXPECT_EQ(above.touched, 4);
  EXPECT_EQ(above.parked, 3);
}

TEST_F(PageHeat, CandidatesAreThoseTouchedInTimeBelowTheFirstTier) {
  table_.block(kBlock).slow.store(512);
  note_place(table_, page(2), true);
  set(2, PageState::kResident, Seen::kTouched, kSoon);
  set(3, PageState::kResident, Seen::kTouched, kSoon);
  set(4, PageState::kResident, Seen::kTouched, kSoon + 1);
  set(5, PageState::kParked, Seen::kTouched, 1);
  mark_candidates(table_, kBlock, kSoon);
  EXPECT_EQ(seen(word(3)), Seen::kCandidate);
  EXPECT_EQ(seen(word(2)), Seen::kNo) << "has gone up";
  EXPECT_TRUE(on_first_tier(word(2))) << "its place is still known";
  EXPECT_EQ(word(3).estimate(), kSoon);
  EXPECT_EQ(seen(word(4)), Seen::kNo);
  EXPECT_EQ(seen(word(5)), Seen::kNo) << "away";
  set(3, PageState::kResident, Seen::kCandidateAgain, kSoon);
  EXPECT_TRUE(found_hot(word(3), true, kSoon));
  EXPECT_FALSE(found_hot(word(3), true, kSoon - 1));
  set(4, PageState::kResident, Seen::kTouched, 2);
  EXPECT_TRUE(found_hot(word(4), false, kSoon));
  EXPECT_FALSE(found_hot(word(4), true, kSoon));
  forget_seen(table_, kBlock);
  EXPECT_FALSE(found_hot(word(3), false, kSoon));
  EXPECT_TRUE(on_first_tier(word(2)));
  // Somebody has the page: it is left alone.
  const PageWord held = table_.lock(page(4));
  mark_candidates(table_, kBlock, kSoon);
  EXPECT_TRUE(word(4).locked());
  table_.unlock(page(4), held);
}

TEST_F(PageHeat, ABlockThatIsNotManagedHasNothingToSay) {
  WatchedPart below, above;
  below.touched = 9;
  take_stock(table_, {2}, kSoon, &below, &above);
  EXPECT_EQ(below.touched, 0);
  mark_candidates(table_, {2}, kSoon);
  forget_seen(table_, {2});
}

TEST(ParkStamps, SayWhetherAPageWasParkedWithItsBlock) {
  const Nanos block = seconds(100);
  const auto parked = [](Nanos at) { return PageWord{}.with_stamp(park_stamp(at)); };
  EXPECT_TRUE(parked_with_block(parked(block), block));
  EXPECT_TRUE(parked_with_block(parked(block + millis(2)), block));
  EXPECT_FALSE(parked_with_block(parked(block - millis(200)), block));
  EXPECT_FALSE(parked_with_block(parked(block - seconds(3)), block));
  EXPECT_NEAR(static_cast<double>(since_parked(parked(block), block + seconds(2)).v), 2e9, 1e6);
}

TEST(Samples, AreCountedFromTheFirstOnAndNoFurtherThanTheyAreAskedFor) {
  Pageblock block;
  EXPECT_TRUE(note_sample(block, true)) << "what the word says is of another time";
  EXPECT_EQ(block.repeats.load(), 0);
  EXPECT_FALSE(note_sample(block, true));
  EXPECT_FALSE(note_sample(block, false));
  EXPECT_EQ(block.repeats.load(), 1);
  EXPECT_EQ(block.samples.load(), 3);
  for (int i = 0; i < 400; ++i) note_sample(block, true);
  EXPECT_EQ(block.samples.load(), 255);
  EXPECT_EQ(block.repeats.load(), 253);
}

}  // namespace
}  // namespace heaptier::test
