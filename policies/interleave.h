// Weighted interleaving: which node a page belongs on, by its address alone. And the weights that
// make the nodes equally busy: as their bandwidths are to each other.
//
// The pattern is the kernel's own (mm/mempolicy.c): pages are numbered by their address, small ones
// from address / 4 KiB, huge ones from address / 2 MiB; of every total() in a row the first weight
// of the lowest node go there, the next ones to the next node, and so on. So what the kernel has
// placed by a policy of its own with the same weights is in its place already.
#pragma once

#include <cstdint>

#include "runtime/base/node_weights.h"
#include "runtime/base/units.h"

namespace heaptier {

class InterleavePattern {
 public:
  constexpr InterleavePattern() = default;
  explicit InterleavePattern(const NodeWeights& weights);

  // Nothing has a place.
  bool empty() const { return total_ == 0; }
  std::uint32_t total() const { return total_; }
  // Requires: !empty().
  unsigned node_of(std::uintptr_t home, bool huge) const {
    const std::uintptr_t number = home >> (huge ? kPageblockShift : kPageShift);
    const auto place = static_cast<std::uint32_t>(number % total_);
    std::uint32_t i = 0;
    while (place >= end_[i]) ++i;
    return node_[i];
  }

 private:
  std::uint32_t total_ = 0;
  std::uint32_t end_[kMaxNodes] = {};  // of the places of node_[i]
  std::uint8_t node_[kMaxNodes] = {};  // ascending
};

// The weights of `nodes` by their bandwidths (any unit), scaled down to small numbers and reduced,
// as Linux does since 6.16, so that both come to the same. A node of unknown bandwidth (0) among
// known ones leaves no choice: all are equal then.
NodeWeights weights_by_bandwidth(NodeSet nodes, const std::uint64_t (&bandwidth)[kMaxNodes]);

}  // namespace heaptier
