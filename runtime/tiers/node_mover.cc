#include "runtime/tiers/node_mover.h"

#include <algorithm>

namespace heaptier {

const char* to_string(NodeMoveOutcome outcome) {
  constexpr const char* kNames[] = {"moved",     "already there", "absent",      "no memory",
                                    "shared",    "pinned",        "target full", "no room whole",
                                    "throttled", "bad target",    "failed"};
  static_assert(std::size(kNames) == kNodeMoveOutcomes);
  return kNames[static_cast<std::size_t>(outcome)];
}

NodeMoveOutcome outcome_of(int status) {
  if (status >= 0) return NodeMoveOutcome::kMoved;
  switch (-status) {
    case ENOENT:
      return NodeMoveOutcome::kAbsent;
    case EFAULT:
      return NodeMoveOutcome::kNoMemory;
    case EACCES:
      return NodeMoveOutcome::kShared;
    case EBUSY:
      return NodeMoveOutcome::kPinned;
    case ENOMEM:
      return NodeMoveOutcome::kTargetFull;
    case ENOSPC:
      return NodeMoveOutcome::kNoRoomWhole;
    case EAGAIN:
      return NodeMoveOutcome::kThrottled;
    case ENODEV:
      return NodeMoveOutcome::kBadTarget;
    default:
      return NodeMoveOutcome::kFailed;
  }
}

void NodeMoveTally::add(const NodeMoveTally& other) {
  for (std::size_t i = 0; i < lines.size(); ++i) {
    lines[i].entries += other.lines[i].entries;
    lines[i].bytes += other.lines[i].bytes;
  }
}

std::uint64_t NodeMoveTally::entries() const {
  std::uint64_t n = 0;
  for (const Line& line : lines) n += line.entries;
  return n;
}

NodeMover::NodeMover(NodeOps& ops, NodeMoverLimits limits, RateLimit rate)
    : ops_(ops), limits_(limits), rate_(rate) {
  limits_.tries = std::clamp(limits.tries, 1u, 100u);
}

NodeMoveTally NodeMover::move(const PageMove* moves, std::size_t count, int* status) {
  tally_ = {};
  throttled_ = false;
  for (std::size_t done = 0; done < count; done += count_) {
    moves_ = moves + done;
    status_ = status + done;
    count_ = std::min(count - done, kBatch);
    move_batch();
  }
  total_.add(tally_);
  return tally_;
}

void NodeMover::where(const std::uintptr_t* pages, std::size_t count, int* status) {
  for (std::size_t done = 0; done < count;) {
    const std::size_t n = std::min(count - done, kBatch);
    std::fill_n(status + done, n, kStatusUnwritten);
    const Errno e = ops_.where(pages + done, status + done, n);
    for (std::size_t i = done; i < done + n; ++i) {
      if (status[i] == kStatusUnwritten) status[i] = e.failed() ? -e.code : -EIO;
    }
    done += n;
  }
}

void NodeMover::finish(std::size_t i, NodeMoveOutcome outcome, int status) {
  wait_[i] = Wait::kNo;
  status_[i] = status;
  tally_.add(outcome, moves_[i].bytes());
}

void NodeMover::finish_error(std::size_t i, int code) {
  finish(i, outcome_of(-code), -code);
}

void NodeMover::move_batch() {
  look();
  do {
    unsigned node = 0;
    while (next_target(&node)) {
      if (admit(node)) call(node);
    }
  } while (wake_waiting() || look_again());
}

// Asks where the pages are. What is absent or there already needs no room, no token and no call
// that isolates pages.
void NodeMover::look() {
  for (std::size_t i = 0; i < count_; ++i) pages_[i] = moves_[i].page;
  where(pages_.data(), count_, results_.data());
  for (std::size_t i = 0; i < count_; ++i) {
    tried_[i] = 0;
    missed_[i] = false;
    see(i, results_[i]);
  }
}

// A page that the kernel itself migrates at this moment (NUMA balancing, compaction) looks absent,
// to Linux 6.1 like no memory at all. So what was absent is looked for once more when the rest is
// done. True: some turned up.
bool NodeMover::look_again() {
  std::size_t n = 0;
  for (std::size_t i = 0; i < count_; ++i) {
    if (wait_[i] != Wait::kAbsent) continue;
    which_[n] = static_cast<std::uint16_t>(i);
    pages_[n++] = moves_[i].page;
  }
  if (n == 0) return false;
  where(pages_.data(), n, results_.data());
  bool any = false;
  for (std::size_t k = 0; k < n; ++k) {
    see(which_[k], results_[k]);
    any = any || wait_[which_[k]] == Wait::kFresh;
  }
  return any;
}

// What to do about a page that is at `at`, a node or -errno.
void NodeMover::see(std::size_t i, int at) {
  if ((at == -ENOENT || at == -EFAULT) && !missed_[i]) {
    missed_[i] = true;
    wait_[i] = Wait::kAbsent;
  } else if (at < 0) {
    finish_error(i, -at);
  } else if (static_cast<unsigned>(at) == moves_[i].node) {
    finish(i, NodeMoveOutcome::kAlreadyThere, at);
  } else {
    wait_[i] = Wait::kFresh;
  }
}

bool NodeMover::next_target(unsigned* node) const {
  for (std::size_t i = 0; i < count_; ++i) {
    if (wait_[i] != Wait::kFresh) continue;
    *node = moves_[i].node;
    return true;
  }
  return false;
}

// Gathers the next call: pages for `node` for which there is room and rate. Those for which there
// is none get their status. One target a call: what the kernel says of a call then is true of each
// page in it, and pages for alternating nodes cost two calls instead of a flush each.
bool NodeMover::admit(unsigned node) {
  calling_ = 0;
  NodeRoom room;
  const Errno known = ops_.room(node, &room);
  const Nanos now = ops_.now();
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < count_ && bytes < limits_.call_bytes; ++i) {
    const PageMove& m = moves_[i];
    if (wait_[i] != Wait::kFresh || m.node != node) continue;
    if (known.failed()) {
      // Nothing known of the target is no leave to try: a try that fails costs the huge page.
      finish_error(i, known.code);
      continue;
    }
    const std::uint64_t pages = m.bytes() / kPageSize;
    if (room.pages < pages) {
      finish_error(i, ENOMEM);
      continue;
    }
    const bool compacts = limits_.compact_directly && room.pages >= kPlenty;
    if (m.huge && room.huge_blocks == 0 && !compacts) {
      finish_error(i, ENOSPC);
      continue;
    }
    // Once one had to stay for the rate's sake, smaller ones do not pass it by: else small pages
    // would starve the huge ones.
    if (throttled_ || !rate_.take(m.bytes(), now)) {
      throttled_ = true;
      finish_error(i, EAGAIN);
      continue;
    }
    room.pages -= pages;
    if (m.huge && room.huge_blocks > 0) --room.huge_blocks;
    room.huge_blocks = std::min(room.huge_blocks, room.pages / kPagesPerBlock);
    bytes += m.bytes();
    which_[calling_] = static_cast<std::uint16_t>(i);
    pages_[calling_] = m.page;
    nodes_[calling_] = static_cast<int>(node);
    results_[calling_] = kStatusUnwritten;
    ++calling_;
  }
  return calling_ > 0;
}

