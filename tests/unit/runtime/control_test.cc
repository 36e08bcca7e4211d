// What is a request on the control socket, and what is not.
#include "runtime/control.h"

#include <gtest/gtest.h>

#include <string>

namespace heaptier::test {
namespace {

TEST(ParseControl, KnowsItsWords) {
  EXPECT_EQ(parse_control("stats").verb, ControlVerb::kStats);
  EXPECT_EQ(parse_control("tiers").verb, ControlVerb::kTiers);
  const struct {
    const char* text;
    ControlVerb verb;
    unsigned node;
  } kCases[] = {{"drain 0", ControlVerb::kDrain, 0},
                {"drained 63", ControlVerb::kDrained, 63},
                {"undrain 7", ControlVerb::kUndrain, 7}};
  for (const auto& c : kCases) {
    EXPECT_EQ(parse_control(c.text).verb, c.verb) << c.text;
    EXPECT_EQ(parse_control(c.text).node, c.node) << c.text;
  }
}

TEST(ParseControl, AndNothingElse) {
  using namespace std::string_view_literals;
  for (const std::string_view bad :
       {""sv,          " "sv,        "stat"sv,     "stats "sv,   "STATS"sv,
        "stats\n"sv,   "stats\0"sv,  "drain"sv,    "drain "sv,   "drain 64"sv,
        "drain 100"sv, "drain -1"sv, "drain 1 "sv, "drain  1"sv, "drain 1\0"sv,
        "drain x"sv,   "undrain"sv,  "7"sv,        "drained"sv,  "\xff\xfe"sv}) {
    EXPECT_EQ(parse_control(bad).verb, ControlVerb::kNonsense) << bad;
  }
  EXPECT_EQ(parse_control(std::string(5000, 'a')).verb, ControlVerb::kNonsense);
}

}  // namespace
}  // namespace heaptier::test
