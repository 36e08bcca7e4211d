#include "runtime/drain_targets.h"

#include <algorithm>

#include "runtime/node_tiers.h"
#include "runtime/tiers/node_mover.h"

namespace heaptier {

void DrainTargets::use(const Ranking& ranking, NodeSet open) {
  ranking_ = &ranking;
  open_ = open;
}

void DrainTargets::look(NodeOps& ops) {
  const NodeSet allowed = ops.allowed_nodes();  // cpusets change
  for (const unsigned node : open_) {
    if (!allowed.contains(node) || ops.room(node, &rooms_[node]).failed()) rooms_[node] = {};
  }
}

bool DrainTargets::fits(unsigned node, Fit fit) const {
  const NodeRoom& room = rooms_[node];
  switch (fit) {
    case Fit::kSmall:
      return room.pages > 0;
    case Fit::kWhole:
      return room.pages >= kPagesPerBlock && room.huge_blocks > 0;
    case Fit::kCompact:
      return room.pages >= NodeMover::kPlenty;
  }
  return false;
}

bool DrainTargets::has_room() const {
  std::uint64_t pages = 0;
  for (const unsigned node : open_) pages += rooms_[node].pages;
  return pages >= kPagesPerBlock;
}

int DrainTargets::take(unsigned from, Fit fit) {
  const unsigned count = ranking_->count;
  const unsigned own = ranking_->tier_of(from);
  int best = -1;
  const auto best_of = [&](unsigned t) {
    return roomiest(ranking_->tiers[t].nodes & open_, rooms_,
                    [&](unsigned node) { return fits(node, fit); });
  };
  // Its own and those below, then those above from the nearest on.
  for (unsigned t = own; t < count && best < 0; ++t) {
    best = best_of(t);
  }
  for (unsigned t = std::min(own, count); t-- > 0 && best < 0;) {
    best = best_of(t);
  }
  if (best < 0) return best;
  NodeRoom& room = rooms_[static_cast<unsigned>(best)];
  room.pages -= std::min<std::uint64_t>(room.pages, fit == Fit::kSmall ? 1 : kPagesPerBlock);
  if (fit == Fit::kWhole) --room.huge_blocks;
  room.huge_blocks = std::min(room.huge_blocks, room.pages / kPagesPerBlock);
  return best;
}

}  // namespace heaptier
