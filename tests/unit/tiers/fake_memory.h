// MemoryOps for the tests of the compressed tier: memory from malloc, a record of what was asked,
// and a refusal of the n-th call of any kind. Memory that was mapped but not populated, or
// discarded, must not be touched: under AddressSanitizer a touch is an error, otherwise untouched()
// finds writes.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "runtime/base/ports.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

namespace heaptier::testing {

class FakeMemory final : public MemoryOps {
 public:
  // 0: never. Counted from 1, each kind by itself.
  struct Refusals {
    int map_from = 0;  // this call of map_private and all later ones
    int map = 0;       // only this one
    int populate = 0;
    int discard = 0;
    bool old_kernel = false;  // no MADV_POPULATE_WRITE
  };

  FakeMemory() = default;
  FakeMemory(const FakeMemory&) = delete;
  FakeMemory& operator=(const FakeMemory&) = delete;
  ~FakeMemory() {
    for (const auto& [at, bytes] : mappings_) {
      ASAN_UNPOISON_MEMORY_REGION(pointer(at), bytes);
      std::free(pointer(at));
    }
  }

  Refusals refuse;
  std::function<void()> before_discard;  // called once, outside the fake's lock

  Errno map_private(std::size_t bytes, const char* name, std::uintptr_t* out) override {
    const std::lock_guard guard(mutex_);
    ++maps_;
    names_ok_ = names_ok_ && std::strcmp(name, "heaptier-zpool") == 0;
    if (maps_ == refuse.map || (refuse.map_from != 0 && maps_ >= refuse.map_from)) return {ENOMEM};
    void* memory = std::aligned_alloc(kPageSize, bytes);
    if (memory == nullptr) return {ENOMEM};
    std::memset(memory, 0, bytes);
    if (!refuse.old_kernel) ASAN_POISON_MEMORY_REGION(memory, bytes);
    *out = reinterpret_cast<std::uintptr_t>(memory);
    if (mappings_.empty()) first_ = *out;
    mappings_[*out] = bytes;
    return kOk;
  }
  Errno unmap(std::uintptr_t at, std::size_t bytes) override {
    const std::lock_guard guard(mutex_);
    const auto found = mappings_.find(at);
    if (found == mappings_.end() || found->second != bytes) return {EINVAL};
    ASAN_UNPOISON_MEMORY_REGION(pointer(at), bytes);
    std::free(pointer(at));
    mappings_.erase(found);
    return kOk;
  }
  Errno advise(std::uintptr_t at, std::size_t bytes, int advice) override {
    const std::lock_guard guard(mutex_);
    if (!inside(at, bytes)) return {EFAULT};
    if (advice == MADV_NOHUGEPAGE) return kOk;
    if (advice != MADV_POPULATE_WRITE || refuse.old_kernel) return {EINVAL};
    if (++populates_ == refuse.populate) return {ENOMEM};
    ASAN_UNPOISON_MEMORY_REGION(pointer(at), bytes);
    forget_cold(at, bytes);
    return kOk;
  }
  Errno discard(const AddressRange* ranges, std::size_t count, std::size_t* done) override {
    if (before_discard) std::exchange(before_discard, nullptr)();
    const std::lock_guard guard(mutex_);
    *done = 0;
    ++discards_;
    for (; *done < count; ++*done) {
      // Refused half-way, as the kernel may.
      if (discards_ == refuse.discard && *done >= count / 2) return {EIO};
      const AddressRange& r = ranges[*done];
      if (!inside(r.start, r.bytes)) return {EFAULT};
      ASAN_UNPOISON_MEMORY_REGION(pointer(r.start), r.bytes);  // a second time does no harm
      std::memset(pointer(r.start), 0, r.bytes);
      if (!refuse.old_kernel) {
        ASAN_POISON_MEMORY_REGION(pointer(r.start), r.bytes);
        cold_[r.start] = r.bytes;
      }
      discarded_bytes_ += r.bytes;
    }
    return kOk;
  }

  Errno reserve(std::uintptr_t, std::size_t, std::uintptr_t*) override { return {ENOSYS}; }
  Errno commit(std::uintptr_t, std::size_t) override { return {ENOSYS}; }
  Errno renew(std::uintptr_t, std::size_t) override { return {ENOSYS}; }
  Errno protect_none(std::uintptr_t, std::size_t) override { return {ENOSYS}; }
  Errno set_access(std::uintptr_t, std::size_t, bool) override { return {ENOSYS}; }
  Errno copy_pages(const std::uintptr_t*, std::size_t, void*, std::size_t*) override {
    return {ENOSYS};
  }
  Errno scan(std::uintptr_t, std::size_t, ScannedRun*, std::size_t, std::size_t*,
             std::uintptr_t*) override {
    return {ENOSYS};
  }
  bool may_hold_long_pins() override { return false; }
  Nanos now() override { return {0}; }

  // The fake's own lock around fork, inside those of the pool: a call may be made with those held.
  void lock_for_fork() { mutex_.lock(); }
  void unlock_after_fork() { mutex_.unlock(); }

  int maps() const { return maps_; }
  int populates() const { return populates_; }
  int discards() const { return discards_; }
  std::size_t discarded_bytes() const { return discarded_bytes_; }
  bool names_ok() const { return names_ok_; }
  std::size_t mapped_bytes() const {
    std::size_t sum = 0;
    for (const auto& [at, bytes] : mappings_) sum += bytes;
    return sum;
  }
  // What was mapped first: span 0 starts here.
  char* first_mapping() const { return pointer(first_); }
  // Discarded memory that was not taken again still reads as zero.
  bool untouched() const {
    for (const auto& [at, bytes] : cold_) {
      ASAN_UNPOISON_MEMORY_REGION(pointer(at), bytes);
      const char* p = pointer(at);
      const bool zero = *p == 0 && std::memcmp(p, p + 1, bytes - 1) == 0;
      ASAN_POISON_MEMORY_REGION(pointer(at), bytes);
      if (!zero) return false;
    }
    return true;
  }

 private:
  // NOLINTNEXTLINE(performance-no-int-to-ptr)
  static char* pointer(std::uintptr_t at) { return reinterpret_cast<char*>(at); }

  bool inside(std::uintptr_t at, std::size_t bytes) const {
    auto next = mappings_.upper_bound(at);
    // Neighbouring mappings may be advised and discarded in one range.
    while (bytes != 0 && next != mappings_.begin()) {
      const auto& [start, length] = *std::prev(next);
      if (at < start || at >= start + length) return false;
      const std::size_t here = std::min(bytes, start + length - at);
      at += here;
      bytes -= here;
      next = mappings_.upper_bound(at);
    }
    return bytes == 0;
  }
  void forget_cold(std::uintptr_t at, std::size_t bytes) {
    auto found = cold_.upper_bound(at);
    if (found == cold_.begin()) return;
    --found;
    const auto [start, length] = *found;
    if (at >= start + length) return;
    cold_.erase(found);
    if (at > start) cold_[start] = at - start;
    if (start + length > at + bytes) cold_[at + bytes] = start + length - (at + bytes);
  }

  std::mutex mutex_;
  std::map<std::uintptr_t, std::size_t> mappings_;
  std::map<std::uintptr_t, std::size_t> cold_;
  std::uintptr_t first_ = 0;
  int maps_ = 0;
  int populates_ = 0;
  int discards_ = 0;
  std::size_t discarded_bytes_ = 0;
  bool names_ok_ = true;
};

}  // namespace heaptier::testing
