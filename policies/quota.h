// How much: CPU time that may be spent, refilled at every tick and saved up for a while.
#pragma once

#include <algorithm>
#include <cstdint>

namespace heaptier::policy {

class Allowance {
 public:
  // `most`: what may be saved up.
  constexpr void refill(std::uint64_t nanos, std::uint64_t most) {
    left_ = std::min(left_ + nanos, std::max(most, nanos));
  }
  constexpr bool covers(std::uint64_t nanos) const { return left_ >= nanos; }
  constexpr void spend(std::uint64_t nanos) { left_ -= std::min(left_, nanos); }

 private:
  std::uint64_t left_ = 0;
};

}  // namespace heaptier::policy