void NodeMover::call(unsigned node) {
  std::size_t unmoved = 0;
  const Errno error =
      ops_.move_pages(pages_.data(), nodes_.data(), results_.data(), calling_, &unmoved);
  for (std::size_t k = 0; k < calling_; ++k) {
    const std::size_t i = which_[k];
    const int result = results_[k];
    if (result == kStatusUnwritten) continue;
    if (result >= 0) {
      finish(i, NodeMoveOutcome::kMoved, result);
      continue;
    }
    rate_.give_back(moves_[i].bytes());
    if (result == -EBUSY) {
      // Somebody else had it isolated: khugepaged, reclaim, or this list by another address.
      ++tried_[i];
      wait_[i] = Wait::kAgain;
    } else {
      see(i, result);
    }
  }
  settle_unwritten(error, node);
}

// The slots that the kernel left as they were, some of them of pages that did move. It stops at the
// first run of pages (between two slots that it wrote) of which one failed; what comes after was
// not tried. Every call settles a page or counts a try of one, so this ends.
void NodeMover::settle_unwritten(Errno error, unsigned node) {
  std::size_t n = 0;
  for (std::size_t k = 0; k < calling_; ++k) {
    if (results_[k] != kStatusUnwritten) continue;
    unwritten_[n] = static_cast<std::uint16_t>(k);
    pages_[n++] = pages_[k];
  }
  if (n == 0) return;
  where(pages_.data(), n, nodes_.data());
  bool in_run = true;
  for (std::size_t u = 0; u < n; ++u) {
    const std::size_t i = which_[unwritten_[u]];
    if (u > 0 && unwritten_[u] != unwritten_[u - 1] + 1) in_run = false;
    const int at = nodes_[u];
    if (at >= 0 && static_cast<unsigned>(at) == node) {
      finish(i, NodeMoveOutcome::kMoved, at);
      continue;
    }
    rate_.give_back(moves_[i].bytes());
    if (at < 0) {
      see(i, at);  // it went away meanwhile, or nobody can say any more
    } else if (error.failed() && error.code != EAGAIN && error.code != EINTR) {
      // For the whole call EACCES means the cpuset, for a page that it is shared.
      finish_error(i, error.code == EACCES ? ENODEV : error.code);
    } else if (in_run || error.failed()) {
      ++tried_[i];
      wait_[i] = Wait::kAgain;
    }
    // The others were not tried: they stay as they are, for the next call.
  }
}

// Lets the pages that did not move wait, then tries them again. False: none is left.
bool NodeMover::wake_waiting() {
  unsigned most = 0;
  bool any = false;
  for (std::size_t i = 0; i < count_; ++i) {
    if (wait_[i] != Wait::kAgain) continue;
    if (tried_[i] >= limits_.tries) {
      finish_error(i, EBUSY);
      continue;
    }
    any = true;
    most = std::max<unsigned>(most, tried_[i]);
    wait_[i] = Wait::kFresh;
  }
  if (any && limits_.pause.v > 0) {
    ops_.pause({limits_.pause.v << std::min(most - 1, 10u)});
  }
  return any;
}

}  // namespace heaptier
