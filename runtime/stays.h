// Why a page that is to be on another node still lies where it was.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/tiers/node_mover.h"

namespace heaptier {

enum class Stays : std::uint8_t {
  kPinned,  // a device or a pipe holds it
  kShared,  // a forked child has it, too
  kNoRoom,  // where it is to go
  kBound,   // the application asked for it by mbind
  kOther,   // the kernel's call failed
};
inline constexpr std::size_t kStayReasons = 5;

// How many pages stay for each reason.
struct LeftPages {
  std::uint64_t by_reason[kStayReasons] = {};
  std::uint64_t& operator[](std::size_t why) { return by_reason[why]; }
  std::uint64_t operator[](std::size_t why) const { return by_reason[why]; }
  std::uint64_t all() const {
    std::uint64_t n = 0;
    for (const std::uint64_t pages : by_reason) n += pages;
    return n;
  }
};

// Of a status that NodeMover::move() gave and that is no node.
inline Stays why_not_moved(int status) {
  switch (outcome_of(status)) {
    case NodeMoveOutcome::kPinned:
      return Stays::kPinned;
    case NodeMoveOutcome::kShared:
      return Stays::kShared;
    case NodeMoveOutcome::kTargetFull:
    case NodeMoveOutcome::kNoRoomWhole:
      return Stays::kNoRoom;
    default:
      return Stays::kOther;
  }
}

}  // namespace heaptier
