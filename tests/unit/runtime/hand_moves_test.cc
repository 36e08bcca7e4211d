// Moving by hand on made-up machines: what becomes of each page, and what of wishes for the next
// touch.
#include "runtime/hand_moves.h"

#include <random>

#include "policies/registry.h"
#include "runtime/config/option_values.h"
#include "runtime/lazy_mark.h"
#include "tests/fakes/fake_nodes.h"
#include "tests/unit/runtime/engine_fixture.h"
#include "tests/unit/topology/machines.h"

namespace heaptier::test {
namespace {

TEST(LazyMark, SaysWhatItWasTold) {
  EXPECT_FALSE(LazyMark{0}.is_mark());
  EXPECT_EQ(LazyMark{0}.touched_from(3).bits(), 0u);
  const LazyMark wish = LazyMark::wanted(7);
  EXPECT_TRUE(wish.is_waiting() && !wish.is_touched());
  EXPECT_EQ(wish.tier(), 7u);
  const LazyMark come = wish.touched_from(63);
  EXPECT_TRUE(come.is_touched() && !come.is_waiting());
  EXPECT_EQ(come.tier(), 7u);
  EXPECT_EQ(come.node(), 63u);
}

class StillHost final : public LoopHost {
 public:
  bool between_steps() override { return true; }
  bool ready_for_faults() override { return ready; }
  bool ready = true;
};

constexpr int kDram = 0;
constexpr int kCxl = 1;
constexpr int kPmem = 2;
constexpr int kStore = 3;

// Two pageblocks of written memory on node 0 of four; the second may be one huge page.
class HandTest : public testing::Test {
 protected:
  explicit HandTest(const char* tiers = "dram=node:0-1;cxl=node:2;pmem=node:3;zpool:64M",
                    std::size_t pool = std::size_t{64} << 20)
      : h_(pool) {
    for (unsigned n = 0; n < 4; ++n) nodes_.add_node(n, 10000, 10);
    EXPECT_TRUE(parse_option(OptionId::kTiers, tiers, &options_).ok);
    FakeFileTree files = four_nodes_with_hmat();
    EXPECT_TRUE(tiers_.init(nodes_, files, options_.tiers).ok());
    if (tiers_.active()) h_.core.nodes = &tiers_;
    EXPECT_TRUE(loop_.init().ok());
    for (std::uint32_t i = 0; i < 1024; ++i) {
      EXPECT_TRUE(h_.write(i, 1000 + i));
      nodes_.pages[h_.home(i)] = {};
    }
    for (std::uint32_t b = 0; b < 2; ++b) EXPECT_TRUE(h_.migration.manage(h_.block(b)).ok());
  }
  void park_frames_too() {
    for (std::uint32_t i = 0; i < 1024; ++i) nodes_.pages[h_.core.park(h_.page(i))] = {};
  }
  void make_huge() {
    for (std::uint32_t i = 512; i < 1024; ++i) nodes_.pages.erase(h_.home(i));
    for (const std::uintptr_t at : {h_.home(512), h_.core.park(h_.page(512))}) {
      nodes_.pages[at] = {};
      nodes_.pages[at].huge = true;
      h_.machine.huge[at] = true;
    }
    h_.table.block(h_.block(1)).huge = true;
  }
  struct Wish {
    std::uintptr_t page;
    int tier;
  };
  std::vector<int> move(const std::vector<Wish>& list) {
    batch_.count = list.size();
    batch_.goal = HandGoal::kTiers;
    for (std::size_t i = 0; i < list.size(); ++i) {
      batch_.page[i] = list[i].page;
      batch_.tier[i] = list[i].tier;
      batch_.status[i] = 12345;
    }
    hand_.serve(batch_);
    return {batch_.status, batch_.status + list.size()};
  }
  int move_one(std::uint32_t page, int tier) { return move({{h_.home(page), tier}})[0]; }
  FakeNodes::Page& at(std::uint32_t page) { return nodes_.pages[h_.home(page)]; }

