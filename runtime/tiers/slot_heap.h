// Who has which place in the compressed tier: a lock and lists of spans a size class.
//
// A class keeps its spans with room in lists by fullness and takes places from the fullest, so that
// sparse spans drain and are released. Taking a place is two steps: reserve(), then, the bytes
// written outside the lock, commit(). Between them the place is counted as in flight, and those who
// copy or clone the memory of a class (compaction, fork) wait until none is.
//
// Thread rule: any thread; one class lock at a time (fork takes all, smallest class first), and no
// lock of the SpanPool inside a class lock.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "runtime/base/spinlock.h"
#include "runtime/tiers/span_pool.h"
#include "runtime/tiers/store_tier.h"

namespace heaptier {

// SlotId: 22 bits span, 10 bits object counted from 1, so that no place is slot 0.
constexpr SlotId slot_id(std::uint32_t span, std::uint32_t object) {
  return {span << 10 | (object + 1)};
}
constexpr std::uint32_t span_of(SlotId s) {
  return s.v >> 10;
}
// kNoObject for SlotId{0}.
constexpr std::uint32_t object_of(SlotId s) {
  return (s.v & 1023) - 1;
}

class SlotHeap {
 public:
  static constexpr unsigned kBuckets = 8;

  constexpr explicit SlotHeap(SpanPool& spans) : spans_(spans) {}

  // A place for an object of `payload` compressed bytes in class `size_class`, or in a larger one
  // when there is no memory for another span. {0}: no room. To be followed by commit() once the
  // bytes are written.
  SlotId reserve(unsigned size_class, std::size_t payload);
  void commit(SlotId slot);
  // Gives a committed place back; `payload` as given to reserve (it only counts). false: it is not
  // taken.
  bool release(SlotId slot, std::size_t payload);

  // Where the object lies and how many bytes it may have, header included; null if there is no such
  // place.
  struct Place {
    char* at = nullptr;
    std::size_t bytes = 0;
  };
  Place locate(SlotId slot) const {
    const std::uint32_t span = span_of(slot);
    if (!spans_.known(span)) return {};
    const SizeClassInfo& info = kSizeClassInfo[spans_.size_class(span)];
    const std::uint32_t object = object_of(slot);
    if (object >= info.objects) return {};
    // NOLINTNEXTLINE(performance-no-int-to-ptr)
    return {reinterpret_cast<char*>(spans_.address(span) + object * std::size_t{info.bytes}),
            info.bytes};
  }

  // --- compaction ---
  // Takes the sparsest span of the class off its lists: no place in it is given out from now on,
  // those taken stay. kNoSpan: the class could not do with fewer spans, or writers do not let go.
  std::uint32_t isolate_sparsest(unsigned size_class);
  // The first taken place of an isolated span at or after `object`; kMostObjects: none.
  std::uint32_t next_taken(std::uint32_t span, std::uint32_t object);
  // A place in the fullest span of the class, never in a new one. As reserve().
  SlotId reserve_dense(unsigned size_class, std::size_t payload);
  // Ends isolation: an empty span goes back to the pool (true), another one back to the lists.
  bool settle(std::uint32_t span);

  // --- figures; each exact in itself, together a snapshot only when nobody stores or drops ---
  std::size_t slots() const;
  std::size_t payload_bytes() const;
  std::size_t used_bytes() const;         // of the places taken, slack included
  std::size_t reclaimable_spans() const;  // that dense packing would empty
  std::uint64_t drops_refused() const { return refused_.load(std::memory_order_relaxed); }

  // Takes every lock and waits for the places in flight.
  void fork_prepare();
  void fork_done(bool in_child);

 private:
  struct alignas(64) SizeClass {
    SpinLock lock;
    SpanList lists[kBuckets];  // spans with room, by fullness; the fullest last
    // Written under the lock, read by anyone.
    std::atomic<std::uint32_t> spans{0};
    std::atomic<std::uint64_t> slots{0};
    std::atomic<std::uint64_t> payload{0};
    // Begun under the lock, ended by commit() without it.
    std::atomic<std::uint32_t> in_flight{0};
  };

  SlotId take_place(unsigned size_class, std::size_t payload);
  void attach(unsigned size_class, std::uint32_t span);
  void enlist(SizeClass& c, std::uint32_t span);
  static std::size_t surplus(const SizeClass& c, unsigned size_class);

  SpanPool& spans_;
  SizeClass classes_[kSizeClasses];
  std::atomic<std::uint32_t> isolated_{0};
  std::atomic<std::uint64_t> refused_{0};
};

}  // namespace heaptier
