// What is known of a page without storing it: its checksum and whether it is one word over and
// over.
#include <gtest/gtest.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <array>
#include <cstring>

#include "runtime/tiers/page_checksum.h"
#include "runtime/tiers/store_tier.h"
#include "tests/unit/tiers/page_data.h"

namespace heaptier {
namespace {

using testing::fill_page;
using testing::PageKind;

struct alignas(64) Page {
  std::array<unsigned char, kPageSize> bytes{};
};

TEST(PageChecksum, IsTheLowHalfOfXxh3) {
  Page page;
  for (int kind = 0; kind < testing::kPageKinds; ++kind) {
    fill_page(page.bytes.data(), static_cast<PageKind>(kind), 3);
    EXPECT_EQ(page_checksum(page.bytes.data()),
              static_cast<std::uint32_t>(XXH3_64bits(page.bytes.data(), kPageSize)));
  }
}

TEST(PageChecksum, IsTheSameOnEveryMachine) {
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("avx2")) GTEST_SKIP() << "this CPU has no AVX2";
  Page page;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    fill_page(page.bytes.data(), testing::mixed_kind(seed), seed);
    EXPECT_EQ(page_checksum_portable(page.bytes.data()), page_checksum_avx2(page.bytes.data()));
  }
#else
  GTEST_SKIP() << "one build only on this architecture";
#endif
}

TEST(PageChecksum, NeedsNoAlignment) {
  std::array<unsigned char, kPageSize + 64> room{};
  Page page;
  fill_page(page.bytes.data(), PageKind::kText, 1);
  for (std::size_t shift = 0; shift < 64; shift += 7) {
    std::memcpy(room.data() + shift, page.bytes.data(), kPageSize);
    EXPECT_EQ(page_checksum(room.data() + shift), page_checksum(page.bytes.data()));
  }
}

TEST(SameFilled, FindsEveryPattern) {
  for (const std::uint32_t pattern : {0u, 1u, 0xffffffffu, 0xdeadbeefu, 0x01010101u}) {
    Page page;
    for (std::size_t i = 0; i < kPageSize; i += 4) std::memcpy(&page.bytes[i], &pattern, 4);
    std::uint32_t found = ~pattern;
    EXPECT_TRUE(same_filled(page.bytes.data(), &found));
    EXPECT_EQ(found, pattern);
  }
}

TEST(SameFilled, OneOtherByteAnywhereIsSeen) {
  for (const std::uint32_t pattern : {0u, 0xdeadbeefu}) {
    Page page;
    for (std::size_t i = 0; i < kPageSize; i += 4) std::memcpy(&page.bytes[i], &pattern, 4);
    for (std::size_t i = 0; i < kPageSize; ++i) {
      page.bytes[i] ^= 0x10;
      std::uint32_t found = 77;
      EXPECT_FALSE(same_filled(page.bytes.data(), &found)) << i;
      EXPECT_EQ(found, 77u);
      page.bytes[i] ^= 0x10;
    }
  }
}

TEST(SameFilled, WordsNotBytesMustRepeat) {
  Page page;
  for (std::size_t i = 0; i < kPageSize; i += 8) {
    const std::uint64_t two = 0x0000000100000002u;
    std::memcpy(&page.bytes[i], &two, 8);
  }
  std::uint32_t found = 0;
  EXPECT_FALSE(same_filled(page.bytes.data(), &found));
}

}  // namespace
}  // namespace heaptier
