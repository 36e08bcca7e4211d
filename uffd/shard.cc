#include "uffd/shard.h"

#include <algorithm>

namespace heaptier {
namespace {

std::size_t bytes_left_in_strip(std::uintptr_t at) {
  return kStripBytes - (at & (kStripBytes - 1));
}

// Calls part(offset, bytes) for every strip that [at, at+bytes) touches, until one fails. `part`
// gives a RunResult.
template <class Part>
RunResult for_each_strip(std::uintptr_t at, std::size_t bytes, Part part) {
  std::size_t done = 0;
  while (done < bytes) {
    const std::size_t length = std::min(bytes - done, bytes_left_in_strip(at + done));
    const RunResult r = part(done, length);
    done += r.done;
    if (r.error.failed()) return {r.error, done};
  }
  return {kOk, done};
}

// For ports' methods that do all or nothing.
RunResult whole(Errno e, std::size_t bytes) {
  return {e, e.ok() ? bytes : 0};
}

}  // namespace

Errno ShardRouter::route_to(FaultPort* const* ports, unsigned count) {
  if (count == 0 || count > kMaxShards || (count & (count - 1)) != 0) return {EINVAL};
  std::copy_n(ports, count, ports_);
  count_ = count;
  return kOk;
}

Errno ShardRouter::register_range(std::uintptr_t at, std::size_t bytes) {
  const RunResult r = for_each_strip(at, bytes, [&](std::size_t offset, std::size_t length) {
    return whole(port_at(at + offset).register_range(at + offset, length), length);
  });
  if (r.error.failed() && r.done > 0) {
    [[maybe_unused]] const Errno undone = unregister_range(at, r.done);
  }
  return r.error;
}

Errno ShardRouter::unregister_range(std::uintptr_t at, std::size_t bytes) {
  return for_each_strip(at, bytes,
                        [&](std::size_t offset, std::size_t length) {
                          return whole(port_at(at + offset).unregister_range(at + offset, length),
                                       length);
                        })
      .error;
}

RunResult ShardRouter::copy(std::uintptr_t to, const void* from, std::size_t bytes, bool wp,
                            bool wake) {
  return for_each_strip(to, bytes, [&](std::size_t offset, std::size_t length) {
    return port_at(to + offset)
        .copy(to + offset, static_cast<const char*>(from) + offset, length, wp, wake);
  });
}

RunResult ShardRouter::zero(std::uintptr_t to, std::size_t bytes, bool wake) {
  return for_each_strip(to, bytes, [&](std::size_t offset, std::size_t length) {
    return port_at(to + offset).zero(to + offset, length, wake);
  });
}

RunResult ShardRouter::move(std::uintptr_t to, std::uintptr_t from, std::size_t bytes, bool wake) {
  std::size_t done = 0;
  while (done < bytes) {
    if (shard_of(to + done) != shard_of(from + done)) return {{EINVAL}, done};
    const std::size_t length =
        std::min({bytes - done, bytes_left_in_strip(to + done), bytes_left_in_strip(from + done)});
    const RunResult r = port_at(to + done).move(to + done, from + done, length, wake);
    done += r.done;
    if (r.error.failed()) return {r.error, done};
  }
  return {kOk, done};
}

Errno ShardRouter::write_protect(std::uintptr_t at, std::size_t bytes, bool on, bool wake) {
  return for_each_strip(at, bytes,
                        [&](std::size_t offset, std::size_t length) {
                          return whole(
                              port_at(at + offset).write_protect(at + offset, length, on, wake),
                              length);
                        })
      .error;
}

Errno ShardRouter::wake(std::uintptr_t at, std::size_t bytes) {
  return for_each_strip(at, bytes,
                        [&](std::size_t offset, std::size_t length) {
                          return whole(port_at(at + offset).wake(at + offset, length), length);
                        })
      .error;
}

RunResult ShardRouter::poison(std::uintptr_t at, std::size_t bytes) {
  return for_each_strip(at, bytes, [&](std::size_t offset, std::size_t length) {
    return port_at(at + offset).poison(at + offset, length);
  });
}

Errno ShardedPort::open(OpenMode mode, unsigned shards, Source* source,
                        std::uint64_t feature_mask) {
  if (is_open()) return {EBUSY};
  FaultPort* ports[kMaxShards];
  for (unsigned i = 0; i < kMaxShards; ++i) ports[i] = &shards_[i];
  if (Errno e = route_to(ports, shards); e.failed()) return e;
  for (unsigned i = 0; i < shards; ++i) {
    if (Errno e = shards_[i].open(mode, source, feature_mask); e.failed()) {
      close();
      return e;
    }
  }
  return kOk;
}

Errno ShardedPort::wake(std::uintptr_t at, std::size_t bytes) {
  if (bytes > bytes_left_in_strip(at)) return ShardRouter::wake(at, bytes);
  return shards_[shard_of(at)].wake(at, bytes);
}

void ShardedPort::close() {
  for (Userfaultfd& shard : shards_) shard.close();
}

}  // namespace heaptier
