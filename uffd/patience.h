// Patience of a loop that waits for another thread: a few pauses, then a yield each round. The same
// as runtime/base's Backoff, but by this room's own door, so that the room links alone.
#pragma once

#include "runtime/base/spinlock.h"
#include "uffd/thread_door.h"

namespace heaptier {

class Patience {
 public:
  void pause() {
    if (++rounds_ % 32 != 0) {
      cpu_relax();
    } else {
      door::yield();
    }
  }

 private:
  unsigned rounds_ = 0;
};

}  // namespace heaptier
