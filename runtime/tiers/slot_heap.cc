#include "runtime/tiers/slot_heap.h"

#include <bit>

namespace heaptier {
namespace {

// How full a span with room is: 0 (sparse) to kBuckets - 1.
std::uint8_t bucket_of(const Span& s) {
  return static_cast<std::uint8_t>(s.used * SlotHeap::kBuckets /
                                   kSizeClassInfo[s.size_class].objects);
}

// Takes the first clear bit. The span has room.
std::uint32_t take_first(Span& s) {
  std::uint32_t word = s.first_room;
  while (s.taken[word] == UINT64_MAX) ++word;
  const auto bit = static_cast<std::uint32_t>(std::countr_one(s.taken[word]));
  s.taken[word] |= std::uint64_t{1} << bit;
  s.first_room = static_cast<std::uint8_t>(word);
  ++s.used;
  return word * 64 + bit;
}

// A counter that only changes under a lock but is read without it.
template <class T>
void add(std::atomic<T>& counter, std::uint64_t n) {
  counter.store(static_cast<T>(counter.load(std::memory_order_relaxed) + n),
                std::memory_order_relaxed);
}

// Waits until nobody is writing to a place of the class; its lock is held, so nobody starts. What
// is waited for is one copy of at most a page, but its thread may be off the CPU.
bool drained(const std::atomic<std::uint32_t>& in_flight, unsigned patience) {
  Backoff backoff;
  while (in_flight.load(std::memory_order_acquire) != 0) {
    if (backoff.rounds() >= patience) return false;
    backoff.pause();
  }
  return true;
}

}  // namespace

SlotId SlotHeap::reserve(unsigned size_class, std::size_t payload) {
  while (true) {
    if (const SlotId slot = take_place(size_class, payload); slot.v != 0) return slot;
    const std::uint32_t span = spans_.take();
    if (span == kNoSpan) break;
    attach(size_class, span);
  }
  // The pool is full but spans are not: a place too large is better than none.
  for (unsigned larger = size_class + 1; larger < kSizeClasses; ++larger) {
    if (const SlotId slot = take_place(larger, payload); slot.v != 0) return slot;
  }
  return {};
}

SlotId SlotHeap::reserve_dense(unsigned size_class, std::size_t payload) {
  return take_place(size_class, payload);
}

SlotId SlotHeap::take_place(unsigned size_class, std::size_t payload) {
  SizeClass& c = classes_[size_class];
  SpinGuard guard(c.lock);
  unsigned bucket = kBuckets;
  while (bucket != 0 && c.lists[bucket - 1].empty()) --bucket;
  if (bucket == 0) return {};
  SpanList& list = c.lists[bucket - 1];
  const std::uint32_t span = list.front();
  Span& s = spans_[span];
  const std::uint32_t object = take_first(s);
  if (s.used == kSizeClassInfo[size_class].objects) {
    spans_.remove(list, span);
    s.state = SpanState::kFull;
  } else if (bucket_of(s) != s.bucket) {
    spans_.remove(list, span);
    enlist(c, span);
  }
  add(c.slots, 1);
  add(c.payload, payload);
  c.in_flight.fetch_add(1, std::memory_order_relaxed);
  return slot_id(span, object);
}

void SlotHeap::commit(SlotId slot) {
  classes_[spans_.size_class(span_of(slot))].in_flight.fetch_sub(1, std::memory_order_release);
}

void SlotHeap::attach(unsigned size_class, std::uint32_t span) {
  const std::uint32_t objects = kSizeClassInfo[size_class].objects;
  Span& s = spans_[span];
  s.used = 0;
  s.first_room = 0;
  s.size_class = static_cast<std::uint8_t>(size_class);
  for (std::uint32_t word = 0; word < Span::kWords; ++word) {
    const std::uint32_t first = word * 64;
    const std::uint32_t exist = objects <= first ? 0 : objects - first;
    s.taken[word] = exist >= 64 ? 0 : UINT64_MAX << exist;
  }
  spans_.set_size_class(span, size_class);
  SizeClass& c = classes_[size_class];
  SpinGuard guard(c.lock);
  enlist(c, span);
  add(c.spans, 1);
  spans_.leave_transit();
}

void SlotHeap::enlist(SizeClass& c, std::uint32_t span) {
  Span& s = spans_[span];
  s.state = SpanState::kPartial;
  s.bucket = bucket_of(s);
  spans_.push_front(c.lists[s.bucket], span);
}

bool SlotHeap::release(SlotId slot, std::size_t payload) {
  const std::uint32_t span = span_of(slot);
  const std::uint32_t object = object_of(slot);
  const unsigned size_class = spans_.known(span) ? spans_.size_class(span) : 0;
  if (!spans_.known(span) || object >= kSizeClassInfo[size_class].objects) {
    refused_.fetch_add(1, std::memory_order_relaxed);
    return false;
  }
  SizeClass& c = classes_[size_class];
  {
    SpinGuard guard(c.lock);
    Span& s = spans_[span];
    const std::uint64_t bit = std::uint64_t{1} << object % 64;
    const bool owned = s.state == SpanState::kPartial || s.state == SpanState::kFull ||
                       s.state == SpanState::kIsolated;
    if (!owned || s.size_class != size_class || (s.taken[object / 64] & bit) == 0) {
      refused_.fetch_add(1, std::memory_order_relaxed);
      return false;
    }
    s.taken[object / 64] &= ~bit;
    if (object / 64 < s.first_room) s.first_room = static_cast<std::uint8_t>(object / 64);
    --s.used;
    const std::uint64_t slots = c.slots.load(std::memory_order_relaxed) - 1;
    const std::uint64_t sum = c.payload.load(std::memory_order_relaxed);
    c.slots.store(slots, std::memory_order_relaxed);
    // What a damaged header says of its length must not make the sum wrap, nor be wrong for ever.
    c.payload.store(slots == 0 || payload > sum ? 0 : sum - payload, std::memory_order_relaxed);
    if (s.state == SpanState::kIsolated) return true;
    if (s.state == SpanState::kPartial) {
      if (s.used != 0 && bucket_of(s) == s.bucket) return true;
      spans_.remove(c.lists[s.bucket], span);
    }
    if (s.used != 0) {
      enlist(c, span);
      return true;
    }
    s.state = SpanState::kTransit;
    spans_.enter_transit();
    add(c.spans, std::uint64_t{0} - 1);
  }
  spans_.give(span);
  return true;
}

std::size_t SlotHeap::surplus(const SizeClass& c, unsigned size_class) {
  const std::uint64_t objects = kSizeClassInfo[size_class].objects;
  const std::uint64_t slots = c.slots.load(std::memory_order_relaxed);
  const std::uint64_t needed = (slots + objects - 1) / objects;
  const std::uint64_t spans = c.spans.load(std::memory_order_relaxed);
  return spans > needed ? spans - needed : 0;
}

std::uint32_t SlotHeap::isolate_sparsest(unsigned size_class) {
  constexpr unsigned kPatience = 2048;
  SizeClass& c = classes_[size_class];
  if (surplus(c, size_class) == 0) return kNoSpan;
  SpinGuard guard(c.lock);
  if (surplus(c, size_class) == 0 || !drained(c.in_flight, kPatience)) return kNoSpan;
  for (SpanList& list : c.lists) {
    if (list.empty()) continue;
    const std::uint32_t span = list.back();
    spans_.remove(list, span);
    spans_[span].state = SpanState::kIsolated;
    isolated_.fetch_add(1, std::memory_order_relaxed);
    return span;
  }
  return kNoSpan;
}

std::uint32_t SlotHeap::next_taken(std::uint32_t span, std::uint32_t object) {
  const unsigned size_class = spans_.size_class(span);
  const std::uint32_t objects = kSizeClassInfo[size_class].objects;
  SpinGuard guard(classes_[size_class].lock);
  const Span& s = spans_[span];
  for (; object < objects; ++object) {
    if ((s.taken[object / 64] >> object % 64 & 1) != 0) return object;
  }
  return kMostObjects;
}

bool SlotHeap::settle(std::uint32_t span) {
  SizeClass& c = classes_[spans_.size_class(span)];
  {
    SpinGuard guard(c.lock);
    isolated_.fetch_sub(1, std::memory_order_relaxed);
    Span& s = spans_[span];
    if (s.used == kSizeClassInfo[s.size_class].objects) {
      s.state = SpanState::kFull;
      return false;
    }
    if (s.used != 0) {
      enlist(c, span);
      return false;
    }
    s.state = SpanState::kTransit;
    spans_.enter_transit();
    add(c.spans, std::uint64_t{0} - 1);
  }
  spans_.give(span);
  return true;
}

std::size_t SlotHeap::slots() const {
  std::size_t sum = 0;
  for (const SizeClass& c : classes_) sum += c.slots.load(std::memory_order_relaxed);
  return sum;
}

std::size_t SlotHeap::payload_bytes() const {
  std::size_t sum = 0;
  for (const SizeClass& c : classes_) sum += c.payload.load(std::memory_order_relaxed);
  return sum;
}

std::size_t SlotHeap::used_bytes() const {
  std::size_t sum = 0;
  for (unsigned i = 0; i < kSizeClasses; ++i) {
    sum += classes_[i].slots.load(std::memory_order_relaxed) * kSizeClassInfo[i].bytes;
  }
  return sum;
}

std::size_t SlotHeap::reclaimable_spans() const {
  std::size_t sum = 0;
  for (unsigned i = 0; i < kSizeClasses; ++i) sum += surplus(classes_[i], i);
  return sum;
}

void SlotHeap::fork_prepare() {
  spans_.lock_growth();
  for (SizeClass& c : classes_) {
    c.lock.lock();
    (void)drained(c.in_flight, UINT32_MAX);
  }
  spans_.lock_lists();
}

void SlotHeap::fork_done(bool in_child) {
  if (in_child && isolated_.load(std::memory_order_relaxed) != 0) {
    // The thread that was emptying these does not exist here.
    const std::uint32_t known = spans_.known_spans();
    for (std::uint32_t span = 0; span < known; ++span) {
      Span& s = spans_[span];
      if (s.state != SpanState::kIsolated) continue;
      SizeClass& c = classes_[s.size_class];
      if (s.used == 0) {
        s.state = SpanState::kTransit;
        spans_.enter_transit();
        add(c.spans, std::uint64_t{0} - 1);
      } else if (s.used == kSizeClassInfo[s.size_class].objects) {
        s.state = SpanState::kFull;
      } else {
        enlist(c, span);
      }
    }
    isolated_.store(0, std::memory_order_relaxed);
  }
  if (in_child) spans_.adopt_orphans();
  spans_.unlock_all();
  for (unsigned i = kSizeClasses; i != 0; --i) classes_[i - 1].lock.unlock();
}

}  // namespace heaptier
