// Heat that a sampler tells (runtime/sampling): how often a pageblock was looked at, and how often
// it was found to have been used since the look before. Nothing is parked to find that out, and
// what is cold can be moved as soon as that is known. (Where it counts single uses instead:
// counted_heat.h.)
//
// A look at a huge page is one at all of it; a look at small pages is one at a single of them,
// another each time.
#pragma once

#include <cstdint>

#include "policies/gap.h"

namespace heaptier {

struct PlacementView;  // placed_block.h

class ToldHeat {
 public:
  // So many looks say something.
  static constexpr std::uint32_t kEnough = 20;

  // `looks` came after times of this length each; `used` of them found it used.
  void add(std::uint32_t looks, std::uint32_t used, Nanos each);
  void forget() { *this = {}; }
  bool known() const { return looks_ >= kEnough; }
  bool used() const { return used_ > 0; }
  // Not just by chance.
  bool surely_used() const { return used_ >= kSure; }
  bool nearly_always_used() const { return known() && used_ * 5U >= looks_ * 4U; }
  // The mean time between two uses of what a look is at, as far as looks so far apart can tell; if
  // no use was seen, how long it has been looked at. kUnknownGap: not known().
  Gap gap() const;

 private:
  static constexpr std::uint32_t kSure = 4;
  bool changed(std::uint32_t looks, std::uint32_t used) const;

  std::uint32_t looks_ = 0;
  std::uint32_t used_ = 0;
  Nanos watched_{};  // the time that these looks cover
};

// What is worth promoting, and what is dense, where a sampler tells the heat of all blocks
// (PlacementView::told): sets what BlockWatcher would find out by parking. `promote_below`: see
// there.
void judge_told(PlacementView& view, Nanos now, Gap promote_below);

}  // namespace heaptier
