// Usemaps as pictures: one character for 16 pages, '#' used, '.' free.
#include "runtime/usemap.h"

#include <gtest/gtest.h>

#include <bitset>
#include <random>
#include <string>

namespace heaptier {
namespace {

constexpr std::uint32_t kPagesPerChar = 16;

Usemap from_picture(const std::string& picture) {
  Usemap map;
  for (std::uint32_t i = 0; i < picture.size(); ++i) {
    if (picture[i] == '#') map.set(i * kPagesPerChar, kPagesPerChar, true);
  }
  return map;
}

struct Picture {
  const char* drawn;
  std::uint32_t chars;        // wanted run
  std::uint32_t align_chars;  // alignment
  int at;                     // character where it is found, -1: nowhere
  std::uint32_t longest;      // longest free run, in characters
};

constexpr Picture kPictures[] = {
    {"................................", 1, 1, 0, 32},
    {"................................", 32, 1, 0, 32},
    {"################################", 1, 1, -1, 0},
    {"#...............................", 1, 1, 1, 31},
    {"#...............................", 8, 8, 8, 31},
    {".#.#.#.#.#.#.#.#.#.#.#.#.#.#.#.#", 2, 1, -1, 1},
    {".#.#..#...#....#.....#......#...", 4, 1, 11, 6},
    {".#.#..#...#....#.....#......#...", 4, 4, 16, 6},
    {".#.#..#...#....#.....#......#...", 6, 1, 22, 6},
    {".#.#..#...#....#.....#......#...", 7, 1, -1, 6},
    {"###############################.", 1, 1, 31, 1},
    {"................#...............", 16, 16, 0, 16},
    {"#..............................#", 16, 16, -1, 30},
    {"#..............................#", 8, 8, 8, 30},
};

TEST(Usemap, FindsTheLowestRunThatFits) {
  for (const Picture& p : kPictures) {
    const Usemap map = from_picture(p.drawn);
    const std::uint32_t expected =
        p.at < 0 ? Usemap::kNone : static_cast<std::uint32_t>(p.at) * kPagesPerChar;
    EXPECT_EQ(map.find(p.chars * kPagesPerChar, p.align_chars * kPagesPerChar), expected)
        << p.drawn;
    EXPECT_EQ(map.longest_free(), p.longest * kPagesPerChar) << p.drawn;
  }
}

TEST(Usemap, AgreesWithABitset) {
  std::mt19937 random(1);
  std::bitset<Usemap::kPages> model;
  Usemap map;
  for (int round = 0; round < 3000; ++round) {
    const auto first = static_cast<std::uint32_t>(random() % Usemap::kPages);
    const auto count = static_cast<std::uint32_t>(1 + random() % (Usemap::kPages - first));
    const bool used = random() % 3 != 0 && round % 50 != 0;
    const std::uint32_t n = round % 7 == 0 ? count : 1 + count % 40;
    const std::uint32_t clipped = std::min(n, Usemap::kPages - first);
    map.set(first, clipped, used);
    for (std::uint32_t i = first; i < first + clipped; ++i) model[i] = used;

    std::uint32_t longest = 0;
    std::uint32_t run = 0;
    for (std::uint32_t i = 0; i < Usemap::kPages; ++i) {
      run = model[i] ? 0 : run + 1;
      longest = std::max(longest, run);
      ASSERT_EQ(map.used(i), model[i]);
    }
    ASSERT_EQ(map.longest_free(), longest);
    const std::uint32_t align = 1u << (random() % 6);
    const std::uint32_t wanted = 1 + static_cast<std::uint32_t>(random() % 64);
    std::uint32_t expected = Usemap::kNone;
    for (std::uint32_t at = 0; at + wanted <= Usemap::kPages && expected == Usemap::kNone;
         at += align) {
      bool free = true;
      for (std::uint32_t i = at; i < at + wanted; ++i) free = free && !model[i];
      if (free) expected = at;
    }
    ASSERT_EQ(map.find(wanted, align), expected);
    bool all_free = true;
    for (std::uint32_t i = first; i < first + clipped; ++i) all_free = all_free && !model[i];
    ASSERT_EQ(map.is_free(first, clipped), all_free);
  }
}

}  // namespace
}  // namespace heaptier
