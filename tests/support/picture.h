// Pageblocks and plans as pictures, so that a test of a policy reads as what happens:
//
//   blocks  "HHww ppss"        plan  "..p. vv.~"
//
// Spaces in pictures of blocks are for the eye. Every block is rested, and parked ones are parked,
// since 10 s.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "policies/policy.h"

namespace heaptier::testing {

class Picture {
 public:
  static constexpr Nanos kNow = seconds(1000);
  static constexpr Nanos kSince = seconds(990);

  // H huge, w whole, u unmanaged: 512 pages at home.   P parked huge, p parked: 512 pages in the
  // park. s scattered: 256 pages at home, 256 stored.        e scattered: all 512 stored. x
  // unmovable and whole, X unmovable and parked.     r, R the same, reclaimable. f whole, but
  // fruitless three times and resting.
  explicit Picture(std::string_view blocks) {
    for (const char c : blocks) {
      if (c != ' ') blocks_.push_back(block(c));
    }
    recount();
  }

  std::vector<BlockView>& blocks() { return blocks_; }
  BlockView& at(std::size_t i) { return blocks_[i]; }
  View& view() { return view_; }
  Budget& budget() { return budget_; }

  // Watermarks in blocks; the budget is the high one.
  Picture& limits(double low, double high) {
    budget_.low_bytes = static_cast<std::uint64_t>(low * kPageblockSize);
    budget_.high_bytes = static_cast<std::uint64_t>(high * kPageblockSize);
    budget_.fast_bytes = budget_.high_bytes;
    return *this;
  }
  Picture& hint_time(Nanos t) {
    budget_.hint_nanos = static_cast<std::uint64_t>(t.v);
    return *this;
  }

  // What the policy plans, one character a block:
  // . nothing  p park  / park split  v store  ~ sweep  ^ unpark  # collapse.  ! for a block planned
  // twice.
  std::string plan(Policy& policy, Nanos now = kNow, std::size_t room = 64) {
    recount();
    std::vector<Step> storage(room, Step{{}, Action::kPark, Reason::kIdle});
    Plan plan(storage);
    policy.decide(view_, now, budget_, plan);
    for (BlockView& b : blocks_) b.touches = 0;
    steps_.assign(plan.steps().begin(), plan.steps().end());
    std::string drawn(blocks_.size(), '.');
    for (const Step& s : steps_) {
      char& c = drawn[s.block.v];
      c = c == '.' ? letter(s.action) : '!';
    }
    return drawn;
  }
  const std::vector<Step>& steps() const { return steps_; }

  static char letter(Action a) {
    switch (a) {
      case Action::kPark:
        return 'p';
      case Action::kStore:
        return 'v';
      case Action::kSweep:
        return '~';
      case Action::kUnpark:
        return '^';
      case Action::kCollapse:
        return '#';
      case Action::kParkSplit:
        return '/';
    }
    return '?';
  }

 private:
  BlockView block(char c) const {
    BlockView b;
    b.index = {static_cast<std::uint32_t>(blocks_.size())};
    b.not_before = kSince;
    const auto whole = [&b](BlockPhase phase) {
      b.phase = phase;
      b.resident = kPagesPerBlock;
    };
    const auto parked = [&b] {
      b.phase = BlockPhase::kParked;
      b.parked = kPagesPerBlock;
      b.watched = kPagesPerBlock;
      b.parked_since = kSince;
    };
    switch (c) {
      case 'H':
        b.huge = true;
        [[fallthrough]];
      case 'w':
        whole(BlockPhase::kWhole);
        break;
      case 'u':
        whole(BlockPhase::kUnmanaged);
        break;
      case 'P':
        b.huge = true;
        [[fallthrough]];
      case 'p':
        parked();
        break;
      case 's':
        whole(BlockPhase::kScattered);
        b.resident = kPagesPerBlock / 2;
        b.stored = kPagesPerBlock / 2;
        break;
      case 'e':
        b.phase = BlockPhase::kScattered;
        b.stored = kPagesPerBlock;
        break;
      case 'x':
      case 'r':
        whole(BlockPhase::kWhole);
        b.mobility = c == 'x' ? Mobility::kUnmovable : Mobility::kReclaimable;
        break;
      case 'X':
      case 'R':
        parked();
        b.mobility = c == 'X' ? Mobility::kUnmovable : Mobility::kReclaimable;
        break;
      case 'f':
        whole(BlockPhase::kWhole);
        b.fruitless = b.noted = 3;
        b.not_before = kNow + seconds(1);
        break;
      default:
        std::abort();  // not a picture
    }
    return b;
  }

  void recount() {
    view_.blocks = blocks_;
    view_.resident_bytes = view_.parked_bytes = view_.stored_bytes = view_.probation_bytes = 0;
    for (const BlockView& b : blocks_) {
      view_.resident_bytes += b.resident * kPageSize;
      view_.parked_bytes += b.parked * kPageSize;
      view_.stored_bytes += b.stored * kPageSize;
      view_.probation_bytes += b.clean * kPageSize;
    }
  }

  std::vector<BlockView> blocks_;
  View view_;
  Budget budget_;
  std::vector<Step> steps_;
};

}  // namespace heaptier::testing
