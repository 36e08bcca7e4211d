// What became of the blocks that were parked: turns hint faults into heat, back-off and an
// expectation.
#pragma once

#include <algorithm>
#include <cstdint>

#include "policies/filter.h"
#include "policies/policy.h"

namespace heaptier::policy {

// The share of parked pages that come back instead of going to the store, smoothed over the last
// dozen blocks. Says how much parking yields and how many faults it costs.
class ReturnShare {
 public:
  constexpr void note(std::uint32_t returned, std::uint32_t parked) {
    if (parked == 0) return;
    const std::uint32_t x = std::min(returned, parked) * kOne / parked;
    share_ = (share_ * 7 + x) / 8;
  }
  constexpr std::uint64_t returning(std::uint64_t pages) const { return pages * share_ / kOne; }
  // Of `pages` parked, how many are likely to be stored. A quarter at least: a run of hot blocks
  // must not make the next park everything.
  constexpr std::uint64_t yield(std::uint64_t pages) const {
    return pages * (kOne - std::min(share_, kHighest)) / kOne;
  }
  // How many to park to have `pages` stored.
  constexpr std::uint64_t pages_for(std::uint64_t pages) const {
    return pages * kOne / (kOne - std::min(share_, kHighest));
  }

 private:
  static constexpr std::uint32_t kOne = 1 << 16;
  static constexpr std::uint32_t kHighest = kOne * 3 / 4;
  std::uint32_t share_ = kOne / 2;
};

// A touch within this time of parking is "straight back": the block earns a longer rest each time.
// A later one says that it is lukewarm, and halves what it earned.
inline constexpr Nanos kStraightBack = seconds(2);

// Marks a block whose park has been decided.
constexpr void watch(BlockView& b) {
  b.watched = b.resident;
}

// The block is in use: let it rest.
constexpr void let_rest(BlockView& b, Nanos now) {
  const bool straight_back = now - b.parked_since < kStraightBack;
  b.backoff = straight_back
                  ? static_cast<std::uint16_t>(std::min<std::uint32_t>(b.backoff + 1U, kMaxBackoff))
                  : static_cast<std::uint16_t>(b.backoff / 2);
  b.not_before = now + rest_after(b.backoff);
  b.watched = 0;
}

// Pages of a watched, parked block that have come back.
constexpr std::uint32_t returned_pages(const BlockView& b) {
  return b.watched > b.parked ? static_cast<std::uint32_t>(b.watched - b.parked) : 0U;
}

// Brings the policy's own fields up to date with what happened since the last tick.
constexpr void observe(BlockView& b, Nanos now, ReturnShare& share) {
  if (b.not_before.v == 0 && b.resident > 0) b.not_before = now + rest_after(0);  // first seen
  if (b.fruitless > b.noted) b.not_before = now + rest_after(b.fruitless);
  b.noted = b.fruitless;
  if (b.watched == 0 || b.parked > 0) return;
  if (b.phase == BlockPhase::kScattered) {  // stored, but for what came back
    b.heat = std::min(b.resident, b.watched);
    share.note(b.heat, b.watched);
    b.backoff = 0;
    b.watched = 0;
  } else if (b.touches > 0) {  // home again, all of it
    b.heat = b.watched;
    share.note(b.watched, b.watched);
    let_rest(b, now);
  } else {  // the park did not take place
    b.watched = 0;
  }
}

}  // namespace heaptier::policy