  SmallHeap h_;
  FakeNodes nodes_;
  Options options_;
  NodeTiers tiers_;
  StillHost host_;
  TieringLoop loop_{h_.core, h_.migration, *find_policy("hotset"), options_, host_};
  HandMoves hand_{h_.core, h_.migration, loop_, host_, options_.tiers};
  HandBatch batch_;
};

TEST_F(HandTest, EveryPageIsToldWhatBecameOfIt) {
  at(1).busy = ~0u;
  at(2).shared = true;
  at(3).busy = 1;
  at(4).hidden = 1;
  at(5).node = 3;
  at(6).zero_page = true;
  nodes_.pages.erase(h_.home(7));
  h_.machine.page(h_.home(8)).present = false;  // emptied behind our back
  EXPECT_EQ(move({{h_.home(0), kCxl},
                  {h_.home(1) + 77, kCxl},
                  {h_.home(2), kCxl},
                  {h_.home(3), kCxl},
                  {h_.home(4), kCxl},
                  {h_.home(5), kPmem},
                  {h_.home(6), kCxl},
                  {h_.home(7), kCxl},
                  {h_.home(8), kCxl},
                  {h_.home(9), 4},
                  {h_.home(9), -1},
                  {16, kCxl},
                  {~std::uintptr_t{0}, kCxl},
                  {h_.home(1024) + kPageblockSize * 100, kCxl},
                  {h_.home(10), kDram}}),
            (std::vector<int>{kCxl, -EBUSY, -EACCES, kCxl, kCxl, kPmem, -ENOENT, -ENOENT, -ENOENT,
                              -EINVAL, -EINVAL, -EINVAL, -EINVAL, -EINVAL, kDram}));
  EXPECT_EQ(at(0).node, 2);
  EXPECT_EQ(at(5).node, 3);
  EXPECT_EQ(h_.stats.nodes_asked.get(), 3u);
}

TEST_F(HandTest, LookingMovesNothing) {
  at(3).node = 3;
  at(4).node = 2;
  h_.migration.park(h_.block(1), Parking::kAll);
  h_.migration.store(h_.block(1), 1000, Evictor::kBackground);
  batch_.count = 4;
  batch_.goal = HandGoal::kLook;
  for (std::uint32_t i = 0; i < 4; ++i) batch_.page[i] = h_.home(i == 3 ? 600 : i + 2);
  hand_.serve(batch_);
  EXPECT_EQ((std::vector<int>{batch_.status, batch_.status + 4}),
            (std::vector<int>{kDram, kPmem, kCxl, kStore}));
  EXPECT_EQ(nodes_.move_calls, 0u);
  h_.check_all();
}

TEST_F(HandTest, AParkedPageMovesWhereItIs) {
  park_frames_too();
  h_.migration.park(h_.block(0), Parking::kAll);
  for (std::uint32_t i = 0; i < 512; ++i) nodes_.pages.erase(h_.home(i));
  EXPECT_EQ(move_one(3, kPmem), kPmem);
  EXPECT_EQ(nodes_.pages[h_.core.park(h_.page(3))].node, 3);
  EXPECT_EQ(h_.in_state(PageState::kParked), 512u);
}

TEST_F(HandTest, AHugePageMovesWholeOrStays) {
  make_huge();
  EXPECT_EQ(move_one(700, kCxl), kCxl);
  EXPECT_EQ(at(512).node, 2);
  EXPECT_EQ(nodes_.pages_passed, 1u);
  nodes_.rooms[3] = {10000, 10000, 0};
  EXPECT_EQ(move_one(513, kPmem), -ENOSPC);
  nodes_.rooms[3] = {511, 511, 0};
  EXPECT_EQ(move_one(513, kPmem), -ENOMEM);
  EXPECT_EQ(nodes_.pages_passed, 1u) << "nothing is tried that cannot be";
  EXPECT_EQ(nodes_.splits(), 0u);
  std::vector<Wish> all;
  for (std::uint32_t i = 512; i < 1024; ++i) all.push_back({h_.home(i), kDram});
  EXPECT_EQ(move(all), std::vector<int>(512, kDram)) << "one move for all of its addresses";
  EXPECT_EQ(nodes_.pages_passed, 2u);
  EXPECT_EQ(batch_.moved, 512u);
}

TEST_F(HandTest, AHugePageThatWeTookForSmallMovesWholeOrStays) {
  make_huge();
  h_.table.block(h_.block(1)).huge = false;
  nodes_.rooms[3] = {10000, 10000, 0};
  EXPECT_EQ(move_one(600, kPmem), -ENOSPC);
  EXPECT_EQ(nodes_.splits(), 0u);
}

TEST_F(HandTest, AFullNodeSendsTheRestToItsNeighbour) {
  for (std::uint32_t i = 0; i < 100; ++i) at(i).node = 3;
  nodes_.rooms[0] = {60, 60, 0};
  nodes_.rooms[1] = {30, 30, 0};
  std::vector<Wish> list;
  for (std::uint32_t i = 0; i < 100; ++i) list.push_back({h_.home(i), kDram});
  const std::vector<int> status = move(list);
  EXPECT_EQ(std::count(status.begin(), status.end(), kDram), 90);
  EXPECT_EQ(std::count(status.begin(), status.end(), -ENOMEM), 10);
}

TEST_F(HandTest, TheSamePageAgainIsAnotherMove) {
  EXPECT_EQ(move({{h_.home(0), kCxl},
                  {h_.home(0), kCxl},
                  {h_.home(1), kPmem},
                  {h_.home(0), kDram},
                  {h_.home(0), kStore},
                  {h_.home(0), kCxl},
                  {h_.home(1), kPmem}}),
            (std::vector<int>{kCxl, kCxl, kPmem, kDram, kStore, -EAGAIN, kPmem}));
  EXPECT_EQ(h_.in_state(PageState::kStored), 1u);
  ASSERT_TRUE(h_.good(0));
}

TEST_F(HandTest, WhatIsHeldOrLockedStays) {
  Pageblock& block = h_.table.block(h_.block(0));
  block.surrendered = true;
  EXPECT_EQ(move_one(0, kStore), -EPERM);
  EXPECT_EQ(move_one(0, kCxl), kCxl) << "locked memory moves between nodes";
  block.surrendered = false;
  block.pins = 1;
  EXPECT_EQ(move_one(0, kCxl), kCxl) << "it is there";
  EXPECT_EQ(move_one(0, kDram), -EPERM);
  EXPECT_EQ(move_one(0, kStore), -EPERM);
  EXPECT_EQ(hand_.cool(h_.page(0), 512), 1);
  EXPECT_EQ(hand_.park_lazily(h_.page(0), 512, kPmem), 0);
  block.pins = 0;
  h_.core.retired = true;
  EXPECT_EQ(move_one(0, kStore), -EPERM);
  EXPECT_EQ(hand_.park_lazily(h_.page(0), 512, kPmem), 0);
  EXPECT_EQ(h_.in_state(PageState::kResident), 1024u);
}

TEST_F(HandTest, ToTheStore) {
  std::mt19937_64 random(3);
  auto* const noise = reinterpret_cast<std::uint64_t*>(h_.home(2));
  for (std::size_t i = 0; i < kPageSize / 8; ++i) noise[i] = random();
  const std::vector<std::uint64_t> kept(noise, noise + kPageSize / 8);
  h_.machine.page(h_.home(3)).pinned = true;
  SmallHeap::fill(h_.home(4), 0);
  h_.expected[4] = 0;
  std::vector<Wish> list;
  for (std::uint32_t i = 0; i < 8; ++i) list.push_back({h_.home(i), kStore});
  EXPECT_EQ(move(list),
            (std::vector<int>{kStore, kStore, -EFBIG, -EBUSY, kStore, kStore, kStore, kStore}));
  EXPECT_EQ(h_.in_state(PageState::kFilled), 1u);
  EXPECT_EQ(move(list)[2], -EFBIG) << "it rests, for the same reason";
  h_.check_books();
  EXPECT_TRUE(std::equal(kept.begin(), kept.end(), noise));
  for (const std::uint32_t i : {0u, 1u, 3u, 4u, 5u, 6u, 7u}) EXPECT_TRUE(h_.good(i)) << i;
  // What came back has a place there for the asking.
  EXPECT_EQ(move_one(0, kPmem), kPmem);
  host_.ready = false;
  EXPECT_EQ(move_one(9, kStore), -ENOTSUP);
}

TEST_F(HandTest, AHugePageIsStoredWhole) {
  make_huge();
  EXPECT_EQ(move_one(515, kStore), kStore);
  EXPECT_EQ(h_.in_state(PageState::kStored), 512u);
  h_.check_all();
}

class HandFullStore : public HandTest {
 protected:
  HandFullStore() : HandTest("dram=node:0-1;cxl=node:2;zpool:1M", std::size_t{128} << 10) {}
};

TEST_F(HandFullStore, IsNoPlace) {
  std::mt19937_64 random(7);
  for (std::uint32_t i = 0; i < 1024; ++i) ASSERT_TRUE(h_.write(i, random() | 1));
  (void)hand_.cool(h_.page(0), 512);
  (void)hand_.cool(h_.page(0), 512);
  std::vector<Wish> list;
  for (std::uint32_t i = 512; i < 1024; ++i) list.push_back({h_.home(i), 2});
  const std::vector<int> status = move(list);
  EXPECT_GT(std::count(status.begin(), status.end(), -ENOMEM), 0);
  EXPECT_EQ(std::count(status.begin(), status.end(), 2) +
                std::count(status.begin(), status.end(), -ENOMEM),
            512);
  h_.check_all();
}

class HandOneTier : public HandTest {
 protected:
  HandOneTier() : HandTest("dram,zpool:64M") {}
};

TEST_F(HandOneTier, IsThereOrInTheStore) {
  EXPECT_EQ(move({{h_.home(0), 0}, {h_.home(1), 1}, {h_.home(2), 2}, {h_.home(1), 0}}),
            (std::vector<int>{0, 1, -EINVAL, -EAGAIN}));
  EXPECT_EQ(hand_.warm(h_.page(0), 512), 0);
  EXPECT_EQ(hand_.park_lazily(h_.page(0), 512, 0), 0);
  EXPECT_EQ(h_.in_state(PageState::kParked), 0u);
  EXPECT_EQ(nodes_.move_calls, 0u);
  h_.check_all();
}

TEST_F(HandTest, DownOneTierAtATimeAndUpAtOnce) {
  make_huge();
  EXPECT_EQ(hand_.cool(h_.page(0), 1024), 1024);
  EXPECT_EQ(at(0).node, 2);
  EXPECT_EQ(at(512).node, 2);
  EXPECT_EQ(hand_.cool(h_.page(0), 1000), 1024 - 24);
  EXPECT_EQ(at(0).node, 3);
  EXPECT_EQ(at(512).node, 2) << "it reaches beyond the range";
  EXPECT_EQ(hand_.cool(h_.page(0), 512), 512);
  EXPECT_EQ(h_.in_state(PageState::kStored), 512u);
  EXPECT_EQ(hand_.warm(h_.page(0), 1024), 512) << "what is stored is the asker's to fetch";
  EXPECT_EQ(at(512).node, 0);
  h_.check_all();
}

TEST_F(HandTest, AWishIsFulfilledAtTheNextTouch) {
  park_frames_too();
  at(7).node = 2;
  EXPECT_EQ(hand_.park_lazily(h_.page(0), 512, kCxl), 511) << "one is there";
  EXPECT_EQ(h_.in_state(PageState::kParked), 511u);
  hand_.move_touched();
  EXPECT_EQ(nodes_.move_calls, 0u);
  ASSERT_TRUE(h_.good(3));
  EXPECT_EQ(h_.in_state(PageState::kParked), 510u) << "home at once";
  EXPECT_EQ(at(3).node, 0) << "a fault moves nothing itself";
  hand_.move_touched();
  EXPECT_EQ(at(3).node, 2);
  EXPECT_EQ(nodes_.pages_passed, 1u);
  EXPECT_EQ(h_.table.peek(h_.page(3)).slot(), 0u);
  hand_.move_touched();
  EXPECT_EQ(nodes_.pages_passed, 1u) << "once";
  h_.check_all();
  hand_.move_touched();
  for (std::uint32_t i = 0; i < 512; ++i) ASSERT_EQ(at(i).node, 2) << i;
}

TEST_F(HandTest, AHugePageAsOne) {
  make_huge();
  EXPECT_EQ(hand_.park_lazily(h_.page(512), 511, kCxl), 0) << "it reaches beyond the range";
  EXPECT_EQ(hand_.park_lazily(h_.page(512), 512, kCxl), 512);
  EXPECT_EQ(h_.stats.huge_parked.get(), 1u);
  ASSERT_TRUE(h_.good(900));
  EXPECT_EQ(h_.in_state(PageState::kParked), 0u);
  hand_.move_touched();
  EXPECT_EQ(at(512).node, 2);
  EXPECT_EQ(nodes_.pages_passed, 1u);
  for (std::uint32_t i = 512; i < 1024; ++i) ASSERT_EQ(h_.table.peek(h_.page(i)).slot(), 0u);
}

TEST_F(HandTest, TheTouchersNodeOfATier) {
  park_frames_too();
  EXPECT_EQ(hand_.park_lazily(h_.page(0), 4, kDram), 4) << "which of the two, the touch will say";
  nodes_.here = 1;
  ASSERT_TRUE(h_.good(0));
  nodes_.here = 0;
  ASSERT_TRUE(h_.good(1));
  nodes_.here = 3;
  ASSERT_TRUE(h_.good(2));
  hand_.move_touched();
  EXPECT_EQ(at(0).node, 1);
  EXPECT_EQ(at(1).node, 0);
  EXPECT_LT(at(2).node, 2);
}

TEST_F(HandTest, AWishEndsWithThePage) {
  park_frames_too();
  ASSERT_EQ(hand_.park_lazily(h_.page(0), 512, kCxl), 512);
  // Freed, stored, and touched while the wish could not be granted.
  EXPECT_TRUE(drop_content(h_.core, h_.home(10), 2 * kPageSize));
  h_.expected[10] = h_.expected[11] = 0;
  ASSERT_TRUE(h_.write(10, 77));
  EXPECT_EQ(h_.migration.store(h_.block(0), 1000, Evictor::kAsked, {20, 2}).moved, 2u);
  ASSERT_TRUE(h_.good(20));
  ASSERT_TRUE(h_.write(21, 78));
  nodes_.rooms[2] = {};
  ASSERT_TRUE(h_.good(30));
  hand_.move_touched();
  nodes_.rooms[2] = {10000, 10000, 10};
  hand_.move_touched();
  for (const std::uint32_t i : {10u, 20u, 21u, 30u}) EXPECT_EQ(at(i).node, 0) << i;
  // The last wish counts, and what would not be parked has none.
  ASSERT_TRUE(h_.good(40));
  h_.machine.page(h_.home(40)).pinned = true;
  EXPECT_EQ(hand_.park_lazily(h_.page(40), 2, kPmem), 1);
  h_.machine.page(h_.home(40)).pinned = false;
  EXPECT_EQ(h_.table.peek(h_.page(40)).slot(), 0u);
  ASSERT_TRUE(h_.good(41));
  hand_.move_touched();
  EXPECT_EQ(at(41).node, 3);
  h_.check_all();
}

TEST_F(HandTest, AHugePageTakenApartKeepsTheWishInItsParts) {
  make_huge();
  park_frames_too();
  for (std::uint32_t i = 512; i < 1024; ++i) at(i) = {};
  h_.machine.huge.clear();
  ASSERT_EQ(hand_.park_lazily(h_.page(512), 512, kCxl), 512);
  EXPECT_TRUE(drop_content(h_.core, h_.home(600), kPageSize));
  h_.expected[600] = 0;
  ASSERT_TRUE(h_.good(700));
  hand_.move_touched();
  EXPECT_EQ(at(700).node, 2);
  EXPECT_EQ(at(701).node, 0);
  h_.check_all();
}

// Every call fails in turn: no byte lost, the books right, a status for each that is one.
TEST(HandFailing, AnyCallMayFail) {
  struct Rig : HandTest {
    void TestBody() override {}
    bool run(std::uint64_t nth, bool node_call) {
      if (node_call) {
        nodes_.fail_at(nth, EIO);
      } else {
        h_.machine.fail_at(nth, EIO);
      }
      std::vector<Wish> list;
      for (std::uint32_t i = 0; i < 24; ++i) {
        list.push_back({h_.home(i * 37 % 700), static_cast<int>(i % 4)});
      }
      for (const int s : move(list)) EXPECT_TRUE(s < 4 && s > -200) << s;
      (void)hand_.park_lazily(h_.page(100), 30, kCxl);
      for (std::uint32_t i = 100; i < 110; ++i) EXPECT_TRUE(h_.good(i)) << i;
      hand_.move_touched();
      (void)hand_.cool(h_.page(300), 20);
      nodes_.stop_failing();
      h_.machine.stop_failing();
      h_.check_all();
      return nodes_.failed_once() || h_.machine.failed_once();
    }
  };
  for (const bool node_call : {false, true}) {
    std::uint64_t n = 1;
    for (; n < 2000; n += n < 60 ? 1 : 7) {
      Rig rig;
      if (!rig.run(n, node_call)) break;
      if (testing::Test::HasFailure()) FAIL() << "call " << n << (node_call ? " of nodes" : "");
    }
    EXPECT_GT(n, 20u);
  }
}

}  // namespace
}  // namespace heaptier::test
