// What the policy of chains with several node tiers sees, and what it plans (placement.h).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "policies/counted_heat.h"
#include "policies/gap.h"
#include "policies/policy.h"
#include "policies/told_heat.h"

namespace heaptier {

inline constexpr unsigned kMostPlaces = 8;

// How a block is looked at. A huge page is parked whole and measured at its first touch.
enum class Watch : std::uint8_t {
  kNone,
  kWhole,   // a huge page, until it is touched
  kGlance,  // four of the small pages are parked for a while, to answer for all
  kProbe,   // sixteen, where some of the four were touched soon
  kBelow,   // all of them that lie below the first tier
  kAbove,   // all of them that lie on it
  kAgain,   // of those below the ones that may be hot
};

// Which small pages of a block are to be promoted.
enum class Wanted : std::uint8_t {
  kNone,
  kSoon,   // those that were touched soon after they had been parked
  kTwice,  // soon, and again so when they were parked once more
  kAll,    // all there are; a huge page whole
};

// The small pages of a block that lie on the first tier, or those that lie below it: what has come
// of watching them, told where PlacementPolicy::due().
struct WatchedPart {
  std::uint16_t parked = 0;   // still
  std::uint16_t touched = 0;  // since they were parked,
  std::uint16_t soon = 0;     // of these: PlacementPolicy::soon(),
  Nanos away{};               // and how long all of the touched were away, in sum
  // The policy's own: how often each page is touched, kUnknownGap: not known; this time; and from
  // so many touches of pages that had been away for so long in sum.
  Gap gap = kUnknownGap;
  Gap measured = kUnknownGap;
  std::uint32_t hits = 0;
  Nanos exposure{};
  std::uint32_t watched() const { return std::uint32_t{parked} + touched; }
  void forget() { *this = {}; }
};

struct PlacedBlock {
  BlockIndex index;
  bool movable = false;        // may be parked and moved at all
  bool huge = false;           // one huge page
  std::uint8_t tier = 0;       // where most of its pages are
  std::uint16_t resident = 0;  // pages at home
  std::uint16_t parked = 0;
  std::uint16_t slow = 0;     // of both: pages below the first tier
  std::uint16_t touches = 0;  // pages whose touch brought them home since the last decide()
  Nanos parked_since{};
  // Of a huge page: how often each page of it is touched, from how many touches that is known
  // (GapEstimate), and the last of them; and how many touches fell where others had (density()).
  Gap gap = kUnknownGap;
  std::uint8_t times = 0;
  Gap measured = kUnknownGap;
  std::uint8_t samples = 0;
  std::uint8_t repeats = 0;
  // Touches since the last decide(): from its own node, and from the one that it was touched from
  // last, if that is another.
  std::uint8_t near = 0;
  std::uint8_t far = 0;
  bool count_anew = false;  // by the policy: samples of another time, which are to be forgotten
  WatchedPart below, above;
  // Where a sampler tells it, in one way or the other.
  ToldHeat heat;
  CountedHeat uses;

  // The policy's own.
  Watch watch = Watch::kNone;  // at this moment
  Watch last = Watch::kNone;   // this is what is still parked
  Watch next = Watch::kNone;   // to be watched so as soon as may be
  std::uint16_t touched = 0;   // small pages, since they were parked
  Wanted wanted = Wanted::kNone;
  std::uint16_t wanted_pages = 0;
  Gap wanted_below = kUnknownGap;  // what was worth promoting when it was found to be
  Nanos wanted_since{};
  bool split = false;          // a huge page of which few pages are hot: small ones would be better
  bool suspect = false;        // seemed hot the last time
  bool blind = false;          // was judged while nobody knew what is worth promoting
  bool home = false;           // what is parked still is to come home
  std::uint8_t pull = 0;       // towards another socket (balance.h), and when it last went to one,
  std::uint8_t crossings = 0;  // and how often in short time
  Nanos crossed_at{};
  Nanos hopped_at{};  // all of it went up or down (bounce.h); how often soon after the other way
  bool hopped_up = false;
  std::uint8_t hops = 0;
  bool dense = false;  // small pages on the first tier, all hot: better one huge page
  Nanos gather_not_before{};
  std::uint8_t backoff = 0;
  Nanos not_before{};
  // By whoever carries plans out: it would not be parked or moved down, or up.
  Nanos stays_until{};
  Nanos rises_not_before{};
  Nanos crosses_not_before{};  // or to another socket

  std::uint32_t pages() const { return std::uint32_t{resident} + parked; }
  std::uint32_t pages_above() const { return pages() - std::min<std::uint32_t>(slow, pages()); }
  // As they are booked: what lies below the first tier of a block that is mostly on it is on the
  // second.
  std::uint32_t pages_on(unsigned t) const {
    if (t == 0) return pages_above();
    return std::max<unsigned>(tier, 1) == t ? slow : 0;
  }
};

struct PlaceView {
  std::uint64_t capacity_pages = 0;  // of the tier; what the option allows of it
  std::uint64_t room_pages = 0;      // free for the taking
  std::uint64_t over_pages = 0;      // that it holds beyond its capacity
};

struct PlacementView {
  std::span<PlacedBlock> blocks;
  PlaceView tiers[kMostPlaces];
  unsigned tier_count = 0;
  // After the last tier comes a store, and it takes pages.
  bool store_has_room = false;
  // The first tier has several nodes, and threads of this process may run beside more than one.
  bool several_sockets = false;
  // Free on the first tier's nodes, within the option or not: what copies into huge pages may take
  // for a moment. 0: none are to be made.
  std::uint64_t gather_pages = 0;
  bool told = false;  // a sampler tells the heat of all blocks: none is parked to find it out
};

enum class PlaceAction : std::uint8_t {
  kWatch,    // park what `watch` says
  kSplit,    // take the huge page apart, and watch its pages
  kHome,     // what is parked comes home where it is
  kPromote,  // move what is `wanted` to the first tier
  kDemote,   // move to the tier named: a huge page whole, of small ones those that are parked
  kStore,    // parked pages go to the store
  kGather,   // make the small pages, all at home on the first tier, one huge page
  kCross,    // move what is on the first tier to the node of it that its touches come from
};

struct PlaceStep {
  BlockIndex block;
  PlaceAction action;
  std::uint8_t tier = 0;
  Watch watch = Watch::kNone;
  Wanted wanted = Wanted::kNone;
};

struct PlacementPlan {
  std::span<PlaceStep> steps;
  std::size_t count = 0;
  bool add(const PlaceStep& s) {
    if (count == steps.size()) return false;
    steps[count++] = s;
    return true;
  }
};

struct PlacementBudget {
  std::uint64_t hint_nanos = 0;  // CPU time for looking around by hint faults until the next tick
  std::uint64_t hint_saved = 0;  // and at most so much that was not used before, when it is wanted
  std::uint64_t hint_cost = 6000;  // of one, ns
  std::uint32_t watches = 64;      // at most so many blocks are to be watched anew
  std::uint64_t move_pages = 0;    // at most so many move until the next tick, or one block
};

}  // namespace heaptier
