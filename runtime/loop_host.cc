#include "runtime/loop_host.h"

namespace heaptier {

MoveOutcome store_parked(Core& core, Migration& migration, LoopHost& host, BlockIndex b,
                         Evictor who, PageSpan span) {
  // Pages stored between two looks at faults, requests and forks: about half a millisecond.
  constexpr std::uint32_t kStoreChunk = 64;
  MoveOutcome outcome;
  for (bool more = true; more && host.between_steps();) {
    const MoveOutcome part = migration.store(b, kStoreChunk, who, span);
    outcome.add(part);
    more = part.moved == kStoreChunk && !part.store_full && !part.failed;
  }
  if (outcome.store_full) core.store_refused(core.ops.now());
  return outcome;
}

}  // namespace heaptier
