// Whether the cgroup's limit presses on a heap that lies on several tiers of nodes. All nodes are
// charged to one cgroup: moving pages between them is no relief there, only the store is. While it
// presses, the loop that stores has the word (tiering_loop.h), else the one that places pages.
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

  // `present`: pages of the heap in memory; `low`: the mark that they are to stay below,
  // UINT64_MAX: there is none. It presses from an eighth below that on, as what is to leave has to
  // be looked at for a while first.
  bool presses(Nanos now, std::uint64_t present, std::uint64_t low) {
    const bool near = low != UINT64_MAX && present >= low - low / 8;
    if (near) until_ = now + kStays;
    if (low == UINT64_MAX) until_ = Nanos{};
    return now < until_;
  }

 private:
  Nanos until_{};
};

}  // namespace heaptier
