#include "runtime/base/units.h"

#include <gtest/gtest.h>

#include <type_traits>

#include "runtime/base/errno.h"
#include "runtime/base/mobility.h"

namespace heaptier {
namespace {

static_assert(kPageSize == 4096 && kPageblockSize == 2 * 1024 * 1024 && kPagesPerBlock == 512);

// One number is not another.
static_assert(!std::is_convertible_v<PageIndex, BlockIndex>);
static_assert(!std::is_convertible_v<BlockIndex, PageIndex>);
static_assert(!std::is_convertible_v<std::uint32_t, PageIndex>);
static_assert(!std::is_convertible_v<PageIndex, std::uint32_t>);
static_assert(!std::is_convertible_v<std::int64_t, Nanos>);

TEST(Units, APageIsInExactlyOneBlock) {
  // Every page of the first 3 blocks, then the ends of the numbers.
  for (std::uint32_t p = 0; p < 3 * kPagesPerBlock; ++p) {
    EXPECT_EQ(block_of({p}).v, p / 512);
    EXPECT_EQ(page_in_block({p}), p % 512);
    EXPECT_EQ(first_page(block_of({p})).v + page_in_block({p}), p);
  }
  const PageIndex last{0xffffffff};
  EXPECT_EQ(block_of(last).v, 0x7fffff);
  EXPECT_EQ(page_in_block(last), 511U);
  EXPECT_EQ(first_page(block_of(last)).v, 0xfffffe00);
}

TEST(Units, NumbersCompareByValue) {
  EXPECT_LT(PageIndex{1}, PageIndex{2});
  EXPECT_EQ(BlockIndex{7}, BlockIndex{7});
  EXPECT_GT(seconds(1), millis(999));
}

TEST(Units, TimeAddsUp) {
  EXPECT_EQ(seconds(1), millis(1000));
  EXPECT_EQ(millis(1), micros(1000));
  EXPECT_EQ(micros(1).v, 1000);
  EXPECT_EQ(seconds(2) + millis(1) - micros(1000), seconds(2));
  EXPECT_LT(millis(1) - seconds(1), Nanos{0});
}

TEST(Units, RoundingIsToTheNextMultiple) {
  for (const std::size_t align : {std::size_t{1}, std::size_t{16}, kPageSize, kPageblockSize}) {
    for (const std::size_t n : {std::size_t{0}, std::size_t{1}, align - 1, align, align + 1,
                                3 * align - 1, 3 * align, (std::size_t{1} << 40) + 1}) {
      EXPECT_EQ(round_up(n, align) % align, 0U);
      EXPECT_GE(round_up(n, align), n);
      EXPECT_LT(round_up(n, align), n + align);
      EXPECT_EQ(round_down(n, align) % align, 0U);
      EXPECT_LE(round_down(n, align), n);
      EXPECT_GT(round_down(n, align) + align, n);
    }
  }
}

TEST(Mobility, HasThreeKindsWithNames) {
  EXPECT_STREQ(to_string(Mobility::kMovable), "movable");
  EXPECT_STREQ(to_string(Mobility::kReclaimable), "reclaimable");
  EXPECT_STREQ(to_string(Mobility::kUnmovable), "unmovable");
  EXPECT_STREQ(to_string(static_cast<Mobility>(kMobilities)), "?");
}

TEST(Errno, IsAValue) {
  EXPECT_TRUE(kOk.ok());
  EXPECT_FALSE(kOk.failed());
  EXPECT_TRUE(Errno{ENOMEM}.failed());
  EXPECT_FALSE(Errno{ENOMEM} == Errno{EEXIST});
}

TEST(ErrnoKeeper, PutsTheApplicationsErrnoBack) {
  errno = ENOENT;
  {
    const ErrnoKeeper keeper;
    errno = EAGAIN;
  }
  EXPECT_EQ(errno, ENOENT);
}

}  // namespace
}  // namespace heaptier
