#include "runtime/os/zone_files.h"

#include <gtest/gtest.h>

#include <map>
#include <sstream>
#include <string>
#include <tuple>

namespace heaptier::os {
namespace {

// As Linux 6.12 prints it on a machine with a movable node; what is between is left out.
constexpr const char* kZoneInfo = R"(Node 0, zone      DMA
  per-node stats
      nr_inactive_anon 104
      nr_high 7
  pages free     2816
        boost    0
        min      36
        low      45
        high     54
        promo    63
        spanned  4095
        managed  3840
        cma      0
        protection: (0, 3019, 6987, 6987, 6987)
      nr_free_pages 2816
  pagesets
    cpu: 0
              count:    0
              high:     0
              batch:    1
              high_min: 0
  node_unreclaimable:  0
  start_pfn:           1
Node 0, zone    DMA32
  pages free     190000
        min      7000
        high     10500
        protection: (0, 0, 3968, 3968, 3968)
  pagesets
    cpu: 0
              high:     14000
Node 0, zone  Movable
  pages free     0
        min      32
        high     32
        protection: (0, 0, 0, 0, 0)
Node 0, zone   Device
  pages free     0
        high     0
        protection: ()
Node 12, zone  Movable
  pages free     98304
        boost    0
        min      128
        low      160
        high     192
        protection: (0, 0, 0, 0, 0)
)";

std::map<std::pair<unsigned, ZoneName>, std::uint64_t> reserves_in(const std::string& text) {
  std::map<std::pair<unsigned, ZoneName>, std::uint64_t> found;
  ZoneInfoReader reader;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    ZoneId zone;
    std::uint64_t reserve = 0;
    if (reader.line(line, &zone, &reserve)) found[{zone.node, zone.name}] = reserve;
  }
  return found;
}

TEST(ZoneInfo, ReserveIsTheHighWatermarkAndWhatIsKeptFromMovableMemory) {
  const auto found = reserves_in(kZoneInfo);
  EXPECT_EQ(found.size(), 5u);
  EXPECT_EQ(found.at({0, ZoneName::kDma}), 54u + 6987u);
  EXPECT_EQ(found.at({0, ZoneName::kDma32}), 10500u + 3968u);
  EXPECT_EQ(found.at({0, ZoneName::kMovable}), 32u);
  EXPECT_EQ(found.at({12, ZoneName::kMovable}), 192u);
}

TEST(ZoneInfo, NonsenseGivesNothing) {
  EXPECT_TRUE(reserves_in("").empty());
  EXPECT_TRUE(reserves_in("Node\nNode x, zone DMA\n high 5\n protection: (1)\n").empty());
  EXPECT_TRUE(reserves_in(" high 5\n protection: (1)\n").empty());
  EXPECT_TRUE(reserves_in("Node 0, zone\n high 5\n protection: (1)\n").empty());
}

NodeRoom room_of(std::string_view line, std::uint64_t reserve) {
  ZoneId zone;
  std::string_view rest;
  EXPECT_TRUE(parse_zone(line, &zone, &rest));
  NodeRoom room;
  add_zone(rest, reserve, &room);
  return room;
}

TEST(BuddyInfo, CountsPagesAndWholeBlocksAboveTheReserve) {
  constexpr std::string_view kLine =
      "Node 3, zone  Movable      1      2      0      0      0      0      0      0      0      3 "
      "   5 ";
  const std::uint64_t free = 1 + 4 + 3 * 512 + 5 * 1024;
  EXPECT_EQ(room_of(kLine, 0), (NodeRoom{free, free, 13}));
  EXPECT_EQ(room_of(kLine, 192), (NodeRoom{free, free - 192, 12}));
  EXPECT_EQ(room_of(kLine, free - 1), (NodeRoom{free, 1, 0}));
  EXPECT_EQ(room_of(kLine, free), (NodeRoom{free, 0, 0}));
  EXPECT_EQ(room_of(kLine, free + 1000), (NodeRoom{free, 0, 0}));
}

TEST(BuddyInfo, PlentyOfPagesAndNoBlock) {
  const NodeRoom room = room_of("Node 0, zone Normal 0 0 0 0 0 0 0 0 1000 0 0", 100);
  EXPECT_EQ(room.pages, 256'000u - 100);
  EXPECT_EQ(room.huge_blocks, 0u);
}

TEST(BuddyInfo, ZonesAddUp) {
  NodeRoom room;
  add_zone(" 0 0 0 0 0 0 0 0 0 1 0", 7000, &room);  // small, and kept for others
  add_zone(" 0 0 0 0 0 0 0 0 0 0 4", 1000, &room);
  EXPECT_EQ(room, (NodeRoom{512 + 4096, 3096, 6}));
}

TEST(BuddyInfo, KernelsWithMoreOrLessOrders) {
  EXPECT_EQ(room_of("Node 0, zone Normal 3", 0), (NodeRoom{3, 3, 0}));
  // Order 13, as on some arm64 kernels.
  EXPECT_EQ(room_of("Node 0, zone Normal 0 0 0 0 0 0 0 0 0 0 0 0 0 1", 0),
            (NodeRoom{8192, 8192, 16}));
  EXPECT_EQ(room_of("Node 0, zone Normal", 0), NodeRoom{});
}

TEST(BuddyInfo, ZoneNames) {
  ZoneId zone;
  std::string_view rest;
  ASSERT_TRUE(parse_zone("Node 10, zone    DMA32 1 2", &zone, &rest));
  EXPECT_EQ(zone.node, 10u);
  EXPECT_EQ(zone.name, ZoneName::kDma32);
  EXPECT_EQ(rest, " 1 2");
  ASSERT_TRUE(parse_zone("Node 1, zone   Device", &zone, &rest));
  EXPECT_EQ(zone.name, ZoneName::kOther);
  EXPECT_FALSE(parse_zone("Node , zone Normal", &zone, &rest));
  EXPECT_FALSE(parse_zone("  Node 1, zone Normal", &zone, &rest));
}

}  // namespace
}  // namespace heaptier::os
