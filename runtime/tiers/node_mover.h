// Moves pages between memory nodes: move_pages(2) made dependable. One status for each page, in
// order, whatever the kernel does half-way; a huge page in one piece or not at all; a full target
// is recognised before anything is tried, because a try that fails splits the huge page.
//
// What the caller says of a page is believed: an entry with `huge` set stands for the whole 2 MiB
// block around its address. A huge page passed as a small one moves whole, too, but room is checked
// for 4 KiB only, and a target without room then splits it.
//
// Thread rule: a mover belongs to one thread (several threads: one each). It allocates nothing,
// takes no lock, touches none of the memory it moves; other threads may write, free and fork
// meanwhile. Moving takes the time of copying; between tries it sleeps (NodeMoverLimits), so a
// fault handler uses one with tries = 1.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "runtime/base/node_ops.h"
#include "runtime/tiers/rate_limit.h"

namespace heaptier {

struct PageMove {
  std::uintptr_t page = 0;  // any address within
  unsigned node = 0;        // where to
  bool huge = false;
  std::uint64_t bytes() const { return huge ? kPageblockSize : kPageSize; }
};

// What became of a page, and the status that says so.
enum class NodeMoveOutcome : std::uint8_t {
  kMoved,         // the target node
  kAlreadyThere,  // the target node
  kAbsent,        // -ENOENT: untouched, freed, parked or in a store (up to Linux 6.1: kNoMemory)
  kNoMemory,      // -EFAULT: nothing is mapped there, or the shared zero page is
  kShared,        // -EACCES: other processes map it, too (a forked child)
  kPinned,        // -EBUSY: did not move however often it was tried (pinned, or in constant use)
  kTargetFull,    // -ENOMEM: the target has no page above its watermark
  kNoRoomWhole,   // -ENOSPC: it has the pages, but no free block of 2 MiB: compact it, or split
  kThrottled,     // -EAGAIN: not tried, the rate limit is used up
  kBadTarget,     // -ENODEV: no such node, no memory on it, or outside the cpuset
  kFailed,        // any other -errno: the call itself (ENOSYS, EPERM ...)
};
inline constexpr std::size_t kNodeMoveOutcomes = 11;
const char* to_string(NodeMoveOutcome outcome);
// The reason in a status that move() gave; kMoved for every node number.
NodeMoveOutcome outcome_of(int status);

// How many entries and bytes came to which end.
struct NodeMoveTally {
  struct Line {
    std::uint64_t entries = 0;
    std::uint64_t bytes = 0;
    friend bool operator==(const Line&, const Line&) = default;
  };
  std::array<Line, kNodeMoveOutcomes> lines{};

  void add(NodeMoveOutcome outcome, std::uint64_t bytes) {
    Line& line = lines[static_cast<std::size_t>(outcome)];
    ++line.entries;
    line.bytes += bytes;
  }
  const Line& of(NodeMoveOutcome outcome) const { return lines[static_cast<std::size_t>(outcome)]; }
  void add(const NodeMoveTally& other);
  std::uint64_t entries() const;
};

struct NodeMoverLimits {
  // A page that would not move is tried so often in all. The kernel itself tries ten times within
  // a call; what it does not get then is pinned or waits for I/O.
  unsigned tries = 3;
  // Sleep before the second try, twice as long before each further one; once for all pages that
  // wait.
  Nanos pause = micros(200);
  // At most so much in one call: while they are copied, touches of these pages wait.
  std::uint64_t call_bytes = std::uint64_t{16} << 20;
  // A target that has pages in plenty but no free block (kPlenty) is tried all the same, and the
  // kernel compacts it within the call: milliseconds, and the only compaction that takes no
  // privilege. Seen to succeed where what lies in between is movable; where it fails, the huge page
  // is split. So only for those who would split it next.
  bool compact_directly = false;
};

class NodeMover {
 public:
  // How many entries are looked at together. 512: one pageblock of small pages; the kernel, too,
  // unmaps at most so many at once.
  static constexpr std::size_t kBatch = 512;

  // For limits.compact_directly: pages above the watermark. Below some blocks' worth compaction
  // has nothing to work with.
  static constexpr std::uint64_t kPlenty = 16 * kPagesPerBlock;

  explicit NodeMover(NodeOps& ops, NodeMoverLimits limits = {}, RateLimit rate = {});
  NodeMover(const NodeMover&) = delete;
  NodeMover& operator=(const NodeMover&) = delete;

  // Moves every page to its node. status[i]: where page i now is (its node), or -errno as
  // NodeMoveOutcome lists them: then it is where it was. Every slot is written. One address a huge
  // page: a second one in the same list finds it there already or busy. Returns what became of
  // this list. Order within the list: targets in the order of their first page, each with its pages
  // in order.
  NodeMoveTally move(const PageMove* moves, std::size_t count, int* status);

  // Where pages are: a node, -ENOENT, -EFAULT, or another -errno for all when the call failed.
  void where(const std::uintptr_t* pages, std::size_t count, int* status);

  RateLimit& rate_limit() { return rate_; }
  // Since the mover was made.
  const NodeMoveTally& total() const { return total_; }

 private:
  enum class Wait : std::uint8_t {
    kNo,      // has its status
    kFresh,   // to be tried
    kAgain,   // did not move: once more, later
    kAbsent,  // was not there: a second look, later
  };

  void move_batch();
  void look();
  bool look_again();
  void see(std::size_t i, int at);
  bool next_target(unsigned* node) const;
  bool admit(unsigned node);
  void call(unsigned node);
  void settle_unwritten(Errno error, unsigned node);
  void finish(std::size_t i, NodeMoveOutcome outcome, int status);
  void finish_error(std::size_t i, int code);
  bool wake_waiting();

  NodeOps& ops_;
  NodeMoverLimits limits_;
  RateLimit rate_;
  NodeMoveTally total_;
  NodeMoveTally tally_;     // of the list at hand
  bool throttled_ = false;  // within the list at hand

  // The batch at hand.
  const PageMove* moves_ = nullptr;
  int* status_ = nullptr;
  std::size_t count_ = 0;
  std::array<Wait, kBatch> wait_{};
  std::array<std::uint8_t, kBatch> tried_{};
  std::array<bool, kBatch> missed_{};  // it was absent once

  // The call at hand: entry which_[k] of the batch is its k-th page.
  std::size_t calling_ = 0;
  std::array<std::uint16_t, kBatch> which_{};
  std::array<std::uintptr_t, kBatch> pages_{};
  std::array<int, kBatch> nodes_{};
  std::array<int, kBatch> results_{};
  // The unwritten ones of it, and where they are: positions in which_.
  std::array<std::uint16_t, kBatch> unwritten_{};
};

}  // namespace heaptier
