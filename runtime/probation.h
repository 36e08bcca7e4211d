// A queue of clean pages in the order they came: those that were fetched and not yet proven hot, or
// copied and waiting to leave. The entries are hints: who takes one locks the page and looks at its
// word.
//
// Thread rule: any thread; one spin lock, no system call inside.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/base/errno.h"
#include "runtime/base/spinlock.h"
#include "runtime/base/units.h"

namespace heaptier {

class Probation {
 public:
  constexpr Probation() = default;
  // Room for 2^log2_entries pages. Memory is used as the queue fills.
  Errno init(unsigned log2_entries);

  // Doubles the room when it is three quarters full. A ring touches all its memory however little
  // is queued, so it starts small. ENOMEM: it stays as it is. The background thread, now and then.
  Errno grow_if_crowded();

  // False: full.
  bool push(PageIndex p, Nanos when);
  // The oldest `max` entries that came at or before `until`, in order. Returns how many.
  std::size_t pop(PageIndex* out, std::size_t max, Nanos until);
  std::size_t size() const;

  void lock_for_fork() { lock_.lock(); }
  void unlock_after_fork() { lock_.unlock(); }
  void clear();

 private:
  struct Entry {
    std::uint32_t page;
    std::uint32_t millis;  // of Nanos, wraps after 49 days: compared by difference
  };
  mutable SpinLock lock_;
  Entry* entries_ = nullptr;
  std::uint64_t head_ = 0;
  std::uint64_t tail_ = 0;
  std::uint64_t mask_ = 0;
};

}  // namespace heaptier
