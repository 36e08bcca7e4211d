// How much of some memory goes to which node, in small whole numbers: of every total() pages in a
// row, `of[n]` go to node n.
#pragma once

#include <cstdint>

#include "runtime/base/node_set.h"

namespace heaptier {

struct NodeWeights {
  // The kernel's own weights are as wide (/sys/kernel/mm/mempolicy/weighted_interleave).
  static constexpr unsigned kMost = 255;
  std::uint8_t of[kMaxNodes] = {};  // 0: the node is left out

  constexpr NodeSet nodes() const {
    NodeSet nodes;
    for (unsigned n = 0; n < kMaxNodes; ++n) {
      if (of[n] != 0) nodes.add(n);
    }
    return nodes;
  }
  // What is left of them on these nodes.
  constexpr NodeWeights within(NodeSet nodes) const {
    NodeWeights part;
    for (const unsigned n : nodes) part.of[n] = of[n];
    return part;
  }
  constexpr bool equal() const {
    unsigned seen = 0;
    for (const unsigned weight : of) {
      if (weight == 0) continue;
      if (seen != 0 && weight != seen) return false;
      seen = weight;
    }
    return true;
  }
  friend constexpr bool operator==(const NodeWeights&, const NodeWeights&) = default;
};

}  // namespace heaptier
