// Where the pages of a node that is being vacated go: arithmetic on the chain and on how much room
// its nodes have.
//
// Thread rule: one thread.
#pragma once

#include <cstdint>

#include "runtime/base/node_ops.h"
#include "runtime/base/node_set.h"
#include "runtime/topology/ranking.h"

namespace heaptier {

// What a page wants of its target.
enum class Fit : std::uint8_t {
  kSmall,    // a page
  kWhole,    // a free block of 2 MiB
  kCompact,  // so much room that the kernel can be hoped to make such a block
};

class DrainTargets {
 public:
  // The tiers, and the nodes of them that pages may go to.
  void use(const Ranking& ranking, NodeSet open);
  NodeSet open() const { return open_; }
  // Sees how much room those have.
  void look(NodeOps& ops);
  // The node for a page that lies on `from`: of the same tier, else of the next ones down the
  // chain, else of those above, the one with the most room. What it takes is no room any more. -1:
  // it fits nowhere.
  int take(unsigned from, Fit fit);
  // For 2 MiB in small pages, on one node or on several.
  bool has_room() const;

 private:
  bool fits(unsigned node, Fit fit) const;

  const Ranking* ranking_ = nullptr;
  NodeSet open_;
  NodeRoom rooms_[kMaxNodes] = {};
};

}  // namespace heaptier
