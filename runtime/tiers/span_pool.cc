#include "runtime/tiers/span_pool.h"

#include <algorithm>
#include <new>

#include "runtime/base/units.h"
#include "runtime/bootstrap_heap.h"

namespace heaptier {
namespace {

// MADV_ constants of Linux, here because only the rooms at the kernel's door include <sys/mman.h>;
// the unit test compares them with it.
constexpr int kAdviseDontNeed = 4;
constexpr int kAdviseNoHugePage = 15;
constexpr int kAdvisePopulateWrite = 23;  // Linux 5.14

}  // namespace

Errno SpanPool::init(MemoryOps& ops, std::size_t capacity_bytes) {
  ops_ = &ops;
  // Bookkeeping counts, so that what is used never exceeds what was allowed.
  const std::size_t per_span = kSpanBytes + sizeof(Span) + sizeof(*classes_);
  const std::size_t spans = std::min(capacity_bytes / per_span, std::size_t{1} << kSpanBits);
  const std::size_t granules = (spans + kGranuleSpans - 1) / kGranuleSpans;
  const std::size_t table = granules * sizeof(Granule);
  const std::size_t fits = capacity_bytes > table ? (capacity_bytes - table) / per_span : 0;
  const auto limit = static_cast<std::uint32_t>(std::min(spans, fits));
  if (limit == 0) return {EINVAL};
  granules_ = bootstrap::allocate_array<Granule>(granules);
  classes_ = bootstrap::allocate_array<std::atomic<std::uint8_t>>(limit);
  if (granules_ == nullptr || classes_ == nullptr) {
    bootstrap::release(granules_, granules * sizeof(Granule));
    bootstrap::release(classes_, limit * sizeof(*classes_));
    granules_ = nullptr;
    classes_ = nullptr;
    return {ENOMEM};
  }
  spans_limit_ = limit;
  return kOk;
}

std::uint32_t SpanPool::take() {
  while (true) {
    const std::uint32_t seen = mapped_.load(std::memory_order_acquire);
    bool has_memory = false;
    const std::uint32_t span = pop(&has_memory);
    if (span == kNoSpan) {
      if (!grow(seen)) return kNoSpan;
      continue;
    }
    if (has_memory || populate(span)) return span;
    SpinGuard guard(lock_);
    (*this)[span].state = SpanState::kCold;
    push_back(cold_, span);  // behind those that have not been tried
    held_.fetch_sub(1, std::memory_order_relaxed);
    leave_transit();
    return kNoSpan;
  }
}

std::uint32_t SpanPool::pop(bool* has_memory) {
  SpinGuard guard(lock_);
  std::uint32_t span = warm_.front();
  if (span != kNoSpan) {
    *has_memory = true;
    remove(warm_, span);
    warm_count_.fetch_sub(1, std::memory_order_relaxed);
  } else {
    span = cold_.front();
    if (span != kNoSpan) {
      remove(cold_, span);
    } else {
      const std::uint32_t fresh = known_.load(std::memory_order_relaxed);
      if (fresh == mapped_.load(std::memory_order_relaxed)) return kNoSpan;
      span = fresh;
      new (&(*this)[span]) Span;
      known_.store(fresh + 1, std::memory_order_relaxed);
    }
    held_.fetch_add(1, std::memory_order_relaxed);
  }
  (*this)[span].state = SpanState::kTransit;
  in_transit_.fetch_add(1, std::memory_order_relaxed);
  return span;
}

// All 16 pages in one call, so that a refusal is an answer and not a signal in the middle of a
// store. Not for speed: with and without it a store took the same time.
bool SpanPool::populate(std::uint32_t span) {
  if (!populates_.load(std::memory_order_relaxed)) return true;
  const Errno e = ops_->advise(address(span), kSpanBytes, kAdvisePopulateWrite);
  switch (e.code) {
    case ENOMEM:
    case EFAULT:
#ifdef EHWPOISON
    case EHWPOISON:
#endif
      return false;
    case EINVAL:
    case ENOSYS:
    case EPERM:
      populates_.store(false, std::memory_order_relaxed);  // its pages come by faults, as used
      return true;
    default:
      return true;
  }
}

bool SpanPool::grow(std::uint32_t seen) {
  SpinGuard guard(growing_);
  const std::uint32_t mapped = mapped_.load(std::memory_order_relaxed);
  if (mapped != seen) return true;  // another thread was faster
  const std::uint32_t left = spans_limit_ - mapped;
  if (left == 0) return false;
  constexpr std::uint32_t kMask = kGranuleSpans - 1;
  std::uint32_t want = std::clamp(mapped / 4 & ~kMask, kGranuleSpans, kMostGrowth);
  want = std::min(want, left);
  std::uintptr_t at = 0;
  while (ops_->map_private(std::size_t{want} << kSpanShift, "heaptier-zpool", &at).failed()) {
    if (want <= kGranuleSpans) return false;
    want = std::max(want / 2 & ~kMask, kGranuleSpans);
  }
  Span* spans = static_cast<Span*>(bootstrap::allocate(want * sizeof(Span), alignof(Span)));
  if (spans == nullptr) {
    (void)ops_->unmap(at, std::size_t{want} << kSpanShift);
    return false;
  }
  // A huge page here would be memory for 32 spans when one is used, and split when one is given
  // back.
  (void)ops_->advise(at, std::size_t{want} << kSpanShift, kAdviseNoHugePage);
  for (std::uint32_t n = 0; n < want; n += kGranuleSpans) {
    Granule& granule = granules_[(mapped + n) / kGranuleSpans];
    granule.spans = spans + n;
    granule.base.store(at + (std::size_t{n} << kSpanShift), std::memory_order_relaxed);
  }
  mapped_.store(mapped + want, std::memory_order_release);
  return true;
}

void SpanPool::give(std::uint32_t span) {
  bool batch = false;
  {
    SpinGuard guard(lock_);
    (*this)[span].state = SpanState::kWarm;
    push_front(warm_, span);
    leave_transit();
    const std::uint32_t warm = warm_count_.fetch_add(1, std::memory_order_relaxed) + 1;
    batch = warm >= discard_at_;
  }
  if (batch) (void)discard_batch(kReserveSpans);
}

std::size_t SpanPool::trim(std::uint32_t keep) {
  std::size_t total = 0;
  while (const std::size_t bytes = discard_batch(keep)) total += bytes;
  return total;
}

// One call to the kernel for up to kBatchSpans of the spans that have been empty longest.
std::size_t SpanPool::discard_batch(std::uint32_t keep) {
  std::uint32_t batch[kBatchSpans];
  std::uint32_t count = 0;
  {
    SpinGuard guard(lock_);
    while (count < kBatchSpans && warm_count_.load(std::memory_order_relaxed) > keep) {
      const std::uint32_t span = warm_.back();
      remove(warm_, span);
      warm_count_.fetch_sub(1, std::memory_order_relaxed);
      (*this)[span].state = SpanState::kTransit;
      in_transit_.fetch_add(1, std::memory_order_relaxed);
      batch[count++] = span;
    }
  }
  if (count == 0) return 0;
  std::sort(batch, batch + count,
            [this](std::uint32_t a, std::uint32_t b) { return address(a) < address(b); });
  AddressRange ranges[kBatchSpans];
  std::uint32_t range_of[kBatchSpans];  // by position in the batch
  std::uint32_t range_count = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::uintptr_t at = address(batch[i]);
    if (range_count != 0 && ranges[range_count - 1].end() == at) {
      ranges[range_count - 1].bytes += kSpanBytes;
    } else {
      ranges[range_count++] = {at, kSpanBytes};
    }
    range_of[i] = range_count - 1;
  }
  std::size_t done = 0;
  const Errno e = ops_->discard(ranges, range_count, &done);
  std::size_t freed = 0;
  SpinGuard guard(lock_);
  for (std::uint32_t i = 0; i < count; ++i) {
    Span& span = (*this)[batch[i]];
    if (range_of[i] < done) {
      span.state = SpanState::kCold;
      push_front(cold_, batch[i]);
      held_.fetch_sub(1, std::memory_order_relaxed);
      freed += kSpanBytes;
    } else {
      span.state = SpanState::kWarm;
      push_back(warm_, batch[i]);
      warm_count_.fetch_add(1, std::memory_order_relaxed);
    }
    leave_transit();
  }
  // Refused: do not ask again for every span, but for the next batch.
  discard_at_ =
      kBatchSpans + (e.ok() ? kReserveSpans : warm_count_.load(std::memory_order_relaxed));
  return freed;
}

