// A token bucket: how many bytes may be moved by now. Pure: time comes in, nothing sleeps.
//
// Thread rule: belongs to one thread.
#pragma once

#include <algorithm>
#include <cstdint>

#include "runtime/base/units.h"

namespace heaptier {

class RateLimit {
 public:
  // `bytes_per_second` 0: no limit. `burst`: the most that may be taken at once after a rest; at
  // least 2 MiB, or no huge page would ever pass. The bucket starts full.
  constexpr RateLimit() = default;
  constexpr RateLimit(std::uint64_t bytes_per_second, std::uint64_t burst)
      : rate_(std::min(bytes_per_second, kMostRate)),
        burst_(std::min(std::max<std::uint64_t>(burst, kPageblockSize), kMostBurst)),
        tokens_(burst_) {}

  constexpr bool unlimited() const { return rate_ == 0; }

  // Takes `bytes` if they are there by `now`. A clock that steps back gives nothing.
  constexpr bool take(std::uint64_t bytes, Nanos now) {
    if (unlimited()) return true;
    refill(now);
    if (bytes > tokens_) return false;
    tokens_ -= bytes;
    return true;
  }
  // What was taken for a page that then did not move.
  constexpr void give_back(std::uint64_t bytes) {
    if (!unlimited()) tokens_ = std::min(tokens_ + bytes, burst_);
  }
  // How long from `now` until take(bytes) would succeed; 0: at once. Requires: bytes <= burst.
  constexpr Nanos wait_for(std::uint64_t bytes, Nanos now) {
    if (unlimited()) return {};
    refill(now);
    if (bytes <= tokens_) return {};
    const std::uint64_t lacking = (bytes - tokens_) * kSecond - std::min(carry_, kSecond);
    return {static_cast<std::int64_t>((lacking + rate_ - 1) / rate_)};
  }

 private:
  static constexpr std::uint64_t kSecond = 1'000'000'000;
  // So that neither bytes times a second's nanoseconds nor a rate times the time that fills the
  // bucket leaves 64 bits.
  static constexpr std::uint64_t kMostBurst = std::uint64_t{8} << 30;
  static constexpr std::uint64_t kMostRate = std::uint64_t{1} << 40;

  constexpr void refill(Nanos now) {
    if (!started_) {
      started_ = true;
      last_ = now;
      return;
    }
    if (now <= last_) return;
    const auto passed = static_cast<std::uint64_t>((now - last_).v);
    last_ = now;
    // After this long the bucket is full whatever was in it; and the product below stays small.
    if (passed / kSecond > burst_ / rate_) {
      tokens_ = burst_;
      carry_ = 0;
      return;
    }
    // rate * passed in parts: seconds by themselves, the rest with what was lost to rounding last
    // time, so that many short steps give exactly what one long step gives.
    const std::uint64_t rest = passed % kSecond;
    const std::uint64_t high = rate_ / kSecond * rest;
    const std::uint64_t low = rate_ % kSecond * rest + carry_;
    carry_ = low % kSecond;
    const std::uint64_t gained = rate_ * (passed / kSecond) + high + low / kSecond;
    tokens_ = std::min(tokens_ + gained, burst_);
    if (tokens_ == burst_) carry_ = 0;
  }

  std::uint64_t rate_ = 0;   // bytes per second
  std::uint64_t burst_ = 0;  // bytes
  std::uint64_t tokens_ = 0;
  std::uint64_t carry_ = 0;  // byte-nanoseconds below one byte
  Nanos last_{};
  bool started_ = false;
};

}  // namespace heaptier
