// A page that is to move at its next touch (heaptier_move_lazy). The mark lies in the slot field of
// its word, which nothing else uses while the page is parked or resident; of a huge page every word
// has it, so that it lasts when the page is taken apart. A fault handler does not move pages
// itself: it notes that the touch came, and from where (touched); the background thread does the
// rest (hand_moves.h).
//
// What a mark does not outlive: the page's content being freed, stored or copied.
#pragma once

#include <cstdint>

namespace heaptier {

class LazyMark {
 public:
  constexpr explicit LazyMark(std::uint32_t slot) : bits_(slot) {}
  static constexpr LazyMark wanted(unsigned tier) { return LazyMark{kIs | (tier & 0xff)}; }
  // The touch has come, from a CPU of `node`. What is no mark stays what it is.
  constexpr LazyMark touched_from(unsigned node) const {
    return is_mark() ? LazyMark{kIs | kTouched | tier() | (node & 0xff) << 8} : *this;
  }

  constexpr std::uint32_t bits() const { return bits_; }
  constexpr bool is_mark() const { return (bits_ & kIs) != 0; }
  constexpr bool is_touched() const { return is_mark() && (bits_ & kTouched) != 0; }
  constexpr bool is_waiting() const { return is_mark() && (bits_ & kTouched) == 0; }
  constexpr unsigned tier() const { return bits_ & 0xff; }
  constexpr unsigned node() const { return (bits_ >> 8) & 0xff; }

 private:
  static constexpr std::uint32_t kIs = std::uint32_t{1} << 31;
  static constexpr std::uint32_t kTouched = std::uint32_t{1} << 30;
  std::uint32_t bits_;
};

}  // namespace heaptier
