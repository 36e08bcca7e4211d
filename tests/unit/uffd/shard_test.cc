#include "uffd/shard.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace heaptier {
namespace {

// What a port was asked for. Addresses in strips, lengths in pages, so that a log can be read.
struct Call {
  std::string what;
  unsigned port;
  std::uintptr_t at;
  std::size_t bytes;
  std::uintptr_t from;
  friend bool operator==(const Call&, const Call&) = default;
};

struct Log {
  std::vector<Call> calls;
  std::size_t fail_at = SIZE_MAX;  // number of the call that fails, half-way
};

class LoggingPort final : public FaultPort {
 public:
  LoggingPort(Log& log, unsigned number) : log_(log), number_(number) {}
  Errno register_range(std::uintptr_t at, std::size_t bytes) override {
    return note("register", at, bytes, 0).error;
  }
  Errno unregister_range(std::uintptr_t at, std::size_t bytes) override {
    return note("unregister", at, bytes, 0).error;
  }
  RunResult copy(std::uintptr_t to, const void* from, std::size_t bytes, bool wp,
                 bool wake) override {
    return note(wp && !wake ? "copy" : "copy?", to, bytes, reinterpret_cast<std::uintptr_t>(from));
  }
  RunResult zero(std::uintptr_t to, std::size_t bytes, bool wake) override {
    return note(wake ? "zero" : "zero?", to, bytes, 0);
  }
  RunResult move(std::uintptr_t to, std::uintptr_t from, std::size_t bytes, bool wake) override {
    return note(wake ? "move?" : "move", to, bytes, from);
  }
  Errno write_protect(std::uintptr_t at, std::size_t bytes, bool on, bool) override {
    return note(on ? "protect" : "unprotect", at, bytes, 0).error;
  }
  Errno wake(std::uintptr_t at, std::size_t bytes) override {
    return note("wake", at, bytes, 0).error;
  }
  RunResult poison(std::uintptr_t at, std::size_t bytes) override {
    return note("poison", at, bytes, 0);
  }

 private:
  RunResult note(const char* what, std::uintptr_t at, std::size_t bytes, std::uintptr_t from) {
    const bool fails = log_.calls.size() == log_.fail_at;
    log_.calls.push_back({what, number_, at, bytes, from});
    if (!fails) return {kOk, bytes};
    return {{EEXIST}, round_down(bytes / 2, kPageSize)};
  }
  Log& log_;
  unsigned number_;
};

// A router over logging ports, used as r->method(), r.log.
class Router {
 public:
  explicit Router(unsigned count) {
    ports_.reserve(kMaxShards);
    for (unsigned i = 0; i < kMaxShards; ++i) ports_.emplace_back(log, i);
    FaultPort* addresses[kMaxShards];
    for (unsigned i = 0; i < kMaxShards; ++i) addresses[i] = &ports_[i];
    routed = router_.route_to(addresses, count);
  }
  ShardRouter* operator->() { return &router_; }
  Log log;
  Errno routed;

