#include "runtime/probation.h"

#include "runtime/bootstrap_heap.h"

namespace heaptier {
namespace {

std::uint32_t to_millis(Nanos t) {
  return static_cast<std::uint32_t>(t.v / 1'000'000);
}

}  // namespace

Errno Probation::init(unsigned log2_entries) {
  const std::size_t n = std::size_t{1} << log2_entries;
  entries_ = bootstrap::allocate_array<Entry>(n);
  if (entries_ == nullptr) return {ENOMEM};
  mask_ = n - 1;
  return kOk;
}

Errno Probation::grow_if_crowded() {
  std::uint64_t room = 0;
  {
    SpinGuard guard(lock_);
    room = mask_ + 1;
    if (entries_ == nullptr || (head_ - tail_) * 4 < room * 3) return kOk;
  }
  auto* bigger = bootstrap::allocate_array<Entry>(room * 2);
  if (bigger == nullptr) return {ENOMEM};
  Entry* old = nullptr;
  {
    SpinGuard guard(lock_);
    old = entries_;
    for (std::uint64_t i = tail_; i < head_; ++i) bigger[i & (room * 2 - 1)] = old[i & mask_];
    entries_ = bigger;
    mask_ = room * 2 - 1;
  }
  bootstrap::release(old, room * sizeof(Entry));
  return kOk;
}

bool Probation::push(PageIndex p, Nanos when) {
  SpinGuard guard(lock_);
  if (entries_ == nullptr || head_ - tail_ > mask_) return false;
  entries_[head_++ & mask_] = {p.v, to_millis(when)};
  return true;
}

std::size_t Probation::pop(PageIndex* out, std::size_t max, Nanos until) {
  const std::uint32_t limit = to_millis(until);
  std::size_t n = 0;
  SpinGuard guard(lock_);
  while (n < max && tail_ < head_) {
    const Entry& e = entries_[tail_ & mask_];
    if (static_cast<std::int32_t>(limit - e.millis) < 0) break;
    out[n++] = {e.page};
    ++tail_;
  }
  return n;
}

std::size_t Probation::size() const {
  SpinGuard guard(lock_);
  return static_cast<std::size_t>(head_ - tail_);
}

void Probation::clear() {
  SpinGuard guard(lock_);
  tail_ = head_;
}

}  // namespace heaptier
