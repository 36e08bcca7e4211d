#include "uffd/wake_list.h"

#include <gtest/gtest.h>

namespace heaptier {
namespace {

TEST(WakeList, OwnCpuComesLastAndNobodyIsForgotten) {
  WakeList<8> list;
  EXPECT_EQ(list.size(), 0u);
  for (std::uintptr_t i = 0; i < 8; ++i) list.add({i, 1}, i % 2 == 0);
  ASSERT_EQ(list.size(), 8u);
  bool seen[8] = {};
  for (std::size_t i = 0; i < 8; ++i) {
    const bool own_cpu = list[i].start % 2 == 0;
    EXPECT_EQ(own_cpu, i >= 4) << i;
    EXPECT_FALSE(seen[list[i].start]);
    seen[list[i].start] = true;
  }
  list.clear();
  EXPECT_EQ(list.size(), 0u);
  list.add({42, 1}, true);
  EXPECT_EQ(list[0].start, 42u);
}

}  // namespace
}  // namespace heaptier
