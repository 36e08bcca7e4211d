// A machine for tests: memory whose pages can be absent, write-protected, parked and moved, with
// both doors to the kernel (MemoryOps and FaultPort) on it. No kernel, no thread, no sleep: home
// and park are ordinary memory of the test, presence is a bit, and a touch is a function that asks
// the fault service until the page is there.
//
// fail_at(n): the n-th call from then on fails, whichever it is, with the errno given; each call
// does nothing then (or stops half-way, for those that can).
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "runtime/base/ports.h"

namespace heaptier::test {

class FakeMachine final : public MemoryOps, public FaultPort {
 public:
  struct Page {
    bool present = false;
    bool wp = false;
    bool pinned = false;
    bool mlocked = false;
    bool poisoned = false;
    bool denied = false;  // access was taken away (set_access)
  };

  // Pages that do not exist here are absent. Registered or not: ranges by address.
  std::map<std::uintptr_t, Page> pages;
  std::map<std::uintptr_t, std::size_t> registered;
  std::map<std::uintptr_t, bool> huge;  // pageblock address -> one huge page
  // Pageblocks that are one huge page, but not in one mapping; huge pages that a pipe holds, and
  // how often one of those could not be split; those at whose place is a page table.
  std::set<std::uintptr_t> huge_in_parts;
  std::set<std::uintptr_t> held;
  std::uint64_t refusals = 0;
  std::set<std::uintptr_t> page_tables;
  // Pages whose move is not counted: the call goes on as if it had to be done again.
  std::set<std::uintptr_t> uncounted;
  // Moves that would never have returned before Linux 6.18.
  std::uint64_t hung = 0;
  Nanos clock{1'000'000'000};
  bool long_pins = false;
  std::uint64_t calls = 0;
  std::vector<std::string> log;  // names of calls, for messages

  void fail_at(std::uint64_t nth, int code) {
    fail_at_ = calls + nth;
    code_ = code;
  }
  void stop_failing() { fail_at_ = 0; }
  bool failed_once() const { return failed_once_; }

  bool is_registered(std::uintptr_t at) const {
    auto it = registered.upper_bound(at);
    if (it == registered.begin()) return false;
    --it;
    return at < it->first + it->second;
  }
  Page& page(std::uintptr_t at) { return pages[round_down(at, kPageSize)]; }
  std::size_t present_pages(std::uintptr_t at, std::size_t bytes) {
    std::size_t n = 0;
    for (std::uintptr_t a = at; a < at + bytes; a += kPageSize) n += page(a).present ? 1 : 0;
    return n;
  }

  // MemoryOps
  Errno reserve(std::uintptr_t hint, std::size_t bytes, std::uintptr_t* out) override {
    if (Errno e = step("reserve"); e.failed()) return e;
    return map(hint, bytes, out);
  }
  Errno commit(std::uintptr_t, std::size_t) override { return step("commit"); }
  Errno renew(std::uintptr_t at, std::size_t bytes) override {
    if (Errno e = step("renew"); e.failed()) return e;
    drop(at, bytes);
    registered.erase(at);
    page_tables.erase(at);
    return kOk;
  }
  Errno protect_none(std::uintptr_t, std::size_t) override { return step("protect_none"); }
  Errno set_access(std::uintptr_t at, std::size_t bytes, bool on) override {
    if (Errno e = step("set_access"); e.failed()) return e;
    for (std::uintptr_t a = at; a < at + bytes; a += kPageSize) page(a).denied = !on;
    return kOk;
  }
  Errno map_private(std::size_t bytes, const char*, std::uintptr_t* out) override {
    if (Errno e = step("map_private"); e.failed()) return e;
    return map(0, bytes, out);
  }
  Errno unmap(std::uintptr_t, std::size_t) override { return step("unmap"); }
  Errno advise(std::uintptr_t at, std::size_t bytes, int advice) override {
    if (Errno e = step("advise"); e.failed()) return e;
    if (advice == 4) drop(at, bytes);
    if (advice == 20 && bytes < kPageblockSize) split(round_down(at, kPageblockSize));
    const bool fill = advice == 22 || advice == 23;
    return fill && page(at).denied ? Errno{EINVAL} : kOk;
  }
  Errno discard(const AddressRange* ranges, std::size_t count, std::size_t* done) override {
    *done = 0;
    const bool fails = step("discard").failed();
    // Fails half-way, as a vectored call may.
    const std::size_t n = fails ? count / 2 : count;
    for (; *done < n; ++*done) {
      const AddressRange& r = ranges[*done];
      // Locked memory: what lies before it in the range is gone all the same.
      for (std::uintptr_t at = r.start; at < r.end(); at += kPageSize) {
        if (page(at).mlocked) return {EINVAL};
        drop(at, kPageSize);
      }
    }
    return fails ? Errno{code_} : kOk;
  }
  Errno copy_pages(const std::uintptr_t* from, std::size_t count, void* to,
                   std::size_t* done) override {
    const bool fails = step("copy_pages").failed();
    const std::size_t n = fails ? count / 2 : count;
    for (*done = 0; *done < n; ++*done) {
      if (!page(from[*done]).present) return {EFAULT};
      std::memcpy(static_cast<char*>(to) + *done * kPageSize,
                  reinterpret_cast<const void*>(from[*done]), kPageSize);
    }
    return fails ? Errno{EFAULT} : kOk;
  }
  Errno scan(std::uintptr_t at, std::size_t bytes, ScannedRun* out, std::size_t max,
             std::size_t* found, std::uintptr_t* next) override {
    *found = 0;
    *next = at;
    if (Errno e = step("scan"); e.failed()) return e;
    for (; *next < at + bytes; *next += kPageSize) {
      if (!page(*next).present) continue;
      const bool is_huge = huge[round_down(*next, kPageblockSize)];
      if (*found > 0 && out[*found - 1].start + out[*found - 1].bytes == *next) {
        out[*found - 1].bytes += kPageSize;
        continue;
      }
      if (*found == max) break;
      out[(*found)++] = {*next, kPageSize, is_huge, false};
    }
    return kOk;
  }
  bool may_hold_long_pins() override { return long_pins; }
  Nanos now() override { return clock; }

  // FaultPort
  Errno register_range(std::uintptr_t at, std::size_t bytes) override {
    if (Errno e = step("register"); e.failed()) return e;
    registered[at] = bytes;
    return kOk;
  }
  Errno unregister_range(std::uintptr_t at, std::size_t) override {
    if (Errno e = step("unregister"); e.failed()) return e;
    registered.erase(at);
    return kOk;
  }
  RunResult copy(std::uintptr_t to, const void* from, std::size_t bytes, bool wp, bool) override {
    if (Errno e = step("copy"); e.failed()) return {e, 0};
    for (std::size_t done = 0; done < bytes; done += kPageSize) {
      Page& p = page(to + done);
      if (p.present) return {{EEXIST}, done};
      std::memcpy(reinterpret_cast<void*>(to + done), static_cast<const char*>(from) + done,
                  kPageSize);
      p.present = true;
      p.wp = wp;
    }
    return {kOk, bytes};
  }
  RunResult zero(std::uintptr_t to, std::size_t bytes, bool) override {
    if (Errno e = step("zero"); e.failed()) return {e, 0};
    for (std::size_t done = 0; done < bytes; done += kPageSize) {
      Page& p = page(to + done);
      if (p.present) return {{EEXIST}, done};
      std::memset(reinterpret_cast<void*>(to + done), 0, kPageSize);
      p.present = true;
      p.wp = false;
    }
    return {kOk, bytes};
  }
  RunResult move(std::uintptr_t to, std::uintptr_t from, std::size_t bytes, bool) override {
    const bool fails = step("move").failed();
    if (!fails && !may_move(to, from, bytes)) return {{EBUSY}, 0};
    for (std::size_t done = 0; done < bytes; done += kPageSize) {
      // A failing move stops half-way, unless it is of one page.
      if (fails && done >= bytes / 2 / kPageSize * kPageSize) return {{code_}, done};
      Page& source = page(from + done);
      Page& target = page(to + done);
      if (!source.present) return {{ENOENT}, done};
      if (source.pinned) return {{EBUSY}, done};
      if (target.present) return {{EEXIST}, done};
      std::memcpy(reinterpret_cast<void*>(to + done), reinterpret_cast<const void*>(from + done),
                  kPageSize);
      target.present = true;
      target.wp = false;
      forget(source, from + done);
      if (uncounted.erase(from + done) != 0) return {{EEXIST}, done};
    }
    return {kOk, bytes};
  }
  Errno write_protect(std::uintptr_t at, std::size_t bytes, bool on, bool) override {
    if (Errno e = step("write_protect"); e.failed()) return e;
    for (std::uintptr_t a = at; a < at + bytes; a += kPageSize) {
      if (page(a).present) page(a).wp = on;
    }
    return kOk;
  }
  Errno wake(std::uintptr_t, std::size_t) override { return kOk; }
  RunResult poison(std::uintptr_t at, std::size_t bytes) override {
    if (Errno e = step("poison"); e.failed()) return {e, 0};
    page(at).poisoned = true;
    return {kOk, bytes};
  }

  FakeMachine() = default;
  FakeMachine(const FakeMachine&) = delete;
  FakeMachine& operator=(const FakeMachine&) = delete;
  ~FakeMachine() {
    for (const AddressRange& r : owned_) munmap(reinterpret_cast<void*>(r.start), r.bytes);
  }

 private:
  Errno map(std::uintptr_t hint, std::size_t bytes, std::uintptr_t* out) {
#if defined(__SANITIZE_THREAD__)
    // TSan keeps most of the address space for itself and, asked for a place in it, maps page 0.
    if (hint != 0) return {EEXIST};
#endif
    void* p =
        mmap(reinterpret_cast<void*>(hint), bytes, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (hint ? MAP_FIXED_NOREPLACE : 0), -1, 0);
    if (p == MAP_FAILED) return {errno};
    owned_.push_back({reinterpret_cast<std::uintptr_t>(p), bytes});
    *out = reinterpret_cast<std::uintptr_t>(p);
    return kOk;
  }
  Errno step(const char* name) {
    ++calls;
    if (log.size() < 4096) log.emplace_back(name);
    if (calls != fail_at_) return kOk;
    failed_once_ = true;
    return {code_};
  }
  // A part of it is to be something else.
  bool split(std::uintptr_t block) {
    if (!huge[block] && !huge_in_parts.contains(block)) return true;
    if (held.contains(block)) {
      ++refusals;
      return false;
    }
    huge[block] = false;
    huge_in_parts.erase(block);
    return true;
  }
  // Whole, or what is whole has to be split first.
  bool may_move(std::uintptr_t to, std::uintptr_t from, std::size_t bytes) {
    const std::uintptr_t block = round_down(from, kPageblockSize);
    const std::uintptr_t target = round_down(to, kPageblockSize);
    if (huge[block] && bytes == kPageblockSize && !page_tables.contains(target)) {
      huge[block] = false;
      huge[target] = true;
      if (held.erase(block) != 0) held.insert(target);
      return true;
    }
    page_tables.insert(target);
    if (split(block)) return true;
    huge[block] = false;
    huge_in_parts.insert(block);
    ++hung;
    return false;
  }
  void forget(Page& p, std::uintptr_t at) {
    // What a lost page would read as, if anybody took it for good.
    std::memset(reinterpret_cast<void*>(at), 0xDD, kPageSize);
    p.present = false;
    p.wp = false;
  }
  void drop(std::uintptr_t at, std::size_t bytes) {
    for (std::uintptr_t a = at; a < at + bytes; a += kPageSize) {
      if (page(a).present) forget(page(a), a);
    }
  }

  std::vector<AddressRange> owned_;
  std::uint64_t fail_at_ = 0;
  int code_ = 0;
  bool failed_once_ = false;
};

}  // namespace heaptier::test
