// One userfaultfd has one queue and one lock, and one handler follows one faulter. So the address
// space is dealt out to up to 16 of them in strips of 32 MiB.
//
// A page that is moved must be registered with the same userfaultfd at both ends: whoever lays out
// home and park aligns both bases to count() * 32 MiB, so that equal offsets fall into the same
// shard.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/base/errno.h"
#include "runtime/base/ports.h"
#include "uffd/api.h"

namespace heaptier {

inline constexpr unsigned kMaxShards = 16;
inline constexpr unsigned kStripShift = 25;
inline constexpr std::size_t kStripBytes = std::size_t{1} << kStripShift;

// Deals ranges out to `count` ports. Stops at the first failure; RunResult::done then counts from
// the start of the whole range. Thread rule: as the ports'.
class ShardRouter : public FaultPort {
 public:
  constexpr ShardRouter() = default;
  // `ports`: `count` of them, a power of two up to kMaxShards; kept by reference. EINVAL otherwise.
  Errno route_to(FaultPort* const* ports, unsigned count);
  unsigned count() const { return count_; }
  unsigned shard_of(std::uintptr_t addr) const {
    return static_cast<unsigned>(addr >> kStripShift) & (count_ - 1);
  }

  Errno register_range(std::uintptr_t at, std::size_t bytes) override;
  Errno unregister_range(std::uintptr_t at, std::size_t bytes) override;
  RunResult copy(std::uintptr_t to, const void* from, std::size_t bytes, bool wp,
                 bool wake) override;
  RunResult zero(std::uintptr_t to, std::size_t bytes, bool wake) override;
  // EINVAL where source and target lie in different shards; nothing of that strip is moved.
  RunResult move(std::uintptr_t to, std::uintptr_t from, std::size_t bytes, bool wake) override;
  Errno write_protect(std::uintptr_t at, std::size_t bytes, bool on, bool wake) override;
  Errno wake(std::uintptr_t at, std::size_t bytes) override;
  RunResult poison(std::uintptr_t at, std::size_t bytes) override;

 private:
  FaultPort& port_at(std::uintptr_t addr) { return *ports_[shard_of(addr)]; }

  FaultPort* ports_[kMaxShards] = {};
  unsigned count_ = 1;
};

// The real thing: a router over its own userfaultfds. Thread rule: open() and close() by one
// thread, alone.
class ShardedPort final : public ShardRouter {
 public:
  constexpr ShardedPort() = default;
  ShardedPort(const ShardedPort&) = delete;
  ShardedPort& operator=(const ShardedPort&) = delete;
  ~ShardedPort() = default;  // does not close: a static one lives until the process is gone

  // `shards` a power of two up to kMaxShards (else EINVAL). All open or none. `source` may be null.
  Errno open(OpenMode mode, unsigned shards, Source* source,
             std::uint64_t feature_mask = ~std::uint64_t{0});
  void close();
  bool is_open() const { return shards_[0].is_open(); }
  Userfaultfd& shard(unsigned i) { return shards_[i]; }
  const Features& features() const { return shards_[0].features(); }
  // As the router's, without its loop: this is called for every fault, nearly always for one strip.
  Errno wake(std::uintptr_t at, std::size_t bytes) override;

 private:
  Userfaultfd shards_[kMaxShards];
};

}  // namespace heaptier
