// The states of a page and of a pageblock, and the moves between them. A page's state, its lock,
// its slot and what is known of its heat share one 64-bit word, so that one compare-and-swap takes
// a page and every reader sees all of it at once. 8 bytes for 4096: 0.2 % of managed memory.
//
// Thread rule: whoever sets the lock bit owns the page (its mapping, its slot, its word) until it
// clears it. Owners never touch managed memory other than by MemoryOps::copy_pages, never allocate,
// never block.
#pragma once

#include <cstdint>

namespace heaptier {

enum class PageState : std::uint8_t {
  kUntouched = 0,  // absent at home, never written or dropped: reads as zero
  kResident = 1,   // mapped at home; no stored copy
  kClean = 2,      // mapped at home write-protected; the slot still holds its copy (probation)
  kParked = 3,     // absent at home; its frame lies at the same offset of the park
  kStored = 4,     // absent at home; the slot holds the only copy
  kFilled = 5,     // absent at home; every 32-bit word equals the slot field (no slot is used)
  kPoisoned = 6,   // its slot failed the checksum: a touch gets SIGBUS, never wrong bytes
};
inline constexpr int kPageStates = 7;

constexpr const char* to_string(PageState s) {
  constexpr const char* kNames[kPageStates] = {"untouched", "resident", "clean",   "parked",
                                               "stored",    "filled",   "poisoned"};
  return kNames[static_cast<int>(s)];
}

// Which state may follow which. Everything else is refused (and counted): a bug must not become a
// lost byte.
constexpr bool can_go(PageState from, PageState to) {
  using enum PageState;
  switch (from) {
    case kUntouched:
      return to == kResident;
    case kResident:
      return to == kParked || to == kClean || to == kUntouched || to == kFilled;
    case kClean:  // written or promoted; discarded; freed; found changed
      return to == kResident || to == kStored || to == kUntouched || to == kFilled;
    case kParked:
      return to == kResident || to == kStored || to == kFilled || to == kUntouched;
    case kStored:
      return to == kClean || to == kResident || to == kUntouched || to == kPoisoned;
    case kFilled:
      return to == kResident || to == kUntouched;
    case kPoisoned:
      return to == kUntouched;
  }
  return false;
}

// The 64-bit word of one page.
//   0      lock          1-3   state        4     write-protected at home
//   5-6    incompressible: how often in a row it would not shrink
//   7-9    credits: clock passes to skip (promoted, hot); with several node tiers: node_moves.h
//   10-15  refault estimate, log2 in half steps; with several node tiers: the gap of its last touch
//   16-31  stamp: coarse discard counter when it left; while it rests, when that began (rest.h)
//   32-63  slot, or the fill pattern; resident or parked: what is wanted of it (lazy_mark.h), or 0
class PageWord {
 public:
  constexpr PageWord() = default;
  constexpr explicit PageWord(std::uint64_t bits) : bits_(bits) {}
  constexpr std::uint64_t bits() const { return bits_; }

  constexpr bool locked() const { return (bits_ & 1) != 0; }
  constexpr PageState state() const { return static_cast<PageState>(field(1, 3)); }
  constexpr bool write_protected() const { return field(4, 1) != 0; }
  constexpr std::uint32_t incompressible() const { return field(5, 2); }
  constexpr std::uint32_t credits() const { return field(7, 3); }
  constexpr std::uint32_t estimate() const { return field(10, 6); }
  constexpr std::uint32_t stamp() const { return field(16, 16); }
  constexpr std::uint32_t slot() const { return static_cast<std::uint32_t>(bits_ >> 32); }

  // Resident and not to be tried again for a while, because it would not shrink.
  constexpr bool resting() const {
    return state() == PageState::kResident && incompressible() != 0 && stamp() != 0;
  }

  constexpr PageWord with_lock(bool on) const {
    return PageWord{on ? bits_ | 1 : bits_ & ~std::uint64_t{1}};
  }
  constexpr PageWord with_state(PageState s) const { return set(1, 3, static_cast<unsigned>(s)); }
  constexpr PageWord with_write_protected(bool on) const { return set(4, 1, on ? 1 : 0); }
  constexpr PageWord with_incompressible(std::uint32_t n) const { return set(5, 2, clamp(n, 3)); }
  constexpr PageWord with_credits(std::uint32_t n) const { return set(7, 3, clamp(n, 7)); }
  constexpr PageWord with_estimate(std::uint32_t n) const { return set(10, 6, clamp(n, 63)); }
  constexpr PageWord with_stamp(std::uint32_t n) const { return set(16, 16, n & 0xffff); }
  constexpr PageWord with_slot(std::uint32_t s) const {
    return PageWord{(bits_ & 0xffffffffu) | (std::uint64_t{s} << 32)};
  }

 private:
  static constexpr std::uint32_t clamp(std::uint32_t n, std::uint32_t max) {
    return n > max ? max : n;
  }
  constexpr std::uint32_t field(unsigned at, unsigned width) const {
    return static_cast<std::uint32_t>((bits_ >> at) & ((std::uint64_t{1} << width) - 1));
  }
  constexpr PageWord set(unsigned at, unsigned width, std::uint64_t value) const {
    const std::uint64_t mask = ((std::uint64_t{1} << width) - 1) << at;
    return PageWord{(bits_ & ~mask) | ((value << at) & mask)};
  }
  std::uint64_t bits_ = 0;
};

}  // namespace heaptier
