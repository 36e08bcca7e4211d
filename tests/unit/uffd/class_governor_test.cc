#include "uffd/class_governor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace heaptier {
namespace {

// A machine on which supervise() is called each millisecond. Says when the class changed.
class Machine {
 public:
  // `starving`: messages wait and the idle worker gets no CPU; otherwise it answers within the
  // tick.
  void run(Nanos duration, bool starving, bool faults = true) {
    for (const Nanos end = now_ + duration; now_ < end; now_ = now_ + millis(1)) {
      WorkerSample s;
      const bool idle = governor.current() == HandlerClass::kIdle;
      s.pending = faults && idle && starving;
      if (faults && !s.pending) ++finished_;
      s.progress = finished_;
      const HandlerClass before = governor.current();
      if (governor.decide(now_, &s, 1, finished_) != before) switches.push_back(now_);
    }
  }
  Nanos now() const { return now_; }

  ClassGovernor governor;
  std::vector<Nanos> switches;

 private:
  Nanos now_ = seconds(100);
  std::uint64_t finished_ = 0;
};

TEST(ClassGovernor, StaysIdleWhileFaultsAreAnswered) {
  Machine m;
  m.run(seconds(10), false);
  m.run(seconds(10), false, false);
  EXPECT_EQ(m.governor.current(), HandlerClass::kIdle);
  EXPECT_TRUE(m.switches.empty());
}

TEST(ClassGovernor, LeavesTheIdleClassOneMillisecondAfterAFaultIsSeenToStarve) {
  Machine m;
  m.run(millis(5), false);
  const Nanos began = m.now();
  m.run(millis(5), true);
  ASSERT_EQ(m.switches.size(), 1u);
  EXPECT_EQ(m.switches[0] - began, millis(1));
  EXPECT_EQ(m.governor.current(), HandlerClass::kNormal);
}

TEST(ClassGovernor, TriesIdleAgainAfterAHoldThatDoublesUpToAMinute) {
  Machine m;
  m.run(seconds(400), true);
  std::vector<Nanos> holds;
  for (std::size_t i = 1; i < m.switches.size(); i += 2) {
    holds.push_back(m.switches[i] - m.switches[i - 1]);
  }
  ASSERT_GE(holds.size(), 17u);
  Nanos expected = ClassGovernor::kFirstHold;
  for (const Nanos hold : holds) {
    EXPECT_EQ(hold, expected);
    expected = std::min(expected + expected, ClassGovernor::kLongestHold);
  }
  EXPECT_EQ(expected, ClassGovernor::kLongestHold);
}

TEST(ClassGovernor, AnIdleClassThatAnswersManyMayStarveNowAndThen) {
  Machine m;
  m.run(seconds(8), true);
  EXPECT_GT(m.governor.hold(), seconds(1));
  m.run(seconds(20), false);
  ASSERT_EQ(m.governor.current(), HandlerClass::kIdle);
  for (int i = 0; i < 10; ++i) {
    m.run(millis(1 + static_cast<int>(ClassGovernor::kWorthStarving)), false);
    m.run(millis(2), true);
    ASSERT_EQ(m.governor.current(), HandlerClass::kNormal) << i;
    EXPECT_EQ(m.governor.hold(), ClassGovernor::kFirstHold) << i;
    m.run(ClassGovernor::kFirstHold, true);
    ASSERT_EQ(m.governor.current(), HandlerClass::kIdle) << i;
  }
  // Too few between two times: not worth it.
  m.run(millis(ClassGovernor::kWorthStarving / 2), false);
  m.run(millis(2), true);
  EXPECT_EQ(m.governor.hold(), ClassGovernor::kFirstHold + ClassGovernor::kFirstHold);
}

TEST(ClassGovernor, AProcessThatWasStoppedDidNotStarve) {
  ClassGovernor g;
  const WorkerSample s{true, 1, {}};
  EXPECT_EQ(g.decide(seconds(1), &s, 1, 0), HandlerClass::kIdle);
  EXPECT_EQ(g.decide(seconds(5), &s, 1, 0), HandlerClass::kIdle);
  EXPECT_EQ(g.decide(seconds(5) + millis(1), &s, 1, 0), HandlerClass::kNormal);
}

TEST(ClassGovernor, ASlowFaultIsNotAStarvingHandler) {
  ClassGovernor g;
  WorkerSample s{true, 7, {}};
  for (int tick = 0; tick < 100; ++tick) {
    s.cpu = millis(tick);  // on a CPU all the time
    EXPECT_EQ(g.decide(millis(tick), &s, 1, 0), HandlerClass::kIdle) << tick;
  }
  // and then it gets none any more
  EXPECT_EQ(g.decide(millis(100), &s, 1, 0), HandlerClass::kNormal);
}

TEST(ClassGovernor, WatchesEveryShardOnItsOwn) {
  ClassGovernor g;
  WorkerSample s[3] = {{true, 0, {}}, {false, 0, {}}, {true, 5, {}}};
  for (int tick = 0; tick < 10; ++tick) {
    ++s[0].progress;
    ++s[2].progress;
    ASSERT_EQ(g.decide(millis(tick), s, 3, 0), HandlerClass::kIdle);
  }
  ++s[0].progress;  // the third one stands still
  EXPECT_EQ(g.decide(millis(10), s, 3, 0), HandlerClass::kNormal);
}

TEST(ClassGovernor, FrequentCallsDoNotShortenTheMillisecond) {
  ClassGovernor g;
  const WorkerSample s{true, 1, {}};
  for (int tick = 0; tick < 10; ++tick) {
    EXPECT_EQ(g.decide(micros(100 * tick), &s, 1, 0), HandlerClass::kIdle);
  }
  EXPECT_EQ(g.decide(micros(1000), &s, 1, 0), HandlerClass::kNormal);
}

TEST(ClassGovernor, AWaitThatEndsStartsAnew) {
  ClassGovernor g;
  for (int tick = 0; tick < 100; ++tick) {
    const WorkerSample s{tick % 2 == 0, 1, {}};
    EXPECT_EQ(g.decide(millis(tick), &s, 1, 0), HandlerClass::kIdle);
  }
  EXPECT_EQ(g.switches(), 0u);
}

}  // namespace
}  // namespace heaptier
