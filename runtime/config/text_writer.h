// Text into a buffer of fixed size, with snprintf's rules and without snprintf: nothing here
// depends on the locale, on stdio or on an allocator, so it serves before main and at exit alike.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace heaptier {

// Writes at most size - 1 characters and counts all of them. `out` may be nullptr when `size` is 0.
class TextWriter {
 public:
  TextWriter(char* out, std::size_t size) : out_(out), size_(size) {}

  void put(char c) {
    if (length_ + 1 < size_) out_[length_] = c;
    ++length_;
  }
  void put(std::string_view s) {
    for (char c : s) put(c);
  }
  void put_number(std::uint64_t n) {
    char digits[20];
    std::size_t count = 0;
    do {
      digits[count++] = static_cast<char>('0' + n % 10);
      n /= 10;
    } while (n != 0);
    while (count > 0) put(digits[--count]);
  }
  // numerator / denominator with `decimals` (0..3) digits, cut off, not rounded. 0 for a
  // denominator of 0.
  void put_ratio(std::uint64_t numerator, std::uint64_t denominator, unsigned decimals) {
    if (denominator == 0) numerator = 0, denominator = 1;
    put_number(numerator / denominator);
    if (decimals == 0) return;
    put('.');
    // Keeps rest * 10 inside 64 bits; costs less than the last digit shown.
    std::uint64_t rest = numerator % denominator;
    while (denominator > UINT64_MAX / 16) rest >>= 4, denominator >>= 4;
    if (rest >= denominator) rest = denominator - 1;  // the shift lost the difference
    for (; decimals > 0; --decimals) {
      rest *= 10;
      const std::uint64_t digit = rest / denominator;
      put(static_cast<char>('0' + digit));
      rest %= denominator;
    }
  }
  // Spaces up to column `at`, counted from `start` (a former length()).
  void pad_to(std::size_t start, std::size_t at) {
    while (length_ - start < at) put(' ');
  }
  std::size_t length() const { return length_; }
  // Closes with NUL; returns the length the whole text has.
  std::size_t finish() {
    if (size_ != 0) out_[length_ < size_ ? length_ : size_ - 1] = '\0';
    return length_;
  }

 private:
  char* out_;
  std::size_t size_;
  std::size_t length_ = 0;
};

}  // namespace heaptier
