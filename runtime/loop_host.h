// What the loops of the background thread have in common: whom they ask between two steps, and how
// they store a pageblock without holding up faults and forks.
//
// Thread rule: the background thread.
#pragma once

#include <cstdint>

#include "runtime/migration.h"

namespace heaptier {

// What a loop asks of whoever runs it, between two steps that take a millisecond at most: serve
// requests, look after the handlers, stand still for a fork. False: stop what you are doing and
// return.
class LoopHost {
 public:
  virtual bool between_steps() = 0;
  // Starts serving faults if that has not happened yet. False: impossible, do not manage anything.
  virtual bool ready_for_faults() = 0;

 protected:
  ~LoopHost() = default;
};

// Stores what is parked of the part, a step at a time, until it is done or the host calls off.
MoveOutcome store_parked(Core& core, Migration& migration, LoopHost& host, BlockIndex b,
                         Evictor who, PageSpan span = {});

}  // namespace heaptier
