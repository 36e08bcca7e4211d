// The protocol of DAMON's files against a kernel that is made up: what is ours, what is somebody
// else's, and every call that fails.
#include "runtime/sampling/damon.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/fakes/fake_damon.h"

namespace heaptier {
namespace {

constexpr int kMe = 100;
constexpr int kOther = 200;
const SampledRange kRanges[] = {{0x200000, 0x400000}, {0x600000, 0x800000}};

class DamonFiles : public testing::Test {
 protected:
  Errno start() {
    const Errno e = damon_.look(kMe);
    return e.failed() ? e : damon_.start(kMe, pace_, kRanges);
  }
  std::string why() const { return damon_.why_not(); }

  FakeDamon kernel_;
  FakeEvents events_;
  Damon damon_{kernel_, events_};
  DamonPace pace_{millis(5), 20, 3, 3};
};

TEST_F(DamonFiles, LooksAtNothingButTheRangesOfThisProcess) {
  ASSERT_TRUE(start().ok()) << why();
  EXPECT_TRUE(damon_.started());
  EXPECT_TRUE(damon_.runs());
  EXPECT_TRUE(kernel_.on());
  const std::string context = "0/contexts/0/";
  EXPECT_EQ(kernel_.get(context + "operations"), "fvaddr");
  EXPECT_EQ(kernel_.get(context + "targets/0/pid_target"), "100");
  EXPECT_EQ(kernel_.number(context + "monitoring_attrs/intervals/sample_us"), 5000U);
  EXPECT_EQ(kernel_.number(context + "monitoring_attrs/intervals/aggr_us"), 100000U);
  EXPECT_EQ(kernel_.number(context + "targets/0/regions/nr_regions"), 2U);
  EXPECT_EQ(kernel_.number(context + "targets/0/regions/1/start"), 0x600000U);
  EXPECT_EQ(kernel_.number(context + "targets/0/regions/1/end"), 0x800000U);
  EXPECT_EQ(events_.id, 734U);
  EXPECT_EQ(events_.thread, 777) << "the kdamond's own reports and no others";
}

TEST_F(DamonFiles, LeavesNothingBehind) {
  ASSERT_TRUE(start().ok());
  damon_.stop();
  EXPECT_EQ(kernel_.get("nr_kdamonds"), "0");
  EXPECT_FALSE(events_.is_open());
  EXPECT_FALSE(damon_.started());
  const std::size_t orders = kernel_.orders.size();
  damon_.stop();
  EXPECT_EQ(kernel_.orders.size(), orders) << "once is enough";
}

TEST_F(DamonFiles, BeginsAnewForOtherRanges) {
  ASSERT_TRUE(start().ok());
  const SampledRange one[] = {{0x1000000, 0x2000000}};
  ASSERT_TRUE(damon_.start(kMe, pace_, one).ok()) << why();
  EXPECT_EQ(kernel_.number("0/contexts/0/targets/0/regions/nr_regions"), 1U);
  EXPECT_TRUE(kernel_.on());
  EXPECT_TRUE(events_.is_open());
  EXPECT_EQ(events_.opened, 2);
}

TEST_F(DamonFiles, HandsOnWhatIsReported) {
  ASSERT_TRUE(start().ok());
  events_.report(0x200000, 0x400000, 20);
  events_.lose(3);
  events_.report(0x400000, 0x400000, 1);  // nothing
  const std::uint32_t short_one[] = {100, 0};
  events_.add(9, short_one, sizeof short_one);  // says that it is longer than it is
  const std::uint32_t cut[] = {4, 0};
  events_.add(9, cut, sizeof cut);  // without the fields
  events_.report(0x600000, 0x800000, 0);
  std::vector<DamonRegion> got;
  std::uint64_t lost = 0;
  damon_.read([&](const DamonRegion& r) { got.push_back(r); }, &lost);
  ASSERT_EQ(got.size(), 2U);
  EXPECT_EQ(got[0].start, 0x200000U);
  EXPECT_EQ(got[0].end, 0x400000U);
  EXPECT_EQ(got[0].used, 20U);
  EXPECT_EQ(got[1].used, 0U);
  EXPECT_EQ(lost, 3U);
}

TEST_F(DamonFiles, WhatSomebodyElseUsesIsNotTouched) {
  for (const bool on : {true, false}) {
    for (const int process : {kOther, 0, -1}) {  // running, being set up, not even that
      kernel_ = FakeDamon();
      kernel_.live(kOther);
      kernel_.add_kdamond(0, process, on);
      EXPECT_EQ(start().code, EBUSY);
      EXPECT_NE(why().find("somebody else uses DAMON"), std::string::npos);
      EXPECT_TRUE(kernel_.orders.empty());
      damon_.stop();
      EXPECT_TRUE(kernel_.orders.empty());
    }
  }
  kernel_ = FakeDamon();
  kernel_.live(kOther);
  kernel_.add_kdamond(0, 300, false);
  kernel_.add_kdamond(1, kOther, false);
  EXPECT_EQ(start().code, EBUSY) << "one of two is stale";
  kernel_ = FakeDamon();
  kernel_.set("nr_kdamonds", "100000000000");
  EXPECT_EQ(start().code, EBUSY);
}

TEST_F(DamonFiles, WhatIsLeftOfAKilledProcessIsTaken) {
  kernel_.add_kdamond(0, 300, false);
  ASSERT_TRUE(start().ok()) << why();
  EXPECT_TRUE(damon_.runs());
}

TEST_F(DamonFiles, WhatIsLeftOfThisProcessBeforeItsExecIsTaken) {
  kernel_.live(kMe);
  kernel_.add_kdamond(0, kMe, true);
  ASSERT_TRUE(start().ok()) << why();
  EXPECT_TRUE(damon_.runs());
  EXPECT_EQ(kernel_.orders.front(), "0/state=off");
}

TEST_F(DamonFiles, WhereProcessesHaveOtherNumbersItIsNotUsed) {
  for (const char* space : {"pid:[4026532177]", ""}) {
    kernel_ = FakeDamon();
    kernel_.add_kdamond(0, kMe, true);  // somebody's of the same number
    kernel_.pid_namespace = space;
    EXPECT_EQ(start().code, EPERM);
    EXPECT_NE(why().find("container"), std::string::npos);
    EXPECT_TRUE(kernel_.orders.empty());
  }
}

TEST_F(DamonFiles, WhatSomebodyElseIsSettingUpSinceIsLeftAlone) {
  ASSERT_TRUE(start().ok());
  kernel_.add_kdamond(0, 0, false);
  kernel_.orders.clear();
  damon_.stop();
  EXPECT_TRUE(kernel_.orders.empty());
}

TEST_F(DamonFiles, WhatSomebodyElseHasMadeOfItSinceIsLeftAlone) {
  ASSERT_TRUE(start().ok());
  kernel_.live(kOther);
  kernel_.add_kdamond(0, kOther, true);
  EXPECT_FALSE(damon_.runs());
  kernel_.orders.clear();
  damon_.stop();
  EXPECT_TRUE(kernel_.orders.empty());
  EXPECT_FALSE(events_.is_open());
}

TEST_F(DamonFiles, AForkedChildLeavesItToItsParent) {
  ASSERT_TRUE(start().ok());
  kernel_.orders.clear();
  damon_.forget();
  damon_.stop();
  EXPECT_TRUE(kernel_.orders.empty());
  EXPECT_TRUE(kernel_.on());
}

TEST_F(DamonFiles, SaysWhyItCannotBeHad) {
  struct Case {
    const char* said;
    void (*make)(FakeDamon&, FakeEvents&);
  };
  const Case cases[] = {
      {"no tracepoint", [](FakeDamon& k, FakeEvents&) { k.files.clear(); }},
      {"no tracepoint",
       [](FakeDamon& k, FakeEvents&) {
         k.files["/sys/kernel/tracing/events/damon/damon_aggregated/format"] = "nonsense\n";
       }},
      {"no tracepoint",
       [](FakeDamon& k, FakeEvents&) {
         k.files["/sys/kernel/tracing/events/damon/damon_aggregated/id"] = "-1\n";
       }},
      {"CONFIG_DAMON_VADDR", [](FakeDamon& k, FakeEvents&) { k.has_fvaddr = false; }},
      {"somebody else uses DAMON", [](FakeDamon& k, FakeEvents&) { k.exclusive = true; }},
      {"inside a container", [](FakeDamon&, FakeEvents& e) { e.refuses = {ESRCH}; }},
      {"perf_event_open is refused", [](FakeDamon&, FakeEvents& e) { e.refuses = {EACCES}; }},
      {"for root", [](FakeDamon& k, FakeEvents&) { k.set("nr_kdamonds", "many"); }},
      {"for root",
       [](FakeDamon& k, FakeEvents&) {
         k.fail_from = 0;
         k.fails_with = {EACCES};
       }},
  };
  for (const Case& c : cases) {
    kernel_ = FakeDamon();
    events_ = FakeEvents();
    c.make(kernel_, events_);
    EXPECT_TRUE(start().failed()) << c.said;
    EXPECT_NE(why().find(c.said), std::string::npos) << why();
    EXPECT_FALSE(kernel_.on());
    EXPECT_FALSE(damon_.started());
    EXPECT_FALSE(events_.is_open());
  }
}

// Whatever order is the first to fail, and whatever the kernel answers: it is not taken for
// started, and once the kernel obeys again nothing of ours is left.
TEST_F(DamonFiles, EveryOrderMayFail) {
  ASSERT_TRUE(start().ok());
  const auto orders = static_cast<int>(kernel_.orders.size());
  ASSERT_GT(orders, 10);
  for (const int code : {EIO, EBUSY, EINVAL, ENOMEM, EACCES}) {
    for (int n = 0; n < orders; ++n) {
      FakeDamon kernel;
      FakeEvents events;
      Damon damon(kernel, events);
      kernel.fail_from = n;
      kernel.fails_with = {code};
      ASSERT_TRUE(damon.look(kMe).ok());
      ASSERT_TRUE(damon.start(kMe, pace_, kRanges).failed()) << n;
      EXPECT_FALSE(damon.started());
      EXPECT_STRNE(damon.why_not(), "");
      EXPECT_FALSE(events.is_open());
      kernel.fail_from = -1;
      // What could not be cleared away is found to be ours.
      if (kernel.number("nr_kdamonds") == 0 ||
          kernel.number("0/contexts/0/targets/0/pid_target") == kMe) {
        EXPECT_TRUE(damon.start(kMe, pace_, kRanges).ok()) << n << ": " << damon.why_not();
      }
    }
  }
}

TEST_F(DamonFiles, CpuTimeIsTheKdamonds) {
  EXPECT_EQ(damon_.cpu_time().v, 0);
  ASSERT_TRUE(start().ok());
  EXPECT_EQ(damon_.cpu_time().v, 0) << "not known";
  for (const char* nonsense : {"", "x 1 2\n", "-5 1 2\n", "99999999999999999999999 1\n"}) {
    kernel_.files["/proc/777/schedstat"] = nonsense;
    EXPECT_EQ(damon_.cpu_time().v, 0) << nonsense;
  }
  kernel_.files["/proc/777/schedstat"] = "123456 7 8\n";
  EXPECT_EQ(damon_.cpu_time().v, 123456);
}

}  // namespace
}  // namespace heaptier