void SpanPool::push_front(SpanList& list, std::uint32_t span) {
  Span& s = (*this)[span];
  s.previous = kNoSpan;
  s.next = list.head_;
  (list.head_ == kNoSpan ? list.tail_ : (*this)[list.head_].previous) = span;
  list.head_ = span;
}

void SpanPool::push_back(SpanList& list, std::uint32_t span) {
  Span& s = (*this)[span];
  s.next = kNoSpan;
  s.previous = list.tail_;
  (list.tail_ == kNoSpan ? list.head_ : (*this)[list.tail_].next) = span;
  list.tail_ = span;
}

void SpanPool::remove(SpanList& list, std::uint32_t span) {
  const Span& s = (*this)[span];
  (s.previous == kNoSpan ? list.head_ : (*this)[s.previous].next) = s.next;
  (s.next == kNoSpan ? list.tail_ : (*this)[s.next].previous) = s.previous;
}

std::size_t SpanPool::metadata_bytes() const {
  const std::size_t known = known_spans();
  const std::size_t granules = (known + kGranuleSpans - 1) / kGranuleSpans;
  return known * (sizeof(Span) + sizeof(*classes_)) + granules * sizeof(Granule);
}

// What their threads were about to do, or had done, is not known: they may have memory or not. So
// they are emptied, and get memory like any other span when they are taken.
void SpanPool::adopt_orphans() {
  if (in_transit_.load(std::memory_order_relaxed) == 0) return;
  const std::uint32_t known = known_spans();
  for (std::uint32_t span = 0; span < known; ++span) {
    if ((*this)[span].state != SpanState::kTransit) continue;
    // Not discard(): what it uses to do many at once may still mean the parent.
    [[maybe_unused]] const Errno emptied = ops_->advise(address(span), kSpanBytes, kAdviseDontNeed);
    (*this)[span].state = SpanState::kCold;
    push_back(cold_, span);
    held_.fetch_sub(1, std::memory_order_relaxed);
    leave_transit();
  }
}

}  // namespace heaptier
