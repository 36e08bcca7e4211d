// Which pages of one pageblock are in use: 512 bits.
//
// Thread rule: none inside; the Space's lock guards it.
#pragma once

#include <bit>
#include <cstdint>

#include "runtime/base/units.h"

namespace heaptier {

class Usemap {
 public:
  static constexpr std::uint32_t kNone = 0xffffffffu;
  static constexpr std::uint32_t kPages = kPagesPerBlock;

  void set(std::uint32_t first, std::uint32_t count, bool used) {
    for (std::uint32_t i = first; i < first + count;) {
      const std::uint32_t bit = i % 64;
      const std::uint32_t n = first + count - i < 64 - bit ? first + count - i : 64 - bit;
      const std::uint64_t mask = (n == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << n) - 1) << bit;
      if (used) {
        words_[i / 64] |= mask;
      } else {
        words_[i / 64] &= ~mask;
      }
      i += n;
    }
  }

  bool used(std::uint32_t page) const { return (words_[page / 64] >> (page % 64) & 1) != 0; }

  bool is_free(std::uint32_t first, std::uint32_t count) const {
    return next(first, true) >= first + count;
  }

  // First page of the lowest free run that holds `count` pages from a multiple of `align` on.
  std::uint32_t find(std::uint32_t count, std::uint32_t align) const {
    for (std::uint32_t start = next(0, false); start < kPages;) {
      const std::uint32_t end = next(start, true);
      const std::uint32_t at = (start + align - 1) & ~(align - 1);
      if (at + count <= end) return at;
      start = next(end, false);
    }
    return kNone;
  }

  // Where the free run at the end begins; kPages: the last page is used.
  std::uint32_t free_from() const {
    for (std::uint32_t i = kPages / 64; i > 0; --i) {
      const std::uint64_t word = words_[i - 1];
      if (word != 0) return i * 64 - static_cast<std::uint32_t>(std::countl_zero(word));
    }
    return 0;
  }

  std::uint32_t longest_free() const {
    std::uint32_t best = 0;
    for (std::uint32_t start = next(0, false); start < kPages;) {
      const std::uint32_t end = next(start, true);
      if (end - start > best) best = end - start;
      start = next(end, false);
    }
    return best;
  }

 private:
  // First page from `from` on that is used (or free); kPages: none.
  std::uint32_t next(std::uint32_t from, bool used) const {
    for (std::uint32_t i = from; i < kPages; i = (i / 64 + 1) * 64) {
      const std::uint64_t word = used ? words_[i / 64] : ~words_[i / 64];
      const std::uint64_t rest = word >> (i % 64);
      if (rest != 0) return i + static_cast<std::uint32_t>(std::countr_zero(rest));
    }
    return kPages;
  }

  std::uint64_t words_[kPages / 64] = {};
};

}  // namespace heaptier
