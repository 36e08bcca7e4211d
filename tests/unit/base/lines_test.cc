#include "runtime/base/lines.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "runtime/base/words.h"
#include "tests/fakes/fake_file_tree.h"

namespace heaptier {
namespace {

std::vector<std::string> lines_of(const std::string& text, std::size_t piece) {
  FakeFileTree tree;
  tree.files["/x"] = text;
  tree.piece = piece;
  std::vector<std::string> found;
  EXPECT_TRUE(each_line(tree, "/x", [&](std::string_view line) { found.emplace_back(line); }).ok());
  return found;
}

TEST(Lines, AreTheSameInAnyPieces) {
  for (const std::size_t piece : {1, 2, 3, 64}) {
    EXPECT_EQ(lines_of("one\n\ntwo three\n four", piece),
              (std::vector<std::string>{"one", "two three", " four"}));
    EXPECT_TRUE(lines_of("\n\n", piece).empty());
    EXPECT_TRUE(lines_of("", piece).empty());
  }
}

TEST(Lines, TooLongIsNotSaid) {
  const std::string longest(2048, 'x');
  for (const std::size_t piece : {1, 1000, 5000}) {
    EXPECT_EQ(lines_of("a\n" + longest + "\n" + longest + "y\nb\n" + longest + "\n", piece),
              (std::vector<std::string>{"a", longest, "b", longest}));
    EXPECT_TRUE(lines_of(longest + "y", piece).empty());
  }
}

TEST(Lines, HalfOfOneIsNotHandedOnWhenReadingFails) {
  FakeFileTree tree;
  tree.files["/x"] = "one\ntwo\n";
  tree.piece = 6;
  tree.fail_from = 1;
  std::vector<std::string> found;
  const auto note = [&](std::string_view line) { found.emplace_back(line); };
  EXPECT_EQ(each_line(tree, "/x", note), Errno{EIO});
  EXPECT_EQ(found, std::vector<std::string>{"one"});
  EXPECT_EQ(each_line(tree, "/none", note), Errno{ENOENT});
}

TEST(Words, AreBetweenBlanksCommasAndBrackets) {
  std::string_view text = "\tprotection: (0, 954)\n";
  std::uint64_t n = 7;
  EXPECT_FALSE(next_number(&text, &n));
  EXPECT_EQ(n, 7u);
  EXPECT_TRUE(next_number(&text, &n));
  EXPECT_EQ(n, 0u);
  EXPECT_EQ(next_word(&text), "954");
  EXPECT_EQ(next_word(&text), "");
  EXPECT_FALSE(next_number(&text, &n));
}

TEST(Words, DecimalNumbers) {
  std::uint64_t n = 7;
  for (const char* bad : {"", "-1", "+1", "1 ", "0x1", "1k", "18446744073709551616"}) {
    EXPECT_FALSE(parse_decimal(bad, &n)) << bad;
    EXPECT_EQ(n, 7u);
  }
  EXPECT_TRUE(parse_decimal("18446744073709551615", &n));
  EXPECT_EQ(n, UINT64_MAX);
}

}  // namespace
}  // namespace heaptier
