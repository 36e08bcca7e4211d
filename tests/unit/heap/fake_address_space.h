// Address space for tests of the Space: what is reserved and what is committed, as numbers. No
// address is ever touched, so that a window of terabytes costs nothing.
#pragma once

#include <cerrno>
#include <cstdint>
#include <map>
#include <string>

#include "runtime/base/ports.h"

namespace heaptier::test {

class FakeAddressSpace final : public MemoryOps {
 public:
  // Bytes that may be reserved (RLIMIT_AS) and committed (strict overcommit, RLIMIT_DATA) in all.
  std::size_t address_limit = SIZE_MAX;
  std::size_t commit_limit = SIZE_MAX;
  // The n-th call of either from now on fails with ENOMEM; 0: none does.
  int fail_nth = 0;

  std::size_t reserved = 0;
  std::size_t committed = 0;
  int reserve_calls = 0;
  int commit_calls = 0;
  std::string broken;  // the first rule of the port that a caller broke

  // Somebody else's mapping.
  void occupy(std::uintptr_t at, std::size_t bytes) { ranges_[at] = {bytes, true}; }

  // Whether [at, +bytes) is committed throughout.
  bool is_committed(std::uintptr_t at, std::size_t bytes) const {
    for (const std::uintptr_t end = at + bytes; at < end;) {
      auto it = commits_.upper_bound(at);
      if (it == commits_.begin()) return false;
      --it;
      if (at >= it->first + it->second) return false;
      at = it->first + it->second;
    }
    return true;
  }

  Errno reserve(std::uintptr_t hint, std::size_t bytes, std::uintptr_t* out) override {
    ++reserve_calls;
    if (fails()) return {ENOMEM};
    if (bytes > address_limit - std::min(reserved, address_limit)) return {ENOMEM};
    std::uintptr_t at = hint;
    if (hint != 0) {
      if (overlaps(at, bytes)) return {EEXIST};
    } else {
      at = kKernelsChoice;
      while (overlaps(at, bytes)) at += kPageSize * 1000;
    }
    ranges_[at] = {bytes, false};
    reserved += bytes;
    *out = at;
    return kOk;
  }

  Errno renew(std::uintptr_t, std::size_t) override { return {ENOSYS}; }
  Errno commit(std::uintptr_t at, std::size_t bytes) override {
    ++commit_calls;
    if (fails()) return {ENOMEM};
    if (!ours(at, bytes)) broken = "commit outside what was reserved";
    if (bytes > commit_limit - std::min(committed, commit_limit)) return {ENOMEM};
    if (overlaps_commit(at, bytes)) broken = "committed twice";
    commits_[at] = bytes;
    committed += bytes;
    return kOk;
  }

  // What has no access counts as not committed.
  Errno set_access(std::uintptr_t at, std::size_t bytes, bool on) override {
    if (on) return commit(at, bytes);
    if (fails()) return {ENOMEM};
    if (!is_committed(at, bytes)) broken = "access taken from what had none";
    for (const std::uintptr_t end = at + bytes; at < end;) {
      auto it = std::prev(commits_.upper_bound(at));
      const std::uintptr_t start = it->first;
      const std::uintptr_t old_end = start + it->second;
      const std::uintptr_t stop = std::min(end, old_end);
      commits_.erase(it);
      if (at > start) commits_[start] = at - start;
      if (stop < old_end) commits_[stop] = old_end - stop;
      committed -= stop - at;
      at = stop;
    }
    return kOk;
  }

  Errno unmap(std::uintptr_t at, std::size_t bytes) override {
    auto it = ranges_.upper_bound(at);
    --it;
    const std::uintptr_t start = it->first;
    const std::uintptr_t end = start + it->second.bytes;
    if (at < start || at + bytes > end) broken = "unmapped what was not reserved";
    ranges_.erase(it);
    if (at > start) ranges_[start] = {at - start, false};
    if (at + bytes < end) ranges_[at + bytes] = {end - at - bytes, false};
    reserved -= bytes;
    return kOk;
  }

  // Not what a Space does.
  Errno map_private(std::size_t, const char*, std::uintptr_t*) override { return no(); }
  Errno advise(std::uintptr_t, std::size_t, int) override { return no(); }
  Errno protect_none(std::uintptr_t, std::size_t) override { return no(); }
  Errno discard(const AddressRange*, std::size_t, std::size_t*) override { return no(); }
  Errno copy_pages(const std::uintptr_t*, std::size_t, void*, std::size_t*) override {
    return no();
  }
  Errno scan(std::uintptr_t, std::size_t, ScannedRun*, std::size_t, std::size_t*,
             std::uintptr_t*) override {
    return no();
  }
  bool may_hold_long_pins() override { return false; }
  Nanos now() override { return {}; }

 private:
  static constexpr std::uintptr_t kKernelsChoice = 0x7f0000001000;
  struct Range {
    std::size_t bytes;
    bool foreign;
  };

  bool fails() { return fail_nth > 0 && --fail_nth == 0; }
  Errno no() {
    broken = "a call that a Space has no use for";
    return {ENOSYS};
  }
  bool overlaps(std::uintptr_t at, std::size_t bytes) const {
    for (const auto& [start, range] : ranges_) {
      if (at < start + range.bytes && start < at + bytes) return true;
    }
    return false;
  }
  bool overlaps_commit(std::uintptr_t at, std::size_t bytes) const {
    auto it = commits_.lower_bound(at);
    if (it != commits_.end() && it->first < at + bytes) return true;
    return it != commits_.begin() && std::prev(it)->first + std::prev(it)->second > at;
  }
  // Reserved, in one or several adjacent pieces.
  bool ours(std::uintptr_t at, std::size_t bytes) const {
    for (const std::uintptr_t end = at + bytes; at < end;) {
      auto it = ranges_.upper_bound(at);
      if (it == ranges_.begin()) return false;
      --it;
      if (it->second.foreign || at >= it->first + it->second.bytes) return false;
      at = it->first + it->second.bytes;
    }
    return true;
  }

  std::map<std::uintptr_t, Range> ranges_;
  std::map<std::uintptr_t, std::size_t> commits_;
};

}  // namespace heaptier::test
