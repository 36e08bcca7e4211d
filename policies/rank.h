// Which first: picks the blocks with the highest keys out of any number in two passes over them and
// without sorting or allocating. The first pass fills a histogram of keys, weighted by pages; the
// cut that gives the wanted amount is read off it; the second pass takes what lies above the cut,
// and as much at the cut as is still wanted.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "runtime/base/units.h"

namespace heaptier::policy {

class Ranking {
 public:
  using Key = std::uint32_t;
  static constexpr Key kKeys = 512;
  static constexpr Key kFirst = kKeys - 1;  // before any age

  // The longer ago (the further ahead: the less), the higher; four steps to an octave from about 1
  // us. Below kFirst.
  static constexpr Key key_of_age(Nanos age) {
    return age.v >= 0 ? kKeys / 2 + step(static_cast<std::uint64_t>(age.v))
                      : kKeys / 2 - 1 - step(static_cast<std::uint64_t>(-(age.v + 1)));
  }

  constexpr void count(Key key, std::uint32_t pages) {
    buckets_[key].pages += pages;
    ++buckets_[key].blocks;
  }

  // Fixes the cut so that the blocks taken hold `pages` or little more, but are at most `blocks`.
  constexpr void cut(std::uint64_t pages, std::size_t blocks) {
    cut_ = kKeys;
    at_cut_ = 0;
    while (cut_ > 0 && pages > 0 && blocks > 0) {
      const Bucket& b = buckets_[--cut_];
      at_cut_ = pages;
      pages -= b.pages < pages ? b.pages : pages;
      blocks -= b.blocks < blocks ? b.blocks : blocks;
    }
  }

  // Whether a block counted with this key and weight is taken. Ask once for each.
  constexpr bool take(Key key, std::uint32_t pages) {
    if (key != cut_) return key > cut_;
    if (at_cut_ == 0) return false;
    at_cut_ -= pages < at_cut_ ? pages : at_cut_;
    return true;
  }

 private:
  static constexpr Key step(std::uint64_t nanos) {
    const std::uint64_t v = nanos >> 10;
    if (v < 4) return static_cast<Key>(v);
    const auto octave = static_cast<Key>(std::bit_width(v)) - 1;
    return octave * 4 + static_cast<Key>((v >> (octave - 2)) & 3) - 4;
  }

  struct Bucket {
    std::uint64_t pages = 0;
    std::uint32_t blocks = 0;
  };
  std::array<Bucket, kKeys> buckets_{};
  Key cut_ = kKeys;
  std::uint64_t at_cut_ = 0;
};

}  // namespace heaptier::policy
