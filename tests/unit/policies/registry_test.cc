#include "policies/registry.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "tests/support/picture.h"

namespace heaptier {
namespace {

TEST(Registry, FindsPoliciesByTheirWholeName) {
  for (Policy* p : all_policies()) EXPECT_EQ(find_policy(p->name()), p);
  ASSERT_NE(find_policy("hotset"), nullptr);
  ASSERT_NE(find_policy("none"), nullptr);
  for (const char* wrong : {"", "hot", "hotsets", "None", "none "}) {
    EXPECT_EQ(find_policy(wrong), nullptr) << wrong;
  }
  EXPECT_EQ(find_policy(std::string_view("none\0", 5)), nullptr);
  EXPECT_EQ(find_policy(std::string_view("none of them", 4)), find_policy("none"));
}

TEST(Registry, NamesAreDifferentAndTheDefaultIsHotset) {
  std::set<std::string> names;
  for (Policy* p : all_policies()) names.insert(p->name());
  EXPECT_EQ(names.size(), all_policies().size());
  EXPECT_STREQ(all_policies()[0]->name(), "hotset");
}

TEST(NonePolicy, NeverMovesAnything) {
  testing::Picture p("HwuPpserRf");
  p.limits(0.1, 0.2).hint_time(seconds(100)).budget().collapse = true;
  EXPECT_EQ(p.plan(*find_policy("none")), "..........");
}

}  // namespace
}  // namespace heaptier
