// Compaction of the compressed tier: objects leave the sparsest spans of a class for its fullest,
// and the emptied spans' memory goes back.
//
// What makes it safe without holding a lock while the mover waits for a page: an isolated span
// gives out no place, so an object in it may disappear but never change. The copy is therefore the
// page's content exactly if the page still has the slot, which the mover checks under the page's
// lock.
#include <cstring>

#include "runtime/tiers/zpool.h"

namespace heaptier {
namespace {

// Spans of one class that compaction gives up on (pages busy, headers damaged) before it leaves the
// class.
constexpr unsigned kMostStubborn = 32;

}  // namespace

std::size_t ZPool::compact(SlotMover& mover, std::size_t max_moves) {
  std::size_t freed = 0;
  for (unsigned c = 0; c < kSizeClasses && max_moves != 0; ++c) {
    freed += compact_class(mover, c, &max_moves);
  }
  // Not less than the reserve: the next stores would fault it in again.
  (void)spans_.trim(SpanPool::kReserveSpans);
  return freed;
}

std::size_t ZPool::compact_class(SlotMover& mover, unsigned size_class, std::size_t* moves) {
  // Spans that could not be emptied stay isolated until the end, or they would be chosen again.
  std::uint32_t stubborn[kMostStubborn];
  unsigned stubborn_count = 0;
  std::size_t freed = 0;
  while (*moves != 0 && stubborn_count != kMostStubborn) {
    const std::uint32_t span = slots_.isolate_sparsest(size_class);
    if (span == kNoSpan) break;
    evacuate(mover, size_class, span, moves);
    if (slots_.next_taken(span, 0) == kMostObjects) {
      (void)slots_.settle(span);
      freed += kSpanBytes;
    } else {
      stubborn[stubborn_count++] = span;
    }
  }
  while (stubborn_count != 0) {
    if (slots_.settle(stubborn[--stubborn_count])) freed += kSpanBytes;  // drained meanwhile
  }
  return freed;
}

void ZPool::evacuate(SlotMover& mover, unsigned size_class, std::uint32_t span,
                     std::size_t* moves) {
  for (std::uint32_t object = slots_.next_taken(span, 0); object != kMostObjects && *moves != 0;
       object = slots_.next_taken(span, object + 1)) {
    const SlotId from = slot_id(span, object);
    const SlotHeap::Place place = slots_.locate(from);
    ObjectHeader header;
    // Damaged: its owner is not to be believed. It stays, and whoever fetches it learns of it.
    if (!read_header(from, place, &header)) continue;
    const SlotId to = slots_.reserve_dense(size_class, header.bytes);
    if (to.v == 0) return;  // dropped objects elsewhere were taken by new ones
    ObjectHeader copy = header;
    copy.set_seal(to);
    char* at = slots_.locate(to).at;
    std::memcpy(at, &copy, kObjectHeaderBytes);
    std::memcpy(at + kObjectHeaderBytes, place.at + kObjectHeaderBytes, header.bytes);
    slots_.commit(to);
    --*moves;
    const bool moved = mover.relocate(header.owner, from, to);
    (void)slots_.release(moved ? from : to, header.bytes);
  }
}

std::size_t ZPool::trim() {
  return spans_.trim(0);
}

}  // namespace heaptier
