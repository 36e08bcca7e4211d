// Memory, sinks and children for the tests that talk to the real kernel.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "runtime/base/ports.h"
#include "uffd/api.h"
#include "uffd/fault_sink.h"
#include "uffd/shard.h"

namespace heaptier::testing {

// Private anonymous memory, aligned to `align` (a power of two).
class Mapping {
 public:
  explicit Mapping(std::size_t bytes, std::size_t align = kPageblockSize) : bytes_(bytes) {
    const std::size_t all = bytes + align;
    void* p = mmap(nullptr, all, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) abort();
    whole_ = reinterpret_cast<std::uintptr_t>(p);
    whole_bytes_ = all;
    at_ = round_up(whole_, align);
    madvise(ptr(), bytes, MADV_NOHUGEPAGE);
  }
  ~Mapping() { munmap(reinterpret_cast<void*>(whole_), whole_bytes_); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  std::uintptr_t at(std::size_t page = 0) const { return at_ + page * kPageSize; }
  char* ptr(std::size_t page = 0) const { return reinterpret_cast<char*>(at(page)); }
  std::size_t bytes() const { return bytes_; }
  std::size_t pages() const { return bytes_ / kPageSize; }
  bool resident(std::size_t page) const {
    unsigned char v = 0;
    mincore(ptr(page), kPageSize, &v);
    return (v & 1) != 0;
  }

 private:
  std::uintptr_t whole_ = 0;
  std::size_t whole_bytes_ = 0;
  std::uintptr_t at_ = 0;
  std::size_t bytes_ = 0;
};

// The content that a page at `addr` should have: every word says where it is.
inline void fill_page(std::uintptr_t addr, void* out) {
  auto* words = static_cast<std::uint64_t*>(out);
  for (std::size_t i = 0; i < kPageSize / 8; ++i) words[i] = (addr + 8 * i) * 0x9e3779b97f4a7c15;
}
inline bool page_is_right(std::uintptr_t addr) {
  alignas(8) char expected[kPageSize];
  fill_page(addr, expected);
  return std::memcmp(reinterpret_cast<const void*>(addr), expected, kPageSize) == 0;
}

// Fills absent pages with fill_page(), lifts write protection; counts.
class FillingSink final : public FaultSink {
 public:
  explicit FillingSink(FaultPort& port) : port_(&port) {}
  FaultReply on_fault(const FaultEvent& e, unsigned worker) override {
    inside.fetch_add(1);
    FaultReply reply{FaultVerdict::kWake, e.address, kPageSize};
    if (worker < 64 && (in_use[worker].fetch_add(1) != 0)) overlaps.fetch_add(1);
    if (busy_left.load() > 0 && busy_left.fetch_sub(1) > 0) {
      reply = {FaultVerdict::kBusy, 0, 0};
    } else if (e.wp) {
      wp_faults.fetch_add(1);
      if (port_->write_protect(e.address, kPageSize, false, false).failed()) errors.fetch_add(1);
    } else {
      alignas(kPageSize) char page[kPageSize];
      fill_page(e.address, page);
      const RunResult r = port_->copy(e.address, page, kPageSize, false, false);
      if (r.error.ok()) missing_faults.fetch_add(1);
      if (r.error == Errno{EEXIST}) reply = {FaultVerdict::kGone, 0, 0};
      if (r.error.failed() && !(r.error == Errno{EEXIST})) errors.fetch_add(1);
    }
    if (worker < 64) in_use[worker].fetch_sub(1);
    last_worker.store(worker);
    last_tid.store(e.tid);
    inside.fetch_sub(1);
    return reply;
  }
  void use(FaultPort& port) { port_ = &port; }

  std::atomic<int> inside{0};
  std::atomic<int> overlaps{0};
  std::atomic<int> in_use[64] = {};
  std::atomic<int> busy_left{0};
  std::atomic<std::uint64_t> missing_faults{0};
  std::atomic<std::uint64_t> wp_faults{0};
  std::atomic<std::uint64_t> errors{0};
  std::atomic<unsigned> last_worker{0};
  std::atomic<std::uint32_t> last_tid{0};

 private:
  FaultPort* port_;
};

// Runs `body` in a fork's child and gives its wait status. The child leaves with body's result,
// without gtest.
template <class Body>
int in_child(Body body) {
  std::fflush(nullptr);
  const pid_t pid = fork();
  if (pid == 0) _exit(body());
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}
inline bool exited_with(int status, int code) {
  return WIFEXITED(status) && WEXITSTATUS(status) == code;
}

}  // namespace heaptier::testing

// Skips the test, with the reason, where this host gives no userfaultfd.
#define HEAPTIER_OPEN_OR_SKIP(port, ...)                                                    \
  do {                                                                                      \
    const ::heaptier::Errno heaptier_open_error = (port).open(__VA_ARGS__);                 \
    if (heaptier_open_error.failed())                                                       \
      GTEST_SKIP() << "no userfaultfd: " << std::strerror(heaptier_open_error.code) << "; " \
                   << ::heaptier::remedy(::heaptier::probe());                              \
  } while (0)
