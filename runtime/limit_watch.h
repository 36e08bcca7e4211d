// Whether the cgroup's limit presses on a heap that lies on several tiers of nodes. All nodes are
// charged to one cgroup: moving pages between them is no relief there, only the store is. While it
// presses, the loop that stores has the word (tiering_loop.h), else the one that places pages. A
// limit may press for as long as the program runs: so they take turns while nothing is in excess.
//
// Thread rule: the background thread. Arithmetic.
#pragma once

#include <cstdint>

#include "runtime/base/units.h"

namespace heaptier {

class LimitWatch {
 public:
  // Handing over costs what was found out about memory that is being watched: not too often.
  static constexpr Nanos kStays = seconds(5);

  // The turns, while it presses and what was to leave has left.
  static constexpr Nanos kStores = seconds(10);
  static constexpr Nanos kPlaces = seconds(5);

  // Whether the loop that stores has the word. `present`: pages of the heap in memory; `low`: the
  // mark that they are to stay below, UINT64_MAX: there is none. It presses from an eighth below
  // that on, as what is to leave has to be looked at for a while first.
  bool presses(Nanos now, std::uint64_t present, std::uint64_t low) {
    const bool pressed = now < until_;
    if (low == UINT64_MAX) until_ = Nanos{};
    if (low != UINT64_MAX && present >= low - low / 8) until_ = now + kStays;
    if (now >= until_) return false;
    if (!pressed || present > low + low / 32) {
      begin_turn(now, true);
    } else if (now >= turn_ends_) {
      begin_turn(now, !stores_);
    }
    return stores_;
  }

 private:
  void begin_turn(Nanos now, bool stores) {
    stores_ = stores;
    turn_ends_ = now + (stores ? kStores : kPlaces);
  }

  Nanos until_{};
  Nanos turn_ends_{};
  bool stores_ = true;
};

}  // namespace heaptier
