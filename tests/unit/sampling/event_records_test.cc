// The kernel's ring of records, made by hand: wrapping round, losing, making no sense.
#include "runtime/sampling/event_records.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/fakes/fake_damon.h"

namespace heaptier {
namespace {

class Records : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(events_.open_tracepoint(1, 2, &ring_).ok()); }
  RecordTally read() {
    return read_records(
        ring_, [this](const EventRecord& r) { got_.emplace_back(r.body, r.body + r.bytes); });
  }
  FakeEvents events_;
  EventRing ring_;
  std::vector<std::vector<unsigned char>> got_;
};

TEST_F(Records, AnEmptyRingHasNone) {
  EXPECT_EQ(read().samples, 0U);
}

TEST_F(Records, AreReadAsTheyWereWrittenHoweverTheRingWraps) {
  // 56 bytes do not part 4096: in time a record begins at each place that is a multiple of 8.
  std::uint64_t written = 0;
  for (int round = 0; round < 200; ++round) {
    for (int i = 0; i < 1 + round % 60; ++i) {
      std::uint64_t body[6];
      for (std::uint64_t& word : body) word = ++written;
      events_.add(kRecordSample, body, sizeof body);
    }
    const RecordTally tally = read();
    EXPECT_EQ(tally.samples, static_cast<std::uint64_t>(1 + round % 60));
    EXPECT_FALSE(tally.broken);
    EXPECT_EQ(events_.unread(), 0U) << "the kernel has its room again";
  }
  std::uint64_t expected = 0;
  for (const auto& body : got_) {
    ASSERT_EQ(body.size(), 48U);
    for (std::size_t i = 0; i < 6; ++i) {
      std::uint64_t word = 0;
      std::memcpy(&word, body.data() + 8 * i, sizeof word);
      ASSERT_EQ(word, ++expected);
    }
  }
  EXPECT_EQ(expected, written);
}

TEST_F(Records, WhatWasLostIsCountedAndOthersAreSkipped) {
  const unsigned char body[1000] = {};
  events_.lose(17);
  events_.add(5, body, 24);                // throttled
  events_.add(kRecordSample, body, 1000);  // longer than any that is wanted
  events_.add(kRecordSample, body, 0);
  events_.add(kRecordLost, body, 8);  // too short to say how many
  events_.lose(4);
  const RecordTally tally = read();
  EXPECT_EQ(tally.lost, 21U);
  EXPECT_EQ(tally.samples, 1U);
  EXPECT_EQ(tally.throttled, 1U);
  EXPECT_EQ(tally.skipped, 2U);
  EXPECT_FALSE(tally.broken);
}

TEST_F(Records, WhatMakesNoSenseIsLeftAndReadingGoesOn) {
  const unsigned char body[16] = {};
  events_.add(kRecordSample, body, 16);
  events_.tear();  // three bytes are no record
  RecordTally tally = read();
  EXPECT_TRUE(tally.broken);
  EXPECT_EQ(tally.samples, 1U);
  EXPECT_EQ(events_.unread(), 0U);
  // A length of nothing, which would be read for ever.
  const std::uint64_t none = 0;
  EventRing ring = ring_;
  std::uint64_t head = 16;
  std::uint64_t tail = 0;
  unsigned char data[64] = {};
  ring = {data, sizeof data, &head, &tail};
  std::memcpy(data, &none, sizeof none);
  EXPECT_TRUE(read_records(ring, [](const EventRecord&) {}).broken);
  EXPECT_EQ(tail, head);
  // More than the ring holds.
  head = tail + 65;
  EXPECT_TRUE(read_records(ring, [](const EventRecord&) { FAIL(); }).broken);
  EXPECT_EQ(tail, head);
  // A length beyond what was written.
  const std::uint64_t header = (std::uint64_t{40} << 48) | kRecordSample;
  head += 16;
  for (std::size_t i = 0; i < 8; ++i) {
    data[(tail + i) % 64] = static_cast<unsigned char>(header >> (8 * i));
  }
  EXPECT_TRUE(read_records(ring, [](const EventRecord&) { FAIL(); }).broken);
  events_.add(kRecordSample, body, 16);
  EXPECT_EQ(read().samples, 1U);
}

}  // namespace
}  // namespace heaptier
