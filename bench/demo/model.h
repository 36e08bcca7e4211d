// What the server must hold: a version and a digest for every key, and the digest of everything,
// kept up to date with every write.
#pragma once

#include <cstdint>
#include <vector>

#include "bench/demo/values.h"

namespace heaptier::demo {

class Model {
 public:
  std::uint32_t keys() const { return static_cast<std::uint32_t>(entries_.size()); }
  std::uint32_t version(std::uint32_t id) const { return entries_[id].version; }
  const Digest& digest(std::uint32_t id) const { return entries_[id].digest; }
  const Digest& total() const { return total_; }

  // The next key, as loaded.
  void add(const Content& content) {
    const Digest d = digest_of(keys(), content);
    entries_.push_back({0, d});
    total_ += d;
  }
  // The key's next version.
  void write(std::uint32_t id, const Content& content) {
    Entry& entry = entries_[id];
    total_ -= entry.digest;
    entry.digest = digest_of(id, content);
    ++entry.version;
    total_ += entry.digest;
  }

 private:
  struct Entry {
    std::uint32_t version;
    Digest digest;
  };
  std::vector<Entry> entries_;
  Digest total_;
};

}  // namespace heaptier::demo