 private:
  ShardRouter router_;
  std::vector<LoggingPort> ports_;
};

constexpr std::uintptr_t kBase = std::uintptr_t{16} * kStripBytes * 1000;
constexpr std::uintptr_t kPark = kBase + std::uintptr_t{16} * kStripBytes * 64;

TEST(ShardRouter, TakesPowersOfTwoUpToSixteen) {
  for (unsigned n : {1u, 2u, 4u, 8u, 16u}) EXPECT_TRUE(Router(n).routed.ok()) << n;
  for (unsigned n : {0u, 3u, 5u, 12u, 32u}) EXPECT_EQ(Router(n).routed, Errno{EINVAL}) << n;
}

TEST(ShardRouter, DealsStripsOutInTurn) {
  Router r(4);
  for (unsigned strip = 0; strip < 9; ++strip) {
    EXPECT_EQ(r->shard_of(kBase + strip * kStripBytes), strip % 4);
    EXPECT_EQ(r->shard_of(kBase + (strip + 1) * kStripBytes - 1), strip % 4);
  }
  EXPECT_EQ(Router(1)->shard_of(kBase + 7 * kStripBytes), 0u);
}

TEST(ShardRouter, KeepsARangeWithinAStripWhole) {
  Router r(4);
  EXPECT_TRUE(r->zero(kBase + kStripBytes, kStripBytes, true).error.ok());
  EXPECT_EQ(r.log.calls, (std::vector<Call>{{"zero", 1, kBase + kStripBytes, kStripBytes, 0}}));
}

TEST(ShardRouter, SplitsARangeAtStripBoundaries) {
  Router r(2);
  const std::uintptr_t at = kBase + kStripBytes - 2 * kPageSize;
  const char* source = reinterpret_cast<const char*>(std::uintptr_t{0x5000});
  const RunResult done = r->copy(at, source, kStripBytes + 5 * kPageSize, true, false);
  EXPECT_TRUE(done.error.ok());
  EXPECT_EQ(done.done, kStripBytes + 5 * kPageSize);
  const std::size_t two = 2 * kPageSize;
  EXPECT_EQ(r.log.calls, (std::vector<Call>{{"copy", 0, at, two, 0x5000},
                                            {"copy", 1, at + two, kStripBytes, 0x5000 + two},
                                            {"copy", 0, at + two + kStripBytes, 3 * kPageSize,
                                             0x5000 + two + kStripBytes}}));
}

TEST(ShardRouter, CountsWhatWasDoneBeforeAFailure) {
  Router r(2);
  r.log.fail_at = 1;
  const std::uintptr_t at = kBase + kStripBytes - 2 * kPageSize;
  const RunResult done = r->zero(at, 10 * kPageSize, true);
  EXPECT_EQ(done.error, Errno{EEXIST});
  EXPECT_EQ(done.done, 2 * kPageSize + 4 * kPageSize);
  EXPECT_EQ(r.log.calls.size(), 2u);
}

TEST(ShardRouter, RegistersAllOrNothing) {
  Router r(4);
  r.log.fail_at = 2;
  EXPECT_EQ(r->register_range(kBase, 4 * kStripBytes), Errno{EEXIST});
  ASSERT_EQ(r.log.calls.size(), 5u);
  EXPECT_EQ(r.log.calls[3], (Call{"unregister", 0, kBase, kStripBytes, 0}));
  EXPECT_EQ(r.log.calls[4], (Call{"unregister", 1, kBase + kStripBytes, kStripBytes, 0}));
}

TEST(ShardRouter, MovesBetweenEqualOffsetsOfHomeAndPark) {
  Router r(8);
  const std::size_t offset = 3 * kStripBytes - kPageblockSize;
  const RunResult done = r->move(kPark + offset, kBase + offset, 2 * kPageblockSize, false);
  EXPECT_TRUE(done.error.ok());
  const std::uintptr_t to = kPark + offset;
  const std::uintptr_t from = kBase + offset;
  EXPECT_EQ(
      r.log.calls,
      (std::vector<Call>{{"move", 2, to, kPageblockSize, from},
                         {"move", 3, to + kPageblockSize, kPageblockSize, from + kPageblockSize}}));
}

TEST(ShardRouter, RefusesToMoveBetweenShards) {
  Router r(8);
  EXPECT_EQ(r->move(kPark + kStripBytes, kBase, kPageSize, false).error, Errno{EINVAL});
  EXPECT_TRUE(r.log.calls.empty());
  // The first strip fits, the rest of the range does not: source and target end at different
  // offsets.
  const RunResult part = r->move(kPark + kStripBytes - kPageSize, kBase, 2 * kPageSize, false);
  EXPECT_EQ(part.error, Errno{EINVAL});
  EXPECT_EQ(part.done, kPageSize);
}

TEST(ShardRouter, SendsTheOtherRequestsToo) {
  Router r(2);
  EXPECT_TRUE(r->write_protect(kBase, 2 * kStripBytes, true, false).ok());
  EXPECT_TRUE(r->wake(kBase, kStripBytes + kPageSize).ok());
  EXPECT_TRUE(r->poison(kBase + kStripBytes, kPageSize).error.ok());
  EXPECT_TRUE(r->unregister_range(kBase, kPageSize).ok());
  EXPECT_EQ(r.log.calls, (std::vector<Call>{{"protect", 0, kBase, kStripBytes, 0},
                                            {"protect", 1, kBase + kStripBytes, kStripBytes, 0},
                                            {"wake", 0, kBase, kStripBytes, 0},
                                            {"wake", 1, kBase + kStripBytes, kPageSize, 0},
                                            {"poison", 1, kBase + kStripBytes, kPageSize, 0},
                                            {"unregister", 0, kBase, kPageSize, 0}}));
}

}  // namespace
}  // namespace heaptier
