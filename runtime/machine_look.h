// When to look anew at what memory the machine and the cgroup have. A limit may come at any time,
// with the group that a process is moved to, or that a child moves itself to; growth that went on
// without knowing of it would be the process' end. So it is looked at when some time has passed,
// and when the heap has grown.
//
// Thread rule: the background thread. Arithmetic.
#pragma once

#include <cstddef>

#include "runtime/base/units.h"

namespace heaptier {

class MachineLook {
 public:
  // A quarter of what budgets leave of a limit (budget.cc).
  static constexpr std::size_t kGrowth = std::size_t{8} << 20;
  static constexpr Nanos kEvery = seconds(1);
  static constexpr Nanos kEveryLimited = millis(50);  // others live there, too

  // `carved`: bytes that the heap has been handed out.
  bool due(Nanos now, std::size_t carved) const {
    return now >= next_ || carved >= carved_ + kGrowth;
  }
  void done(Nanos now, std::size_t carved, bool limited) {
    next_ = now + (limited ? kEveryLimited : kEvery);
    carved_ = carved;
  }

 private:
  Nanos next_{};
  std::size_t carved_ = 0;
};

}  // namespace heaptier
