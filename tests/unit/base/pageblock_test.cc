// The page word and the table of moves: every field at every value, every pair of states.
#include "runtime/pageblock.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

namespace heaptier {
namespace {

static_assert(sizeof(PageWord) == 8);
static_assert(PageWord{}.state() == PageState::kUntouched && PageWord{}.bits() == 0);

struct Field {
  const char* name;
  unsigned at, width;
  std::uint32_t max;  // larger values become this; 0: they wrap
  std::function<std::uint32_t(PageWord)> get;
  std::function<PageWord(PageWord, std::uint32_t)> with;
};

const std::vector<Field>& fields() {
  static const std::vector<Field> all = {
      {"lock", 0, 1, 1, [](PageWord w) { return w.locked() ? 1U : 0U; },
       [](PageWord w, std::uint32_t v) { return w.with_lock(v != 0); }},
      {"state", 1, 3, 0, [](PageWord w) { return static_cast<std::uint32_t>(w.state()); },
       [](PageWord w, std::uint32_t v) { return w.with_state(static_cast<PageState>(v)); }},
      {"write_protected", 4, 1, 1, [](PageWord w) { return w.write_protected() ? 1U : 0U; },
       [](PageWord w, std::uint32_t v) { return w.with_write_protected(v != 0); }},
      {"incompressible", 5, 2, 3, [](PageWord w) { return w.incompressible(); },
       [](PageWord w, std::uint32_t v) { return w.with_incompressible(v); }},
      {"credits", 7, 3, 7, [](PageWord w) { return w.credits(); },
       [](PageWord w, std::uint32_t v) { return w.with_credits(v); }},
      {"estimate", 10, 6, 63, [](PageWord w) { return w.estimate(); },
       [](PageWord w, std::uint32_t v) { return w.with_estimate(v); }},
      {"stamp", 16, 16, 0, [](PageWord w) { return w.stamp(); },
       [](PageWord w, std::uint32_t v) { return w.with_stamp(v); }},
      {"slot", 32, 32, 0, [](PageWord w) { return w.slot(); },
       [](PageWord w, std::uint32_t v) { return w.with_slot(v); }},
  };
  return all;
}

std::uint64_t mask_of(const Field& f) {
  return ((f.width == 64 ? 0 : std::uint64_t{1} << f.width) - 1) << f.at;
}

// Values that matter of a field: all of the narrow ones, edges and single bits of the wide ones.
std::vector<std::uint32_t> values_of(const Field& f) {
  std::vector<std::uint32_t> values;
  if (f.width <= 16) {
    for (std::uint32_t v = 0; v < 1U << f.width; ++v) values.push_back(v);
  } else {
    values = {0, 1, 0xffffffff, 0xfffffffe, 0x12345678};
    for (unsigned bit = 0; bit < 32; ++bit) values.push_back(1U << bit);
  }
  return values;
}

TEST(PageWord, FieldsFillTheWordWithoutOverlap) {
  std::uint64_t all = 0;
  for (const Field& f : fields()) {
    EXPECT_EQ(all & mask_of(f), 0U) << f.name;
    all |= mask_of(f);
  }
  EXPECT_EQ(all, ~std::uint64_t{0});
}

TEST(PageWord, AFieldHoldsEveryValueAndTouchesNoOther) {
  std::mt19937_64 random(1);
  for (const Field& f : fields()) {
    for (const std::uint32_t v : values_of(f)) {
      for (const std::uint64_t background : {std::uint64_t{0}, ~std::uint64_t{0}, random()}) {
        const PageWord before{background};
        const PageWord after = f.with(before, v);
        ASSERT_EQ(f.get(after), v) << f.name;
        ASSERT_EQ(after.bits() & ~mask_of(f), background & ~mask_of(f)) << f.name << " " << v;
        ASSERT_EQ((after.bits() & mask_of(f)) >> f.at, v) << f.name;
      }
    }
  }
}

TEST(PageWord, ValuesThatDoNotFitAreClampedOrWrap) {
  for (const Field& f : fields()) {
    if (f.width >= 16 || f.max == 0) continue;
    for (const std::uint32_t v : {f.max + 1, f.max + 2, 1000U, 0xffffffffU}) {
      EXPECT_EQ(f.get(f.with(PageWord{}, v)), f.max) << f.name;
      EXPECT_EQ(f.with(PageWord{}, v).bits() & ~mask_of(f), 0U) << f.name;
    }
  }
  EXPECT_EQ(PageWord{}.with_stamp(0x12345).stamp(), 0x2345U);
  EXPECT_EQ(PageWord{}.with_stamp(0x12345).slot(), 0U);
}

TEST(PageState, EveryStateHasItsOwnNameAndFitsTheWord) {
  std::vector<std::string> names;
  for (int s = 0; s < kPageStates; ++s) {
    const auto state = static_cast<PageState>(s);
    names.emplace_back(to_string(state));
    EXPECT_EQ(PageWord{}.with_state(state).state(), state);
  }
  EXPECT_EQ(names, (std::vector<std::string>{"untouched", "resident", "clean", "parked", "stored",
                                             "filled", "poisoned"}));
}

// The table as the design has it, from row to column, and the reason of every move that is allowed:
//   a first touch        w write, or promoted    p parked      c copied under protection
//   s to the store       f found same-filled     d dropped     r fetched on probation
//   u brought back       ! failed its checksum
constexpr const char* kMoves[kPageStates] = {
    // UNT RES CLE PAR STO FIL POI
    ". a . . . . .",  // untouched
    "d . c p . f .",  // resident
    "d w . . s f .",  // clean
    "d u . . s f .",  // parked
    "d u r . . . !",  // stored
    "d u . . . . .",  // filled
    "d . . . . . .",  // poisoned
};

TEST(CanGo, IsExactlyTheTable) {
  for (int from = 0; from < kPageStates; ++from) {
    for (int to = 0; to < kPageStates; ++to) {
      EXPECT_EQ(can_go(static_cast<PageState>(from), static_cast<PageState>(to)),
                kMoves[from][2 * to] != '.')
          << to_string(static_cast<PageState>(from)) << " -> "
          << to_string(static_cast<PageState>(to));
    }
  }
}

TEST(CanGo, RefusesWhatIsNoState) {
  const auto none = static_cast<PageState>(kPageStates);
  for (int s = 0; s < kPageStates; ++s) {
    EXPECT_FALSE(can_go(none, static_cast<PageState>(s)));
    EXPECT_FALSE(can_go(static_cast<PageState>(s), none));
  }
}

// What the table must give, whatever it is.
TEST(CanGo, LosesNothing) {
  using enum PageState;
  for (int s = 0; s < kPageStates; ++s) {
    const auto state = static_cast<PageState>(s);
    EXPECT_FALSE(can_go(state, state)) << "a move to itself is a lost update";
    EXPECT_EQ(can_go(state, kUntouched), state != kUntouched)
        << "what is freed is forgotten, from anywhere";
    EXPECT_EQ(can_go(state, kPoisoned), state == kStored) << "only a checksum poisons";
    if (state != kClean && state != kParked) {
      EXPECT_FALSE(can_go(state, kStored)) << "mapped and unprotected: a write could be lost";
    }
    if (state != kResident) {
      EXPECT_FALSE(can_go(state, kParked))
          << "only what has its frame at home can be moved from there";
    }
  }
}

TEST(CanGo, EveryStateIsReachedAndLeft) {
  std::array<bool, kPageStates> reached{true};
  for (int round = 0; round < kPageStates; ++round) {
    for (int from = 0; from < kPageStates; ++from) {
      for (int to = 0; to < kPageStates; ++to) {
        if (reached[static_cast<std::size_t>(from)] &&
            can_go(static_cast<PageState>(from), static_cast<PageState>(to))) {
          reached[static_cast<std::size_t>(to)] = true;
        }
      }
    }
  }
  for (const bool r : reached) EXPECT_TRUE(r);
}

}  // namespace
}  // namespace heaptier
