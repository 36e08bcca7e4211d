#include "runtime/base/zone_info.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>

#include "tests/fakes/fake_file_tree.h"

namespace heaptier {
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

std::map<std::pair<unsigned, ZoneName>, NodeZone> zones_in(const std::string& text) {
  FakeFileTree tree;
  tree.files["/proc/zoneinfo"] = text;
  std::map<std::pair<unsigned, ZoneName>, NodeZone> found;
  const Errno read = each_zone(tree, [&](const NodeZone& zone) {
    found[{zone.node, zone.name}] = zone;
  });
  EXPECT_TRUE(read.ok());
  return found;
}

TEST(ZoneInfo, ReserveIsTheHighWatermarkAndWhatIsKeptFromMovableMemory) {
  const auto found = zones_in(kZoneInfo);
  EXPECT_EQ(found.size(), 4u);  // not the device memory
  EXPECT_EQ(found.at({0, ZoneName::kDma}).reserve_pages, 54u + 6987u);
  EXPECT_EQ(found.at({0, ZoneName::kDma32}).reserve_pages, 10500u + 3968u);
  EXPECT_EQ(found.at({0, ZoneName::kMovable}).reserve_pages, 32u);
  EXPECT_EQ(found.at({12, ZoneName::kMovable}).reserve_pages, 192u);
}

TEST(ZoneInfo, WhatIsFreeAboveTheReserveIsForTheTaking) {
  const auto found = zones_in(kZoneInfo);
  EXPECT_EQ(found.at({0, ZoneName::kDma}).free_pages, 2816u);
  EXPECT_EQ(found.at({0, ZoneName::kDma}).usable_pages(), 0u);
  EXPECT_EQ(found.at({0, ZoneName::kDma32}).usable_pages(), 190000u - 10500 - 3968);
  EXPECT_EQ(found.at({12, ZoneName::kMovable}).usable_pages(), 98304u - 192);
}

TEST(ZoneInfo, NonsenseGivesNothing) {
  EXPECT_TRUE(zones_in("").empty());
  EXPECT_TRUE(zones_in("Node\nNode x, zone DMA\n high 5\n protection: (1)\n").empty());
  EXPECT_TRUE(zones_in(" high 5\n protection: (1)\n").empty());
  EXPECT_TRUE(zones_in("Node 0, zone\n high 5\n protection: (1)\n").empty());
  EXPECT_TRUE(zones_in("Node 4294967296, zone DMA\n high 5\n protection: (1)\n").empty());
  EXPECT_TRUE(zones_in("Node 0, zone DMA\n high x\n protection: (1)\n").empty());
  EXPECT_TRUE(zones_in("Node 0, zone DMA\n high 5\n protection: (99999999999999999)\n").empty());
  EXPECT_TRUE(zones_in("Node 0, zone DMA\n pages free 99999999999999999\n high 5\n").empty());
}

NodeRoom room_of(std::string_view line, std::uint64_t reserve) {
  NodeZone zone;
  std::string_view rest;
  EXPECT_TRUE(parse_zone(line, &zone, &rest));
  zone.reserve_pages = reserve;
  NodeRoom room;
  add_zone(zone, rest, &room);
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
  add_zone({.reserve_pages = 7000}, " 0 0 0 0 0 0 0 0 0 1 0", &room);  // small, and kept for others
  add_zone({.reserve_pages = 1000}, " 0 0 0 0 0 0 0 0 0 0 4", &room);
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
  NodeZone zone;
  std::string_view rest;
  ASSERT_TRUE(parse_zone("Node 10, zone    DMA32 1 2", &zone, &rest));
  EXPECT_EQ(zone.node, 10u);
  EXPECT_EQ(zone.name, ZoneName::kDma32);
  EXPECT_EQ(rest, " 1 2");
  EXPECT_FALSE(parse_zone("Node 1, zone   Device", &zone, &rest));
  EXPECT_FALSE(parse_zone("Node , zone Normal", &zone, &rest));
  EXPECT_FALSE(parse_zone("  Node 1, zone Normal", &zone, &rest));
}

}  // namespace
}  // namespace heaptier
