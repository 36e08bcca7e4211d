// How much: CPU time that may be spent, refilled at every tick.
#pragma once

#include <algorithm>
#include <cstdint>

namespace heaptier::policy {

// What is left may be overdrawn by the last expense and is then paid back before the next one: so a
// tick too short for a single expense does not forbid it for ever, and the long-run rate holds.
class Allowance {
 public:
  // `most`: what may be saved up, so that a quiet time is not followed by a burst.
  constexpr void refill(std::uint64_t nanos, std::uint64_t most) {
    left_ = std::min(left_ + static_cast<std::int64_t>(nanos), static_cast<std::int64_t>(most));
  }
  constexpr bool any() const { return left_ > 0; }
  constexpr void spend(std::uint64_t nanos) { left_ -= static_cast<std::int64_t>(nanos); }
  // Spent because it had to be: not paid back.
  constexpr void spend_at_most_all(std::uint64_t nanos) {
    left_ -= std::clamp(static_cast<std::int64_t>(nanos), std::int64_t{0},
                        std::max(left_, std::int64_t{0}));
  }

 private:
  std::int64_t left_ = 0;
};

}  // namespace heaptier::policy
