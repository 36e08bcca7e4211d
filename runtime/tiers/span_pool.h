// Where the compressed tier's memory comes from: spans of 64 KiB, numbered from 0 up to a capacity.
//
// Address space is mapped in steps (4 MiB at first, then a quarter of what there is, at most 64
// MiB), so that a limit on address space or strict overcommit ends growth instead of the process. A
// span given back keeps its memory for a while (a reserve of 1 MiB, for the next taker); beyond
// that, memory is returned to the kernel 32 spans a call, because unmapping interrupts every CPU
// the process runs on and is cheap only in batches. A span without memory is not touched until it
// is taken again.
//
// Thread rule: any thread. Two locks: growing_ (held across mapping) before lock_ (held for list
// work only).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "runtime/base/errno.h"
#include "runtime/base/ports.h"
#include "runtime/base/spinlock.h"
#include "runtime/tiers/size_classes.h"

namespace heaptier {

inline constexpr std::uint32_t kNoSpan = UINT32_MAX;
inline constexpr unsigned kSpanBits = 22;  // of a SlotId: 4 Mi spans, 256 GiB
inline constexpr std::size_t kMaxPoolBytes = kSpanBytes << kSpanBits;

enum class SpanState : std::uint8_t {
  kFresh,    // never had memory
  kCold,     // its memory was given back
  kWarm,     // empty, has memory: the reserve
  kTransit,  // in the hands of one thread: being populated, discarded, attached or released
  kPartial,  // belongs to a size class, has room: on one of its lists
  kFull,
  kIsolated,  // belongs to a size class, being emptied by compaction: on no list
};

// One span's bookkeeping, out of band: a span without memory has one too, and who takes or gives
// back an object need not touch the cache lines, or after a fork the pages, of others. Guarded by
// the lock of its class while it has one, by SpanPool::lock_ while on the pool's lists.
struct alignas(64) Span {
  static constexpr std::size_t kWords = (kMostObjects + 63) / 64;

  std::uint32_t previous = kNoSpan;
  std::uint32_t next = kNoSpan;
  std::uint16_t used = 0;  // objects taken
  SpanState state = SpanState::kFresh;
  std::uint8_t size_class = 0;
  std::uint8_t bucket = 0;           // which of the class's lists it is on
  std::uint8_t first_room = 0;       // no word of `taken` before this one has a clear bit
  std::uint64_t taken[kWords] = {};  // a bit an object; bits beyond the last object are set
};
static_assert(sizeof(Span) == 128);

// Spans linked through Span::previous and Span::next.
class SpanList {
 public:
  constexpr SpanList() = default;
  bool empty() const { return head_ == kNoSpan; }
  std::uint32_t front() const { return head_; }
  std::uint32_t back() const { return tail_; }

 private:
  friend class SpanPool;
  std::uint32_t head_ = kNoSpan;
  std::uint32_t tail_ = kNoSpan;
};

class SpanPool {
 public:
  static constexpr std::uint32_t kReserveSpans = 16;
  static constexpr std::uint32_t kBatchSpans = 32;

  constexpr SpanPool() = default;
  // `capacity_bytes`: of resident_bytes(), metadata included. EINVAL: not room for one span.
  Errno init(MemoryOps& ops, std::size_t capacity_bytes);

  // A span with memory, in state kTransit, or kNoSpan: capacity reached, or the kernel gives no
  // memory.
  std::uint32_t take();
  // An empty span in state kTransit. May give a batch of spans back to the kernel.
  void give(std::uint32_t span);
  // Gives the memory of empty spans back until at most `keep` have some. Bytes given back.
  std::size_t trim(std::uint32_t keep);

  // Whether the span was taken at some time. It may have no memory now.
  bool known(std::uint32_t span) const { return span < known_spans(); }
  // These, of known spans.
  std::uintptr_t address(std::uint32_t span) const {
    return granules_[span / kGranuleSpans].base.load(std::memory_order_relaxed) +
           (std::size_t{span % kGranuleSpans} << kSpanShift);
  }
  Span& operator[](std::uint32_t span) const {
    return granules_[span / kGranuleSpans].spans[span % kGranuleSpans];
  }
  // The size class; of a span that holds a live object without any lock.
  unsigned size_class(std::uint32_t span) const {
    return classes_[span].load(std::memory_order_relaxed);
  }
  void set_size_class(std::uint32_t span, unsigned size_class) {
    classes_[span].store(static_cast<std::uint8_t>(size_class), std::memory_order_relaxed);
  }

  // A size class, under its lock, makes a span in transit its own, or lets an empty one go (then
  // give()).
  void leave_transit() { in_transit_.fetch_sub(1, std::memory_order_relaxed); }
  void enter_transit() { in_transit_.fetch_add(1, std::memory_order_relaxed); }

  // List work, for the pool and, under its own lock, for a size class.
  void push_front(SpanList& list, std::uint32_t span);
  void push_back(SpanList& list, std::uint32_t span);
  void remove(SpanList& list, std::uint32_t span);

  // Spans that have memory, and those of them that are empty.
  std::size_t held_spans() const { return held_.load(std::memory_order_relaxed); }
  std::size_t warm_spans() const { return warm_count_.load(std::memory_order_relaxed); }
  std::size_t metadata_bytes() const;

  // Around fork. `lock_growth` before the locks of the size classes, `lock_lists` after them.
  void lock_growth() { growing_.lock(); }
  void lock_lists() { lock_.lock(); }
  void unlock_all() {
    lock_.unlock();
    growing_.unlock();
  }
  // In the child, all locks held: spans that were in the hands of threads that no longer exist come
  // back.
  void adopt_orphans();
  // Spans below this number have been taken at some time and have bookkeeping.
  std::uint32_t known_spans() const { return known_.load(std::memory_order_relaxed); }

 private:
  // Address space and bookkeeping come by the granule: 64 spans, 4 MiB.
  static constexpr std::uint32_t kGranuleSpans = 64;
  static constexpr std::uint32_t kMostGrowth = 1024;  // spans a step

  struct Granule {
    std::atomic<std::uintptr_t> base;
    Span* spans;
  };

  std::uint32_t pop(bool* has_memory);
  bool grow(std::uint32_t seen);
  bool populate(std::uint32_t span);
  std::size_t discard_batch(std::uint32_t keep);

  MemoryOps* ops_ = nullptr;
  std::uint32_t spans_limit_ = 0;
  Granule* granules_ = nullptr;
  std::atomic<std::uint8_t>* classes_ = nullptr;
  std::atomic<std::uint32_t> mapped_{0};
  std::atomic<std::uint32_t> known_{0};  // spans below this number have been taken at some time
  std::atomic<bool> populates_{true};    // the kernel knows MADV_POPULATE_WRITE

  // Away from what every fetch reads.
  alignas(64) SpinLock growing_;
  SpinLock lock_;
  SpanList warm_;  // most recently emptied in front
  SpanList cold_;
  std::uint32_t discard_at_ = kReserveSpans + kBatchSpans;  // so many warm spans start a batch
  // Changes under lock_ or the lock of a class, so that it is exact while fork holds all of them.
  std::atomic<std::uint32_t> in_transit_{0};
  std::atomic<std::uint32_t> warm_count_{0};
  std::atomic<std::uint32_t> held_{0};
};

}  // namespace heaptier
