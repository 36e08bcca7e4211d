// Where a page's content lies, for those who ask the kernel on which node that is.
//
// Thread rule: any thread, without locks: by the time it is used the page may have gone elsewhere,
// which shows as absence. Then look again.
#pragma once

#include "runtime/arena.h"
#include "runtime/pageblock_table.h"

namespace heaptier {

struct PageSpot {
  enum class Kind : std::uint8_t {
    kNotOurs,    // not movable memory that the heap has handed out
    kUntouched,  // known to be absent
    kMapped,     // `at` says where, if anywhere: the kernel knows
    kInStore,
    kLost,
  };
  Kind kind = Kind::kNotOurs;
  std::uintptr_t at = 0;  // at home or in the park

  // table: null while nothing is managed yet.
  static PageSpot of(std::uintptr_t address, const Space& space, const PageblockTable* table,
                     std::uintptr_t park_base) {
    const std::uintptr_t home = round_down(address, kPageSize);
    if (!space.contains(reinterpret_cast<const void*>(home))) return {};  // NOLINT
    const PageIndex p = space.page_at(home);
    const BlockIndex b = block_of(p);
    if (b.v >= space.block_limit() || space.pages_used(b) == 0 ||
        space.mobility_of(b) == Mobility::kUnmovable) {
      return {};
    }
    if (table == nullptr || !table->managed(p)) return {Kind::kMapped, home};
    const bool hidden_at_home = park_base == space.base();  // protection.h
    switch (table->peek(p).state()) {
      case PageState::kUntouched:
        // Of a block that is between two heaps the kernel fills pages by itself (content.cc), and
        // where pages are hidden it always does.
        return {table->block(b).served() && !hidden_at_home ? Kind::kUntouched : Kind::kMapped,
                home};
      case PageState::kResident:
      case PageState::kClean:
        return {Kind::kMapped, home};
      case PageState::kParked:
        return {Kind::kMapped, park_base + (home - space.base())};
      case PageState::kStored:
      case PageState::kFilled:
        return {Kind::kInStore, home};
      case PageState::kPoisoned:
        return {Kind::kLost, home};
    }
    return {};
  }
};

}  // namespace heaptier
