// Words and numbers out of text: what options, and the kernel's files, are made of.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace heaptier {

// Decimal digits only, nothing else, no overflow.
[[nodiscard]] constexpr bool parse_decimal(std::string_view text, std::uint64_t* out) {
  if (text.empty()) return false;
  std::uint64_t n = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return false;
    const auto digit = static_cast<std::uint64_t>(c - '0');
    if (n > (UINT64_MAX - digit) / 10) return false;
    n = n * 10 + digit;
  }
  *out = n;
  return true;
}

// The next word of *text, which loses it; empty: there is none. Blanks are what stands between the
// words of the kernel's files, brackets and commas included.
constexpr std::string_view next_word(std::string_view* text) {
  constexpr std::string_view kBlanks = " \t\n,()";
  while (!text->empty() && kBlanks.find(text->front()) != std::string_view::npos) {
    text->remove_prefix(1);
  }
  std::size_t length = 0;
  while (length < text->size() && kBlanks.find((*text)[length]) == std::string_view::npos) ++length;
  const std::string_view word = text->substr(0, length);
  text->remove_prefix(length);
  return word;
}

// False: the next word is no number, or there is none; *out is unchanged.
constexpr bool next_number(std::string_view* text, std::uint64_t* out) {
  return parse_decimal(next_word(text), out);
}

}  // namespace heaptier
