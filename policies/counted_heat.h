// Heat that a sampler counts: of all uses of memory it sees a few at random, and tells of each what
// it was a use of and for how many it stands. So a pageblock of which none was seen is cold only if
// some would have been, were it used as much as others: time alone says nothing, since a program
// that does nothing makes nothing cold.
#pragma once

#include <cstdint>

#include "policies/gap.h"

namespace heaptier {

// What came of a pageblock of average use in some time: uses that were seen, and for how many these
// stand.
struct UseShare {
  Nanos time{};
  float seen = 0;
  float uses = 0;
};

class CountedHeat {
 public:
  // So many seen say something, of this block, or of the average one in the same time.
  static constexpr float kEnough = 4;

  // One was seen that stands for so many.
  void add(std::uint64_t uses);
  // What was added since the last time came while this came of the average block.
  void pass(const UseShare& average);
  void forget() { *this = {}; }
  bool known() const { return seen() >= kEnough || expected() >= kEnough; }
  bool used() const { return seen() > 0; }
  // Not just by chance.
  bool surely_used() const { return seen() >= kEnough; }
  // How often each of so many pages of the block is used at most, if all are alike: as much as to
  // call it cold by. kUnknownGap: not known().
  Gap gap_of_page(std::uint32_t pages) const;
  // And at least, but for chance: to call it hot by. kUnknownGap: not surely_used().
  Gap sure_gap_of_page(std::uint32_t pages) const;

 private:
  struct Span {
    Nanos time{};
    float seen = 0;
    float uses = 0;
    float expected = 0;  // to be seen of the average block
    float expected_uses = 0;
    void add(const Span& s);
    void halve();
  };
  float seen() const { return before_.seen + lately_.seen; }
  float expected() const { return before_.expected + lately_.expected; }
  bool changed() const;

  Span before_;
  Span lately_;  // too little still to be told from chance
};

}  // namespace heaptier
