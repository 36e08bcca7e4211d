// Moving memory between nodes for real, on a machine with nodes 0 and 1 (DRAM), 2 (a CXL expander)
// and 3 (PMEM, movable memory only). To be run there alone and as root: it fills nodes up.
#include <fcntl.h>
#include <liburing.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <random>
#include <thread>

#include "tests/kernel/nodes/fixture.h"

namespace heaptier {
namespace {

using test::vmstat;
using testing::Backing;
using testing::move_blocks;
using testing::NodeMemory;
using testing::SplitCounts;
using Outcome = NodeMoveOutcome;

void write_file(const char* path, const char* text) {
  std::ofstream(path) << text << std::flush;
}

class Nodes : public ::testing::Test {
 protected:
  void SetUp() override {
    for (unsigned node = 0; node < 4; ++node) {
      NodeRoom room;
      if (ops_.room(node, &room).failed()) GTEST_SKIP() << "no node " << node;
    }
    // What moves here is moved by us; and nothing that is asked for goes elsewhere.
    write_file("/proc/sys/kernel/numa_balancing", "0");
    write_file("/sys/kernel/mm/numa/demotion_enabled", "0");
    write_file("/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs", "100000000");
    write_file("/proc/sys/vm/compaction_proactiveness", "0");
  }
  NodeRoom room(unsigned node) {
    NodeRoom room;
    EXPECT_TRUE(ops_.room(node, &room).ok());
    return room;
  }
  // Memory bound to the node until it has less than `blocks` huge pages to give.
  std::vector<std::unique_ptr<NodeMemory>> fill_up(unsigned node, std::uint64_t blocks,
                                                   Backing backing) {
    std::vector<std::unique_ptr<NodeMemory>> hog;
    while (room(node).huge_blocks > blocks) {
      hog.push_back(std::make_unique<NodeMemory>(1, backing));
      EXPECT_TRUE(hog.back()->bind(node));
      for (std::size_t i = 0; i < hog.back()->pages(); ++i) *hog.back()->ptr(i) = 1;
    }
    return hog;
  }

  KernelNodes& ops_ = kernel_node_ops();
  NodeMover mover_{ops_};
};

std::vector<std::size_t> all_on(unsigned node, std::size_t pages) {
  std::vector<std::size_t> count(5);
  count[node] = pages;
  return count;
}

TEST_F(Nodes, HugePagesMoveWholeUpAndDown) {
  const NodeMemory memory(8, Backing::kHugePages);
  ASSERT_TRUE(memory.bind(0));
  memory.fill();
  ASSERT_EQ(memory.huge_bytes(), memory.bytes());
  const SplitCounts before;
  const std::uint64_t moved_before = vmstat("thp_migration_success");
  std::uint64_t moves = 0;
  for (const unsigned node : {2u, 3u, 1u, 3u, 2u, 0u}) {
    EXPECT_EQ(move_blocks(mover_, memory, node), std::vector<int>(8, static_cast<int>(node)));
    EXPECT_EQ(memory.pages_by_node(), all_on(node, memory.pages()));
    EXPECT_EQ(memory.huge_bytes(), memory.bytes()) << "to node " << node;
    EXPECT_EQ(memory.first_wrong(), memory.pages());
    moves += 8;
  }
  EXPECT_EQ(SplitCounts(), before);
  EXPECT_EQ(vmstat("thp_migration_success"), moved_before + moves);
  EXPECT_EQ(mover_.total().of(Outcome::kMoved),
            (NodeMoveTally::Line{moves, moves * kPageblockSize}));
}

TEST_F(Nodes, AnyAddressOfAHugePageMovesAllOfIt) {
  const NodeMemory memory(1, Backing::kHugePages);
  ASSERT_TRUE(memory.bind(0));
  memory.fill();
  const PageMove list[] = {{memory.page(77) + 5, 2, true}, {memory.page(400), 2, true}};
  int status[2];
  (void)mover_.move(list, 2, status);
  EXPECT_EQ(status[0], 2);
  EXPECT_EQ(status[1], 2);
  EXPECT_EQ(memory.huge_bytes(), memory.bytes());
  EXPECT_EQ(memory.pages_by_node(), all_on(2, memory.pages()));
}

TEST_F(Nodes, PagesEndExactlyInThePatternsPlace) {
  const NodeMemory memory(4, Backing::kSmallPages);
  ASSERT_TRUE(memory.bind(0));
  memory.fill();
  // Weights 4:2:1, page by page; the memory is there already, on one node.
  constexpr unsigned kPattern[] = {0, 1, 0, 2, 1, 0, 0};
  std::vector<PageMove> list;
  for (std::size_t i = 0; i < memory.pages(); ++i)
    list.push_back({memory.page(i), kPattern[i % 7]});
  std::vector<int> status(list.size());
  (void)mover_.move(list.data(), list.size(), status.data());
  for (std::size_t i = 0; i < list.size(); ++i) {
    ASSERT_EQ(status[i], static_cast<int>(kPattern[i % 7])) << i;
  }
  std::vector<std::uintptr_t> at;
  for (const PageMove& m : list) at.push_back(m.page);
  std::vector<int> now(at.size());
  mover_.where(at.data(), at.size(), now.data());
  EXPECT_EQ(now, status);
  EXPECT_EQ(memory.first_wrong(), memory.pages());
}

TEST_F(Nodes, MixedOutcomesInOrder) {
  const NodeMemory memory(1, Backing::kSmallPages);
  const NodeMemory huge(3, Backing::kHugePages);
  ASSERT_TRUE(memory.bind(0) && huge.bind(0));
  memory.fill();
  huge.fill();
  ASSERT_EQ(huge.huge_bytes(), huge.bytes());

  // Absent; without a mapping; locked (moves); in a pipe by vmsplice (pinned); registered with
  // io_uring inside a huge page (pinned); there already; a node that is none; of another process.
  ASSERT_EQ(madvise(memory.ptr(1), kPageSize, MADV_DONTNEED), 0);
  ASSERT_EQ(munmap(memory.ptr(2), kPageSize), 0);
  ASSERT_EQ(mlock(memory.ptr(3), kPageSize), 0);
  ASSERT_EQ(mlock(huge.ptr(0), kPageblockSize), 0);
  int pipe_ends[2];
  ASSERT_EQ(pipe(pipe_ends), 0);
  const iovec spliced{memory.ptr(4), kPageSize};
  ASSERT_EQ(vmsplice(pipe_ends[1], &spliced, 1, 0), static_cast<ssize_t>(kPageSize));
  io_uring ring{};
  ASSERT_EQ(io_uring_queue_init(4, &ring, 0), 0);
  const iovec registered{huge.ptr(kPagesPerBlock + 9), kPageSize};
  ASSERT_EQ(io_uring_register_buffers(&ring, &registered, 1), 0);
  const PageMove first[] = {{memory.page(5), 2}};
  int first_status = 0;
  (void)mover_.move(first, 1, &first_status);
  ASSERT_EQ(first_status, 2);

  // Linux 6.1 makes no difference between an absent page and no mapping.
  const std::uintptr_t nothing = memory.page(1);
  int absent = 0;
  mover_.where(&nothing, 1, &absent);
  ASSERT_TRUE(absent == -ENOENT || absent == -EFAULT) << absent;

  const SplitCounts before;
  const std::vector<PageMove> list{
      {memory.page(0), 2},      {memory.page(1), 2},      {memory.page(2), 2},
      {memory.page(3), 2},      {memory.page(4), 2},      {memory.page(5), 2},
      {memory.page(6), 3},      {memory.page(7), 9},      {huge.block(0), 2, true},
      {huge.block(1), 2, true}, {huge.block(2), 3, true}, {memory.page(8), 1},
  };
  std::vector<int> status(list.size());
  const NodeMoveTally tally = mover_.move(list.data(), list.size(), status.data());
  EXPECT_EQ(status,
            (std::vector<int>{2, absent, -EFAULT, 2, -EBUSY, 2, 3, -ENODEV, 2, -EBUSY, 3, 1}));
  EXPECT_EQ(tally.of(Outcome::kPinned), (NodeMoveTally::Line{2, kPageSize + kPageblockSize}));
  EXPECT_EQ(tally.of(Outcome::kAlreadyThere).entries, 1u);
  EXPECT_EQ(tally.of(Outcome::kMoved).entries, 6u);
  EXPECT_EQ(huge.huge_bytes(), huge.bytes());
  SplitCounts after;
  // Since a huge page was pinned, one failure each time it was tried; and still none split.
  after.failed = before.failed;
  EXPECT_EQ(after, before);

  // Let go, they move.
  close(pipe_ends[0]);
  close(pipe_ends[1]);
  io_uring_queue_exit(&ring);
  const std::vector<PageMove> again{{memory.page(4), 2}, {huge.block(1), 2, true}};
  std::vector<int> again_status(2);
  for (int tries = 0; tries < 3000; ++tries) {  // the ring lets go when the kernel gets round to it
    (void)mover_.move(again.data(), 2, again_status.data());
    if (again_status[1] == 2) break;
    usleep(20'000);
  }
  EXPECT_EQ(again_status, (std::vector<int>{2, 2}));
  EXPECT_EQ(huge.huge_bytes(), huge.bytes());
  EXPECT_EQ(huge.first_wrong(), huge.pages());
  for (const std::size_t i : {0, 3, 4, 5, 6, 7, 8}) EXPECT_TRUE(memory.page_holds(i, 0)) << i;
}

TEST_F(Nodes, PagesOfAForkedChildStayUntilItIsGone) {
  const NodeMemory memory(1, Backing::kSmallPages);
  const NodeMemory huge(1, Backing::kHugePages);
  ASSERT_TRUE(memory.bind(0) && huge.bind(0));
  memory.fill();
  huge.fill();
  int hold[2];
  ASSERT_EQ(pipe(hold), 0);
  const pid_t child = fork();
  if (child == 0) {
    close(hold[1]);
    char c;
    (void)!read(hold[0], &c, 1);
    _exit(memory.first_wrong() == memory.pages() && huge.first_wrong() == huge.pages() ? 0 : 1);
  }
  close(hold[0]);
  const std::vector<PageMove> list{
      {memory.page(0), 2}, {huge.block(0), 3, true}, {memory.page(1), 2}};
  std::vector<int> status(3);
  const NodeMoveTally tally = mover_.move(list.data(), 3, status.data());
  EXPECT_EQ(status, std::vector<int>(3, -EACCES));
  EXPECT_EQ(tally.of(Outcome::kShared).entries, 3u);
  EXPECT_EQ(huge.huge_bytes(), huge.bytes());
  close(hold[1]);
  int ended = -1;
  ASSERT_EQ(waitpid(child, &ended, 0), child);
  EXPECT_EQ(ended, 0);
  (void)mover_.move(list.data(), 3, status.data());
  EXPECT_EQ(status, (std::vector<int>{2, 3, 2}));
  EXPECT_EQ(huge.huge_bytes(), huge.bytes());
}

// Node 3 has many pages free and no block; then compaction makes some.
TEST_F(Nodes, ATargetInPiecesIsRecognisedBeforeTrying) {
  const NodeMemory memory(2, Backing::kHugePages);
  ASSERT_TRUE(memory.bind(0));
  memory.fill();
  auto hog = fill_up(3, 0, Backing::kSmallPages);
  for (const auto& part : hog) {
    for (std::size_t i = 0; i < part->pages(); i += 2) {
      madvise(part->ptr(i), kPageSize, MADV_DONTNEED);
    }
  }
  // Blocks that are left whole, from below the watermark, are used up.
  const NodeRoom in_pieces = room(3);
  EXPECT_GT(in_pieces.pages, 20u * kPagesPerBlock);
  auto rest = fill_up(3, 0, Backing::kHugePages);
  ASSERT_EQ(room(3).huge_blocks, 0u);
  ASSERT_GT(room(3).pages, 10u * kPagesPerBlock);

  const SplitCounts before;
  EXPECT_EQ(move_blocks(mover_, memory, 3), std::vector<int>(2, -ENOSPC));
  EXPECT_EQ(SplitCounts(), before);
  EXPECT_EQ(memory.huge_bytes(), memory.bytes());
  EXPECT_EQ(memory.pages_by_node(), all_on(0, memory.pages()));
  // Small pages find room.
  const NodeMemory small(1, Backing::kSmallPages);
  ASSERT_TRUE(small.bind(0));
  small.fill();
  const PageMove list[] = {{small.page(0), 3}};
  int status = 0;
  (void)mover_.move(list, 1, &status);
  EXPECT_EQ(status, 3);

  // The kernel compacts within the call, if it is let.
  NodeMover direct(ops_, {.compact_directly = true});
  EXPECT_EQ(move_blocks(direct, memory, 3), std::vector<int>(2, 3));
  EXPECT_EQ(SplitCounts(), before);
  EXPECT_EQ(memory.huge_bytes(), memory.bytes());
  EXPECT_EQ(move_blocks(mover_, memory, 0), std::vector<int>(2, 0));

  const std::uint64_t blocks = room(3).huge_blocks;
  ASSERT_TRUE(ops_.compact(3).ok());
  if (room(3).huge_blocks < blocks + 2) GTEST_SKIP() << "the kernel did not compact";
  EXPECT_EQ(move_blocks(mover_, memory, 3), std::vector<int>(2, 3));
  EXPECT_EQ(SplitCounts(), before);
  EXPECT_EQ(memory.huge_bytes(), memory.bytes());
  EXPECT_EQ(memory.first_wrong(), memory.pages());
}

class Full : public Nodes, public ::testing::WithParamInterface<unsigned> {};

// The last huge pages that a node is said to have room for do fit, the ones after are not tried.
TEST_P(Full, ATargetThatFillsUpTakesWhatItSaidAndNoMore) {
  const unsigned node = GetParam();
  const NodeMemory memory(12, Backing::kHugePages);
  ASSERT_TRUE(memory.bind(0));
  memory.fill();
  ASSERT_EQ(memory.huge_bytes(), memory.bytes());
  const auto hog = fill_up(node, 5, Backing::kHugePages);
  const SplitCounts before;
  const std::uint64_t reclaimed = vmstat("pgsteal_kswapd") + vmstat("pgsteal_direct");
  const std::vector<int> status = move_blocks(mover_, memory, node);
  std::size_t moved = 0;
  for (const int s : status) {
    if (s == static_cast<int>(node)) {
      ++moved;
    } else {
      EXPECT_TRUE(s == -ENOMEM || s == -ENOSPC) << s;
    }
  }
  EXPECT_GE(moved, 3u);
  EXPECT_LE(moved, 8u);
  EXPECT_EQ(SplitCounts(), before);
  EXPECT_EQ(vmstat("pgsteal_kswapd") + vmstat("pgsteal_direct"), reclaimed);
  EXPECT_EQ(memory.huge_bytes(), memory.bytes());
  EXPECT_EQ(memory.pages_by_node()[node], moved * kPagesPerBlock);
  EXPECT_EQ(memory.first_wrong(), memory.pages());

  // Small pages take what is left, to the watermark and not beyond.
  const NodeMemory small(12, Backing::kSmallPages);
  ASSERT_TRUE(small.bind(0));
  small.fill();
  std::vector<PageMove> list;
  for (std::size_t i = 0; i < small.pages(); ++i) list.push_back({small.page(i), node});
  std::vector<int> small_status(list.size());
  const NodeMoveTally tally = mover_.move(list.data(), list.size(), small_status.data());
  EXPECT_GT(tally.of(Outcome::kTargetFull).entries, 0u);
  EXPECT_EQ(tally.of(Outcome::kTargetFull).entries + tally.of(Outcome::kMoved).entries,
            list.size());
  EXPECT_EQ(small.pages_by_node()[node], tally.of(Outcome::kMoved).entries);
  EXPECT_EQ(vmstat("pgsteal_kswapd") + vmstat("pgsteal_direct"), reclaimed);
  EXPECT_EQ(small.first_wrong(), small.pages());
}

INSTANTIATE_TEST_SUITE_P(Slow, Full, ::testing::Values(2u, 3u));

TEST_F(Nodes, TheRateHoldsOnARealClock) {
  const NodeMemory memory(8, Backing::kHugePages);
  ASSERT_TRUE(memory.bind(0));
  memory.fill();
  NodeMover slow(ops_, {}, RateLimit(10 * kPageblockSize, 2 * kPageblockSize));
  const Nanos start = ops_.now();
  std::size_t rounds = 0;
  for (std::vector<int> status(8, -1); status != std::vector<int>(8, 2); ++rounds) {
    status = move_blocks(slow, memory, 2);
    for (const int s : status) ASSERT_TRUE(s == 2 || s == -EAGAIN) << s;
    ops_.pause(slow.rate_limit().wait_for(kPageblockSize, ops_.now()));
    ASSERT_LT(rounds, 100u);
  }
  EXPECT_GE(ops_.now() - start, millis(600)) << "six of eight had to wait, 100 ms each";
  EXPECT_GT(rounds, 1u);
}

TEST_F(Nodes, PoliciesPlaceNewMemory) {
  const NodeAbilities can = ops_.find_abilities();
  EXPECT_TRUE(can.preferred_many);
  const NodeMemory memory(1, Backing::kSmallPages);
  const NodePolicy either{PolicyMode::kPreferredMany, 0, 0b1100};
  ASSERT_TRUE(ops_.set_policy(memory.page(0), memory.bytes(), either, false).ok());
  NodePolicy found;
  ASSERT_TRUE(ops_.policy_at(memory.page(9), &found).ok());
  EXPECT_EQ(found, either);
  memory.fill();
  const auto count = memory.pages_by_node();
  EXPECT_EQ(count[2] + count[3], memory.pages());
  // And MPOL_MF_MOVE brings along what is there.
  ASSERT_TRUE(
      ops_.set_policy(memory.page(0), memory.bytes(), {PolicyMode::kBind, 0, 0b10}, true).ok());
  EXPECT_EQ(memory.pages_by_node(), all_on(1, memory.pages()));
  if (!can.weighted_interleave) return;
  const NodeMemory weighted(1, Backing::kSmallPages);
  write_file("/sys/kernel/mm/mempolicy/weighted_interleave/node0", "3");
  write_file("/sys/kernel/mm/mempolicy/weighted_interleave/node2", "1");
  ASSERT_TRUE(ops_.set_policy(weighted.page(0), weighted.bytes(),
                              {PolicyMode::kWeightedInterleave, 0, 0b101}, false)
                  .ok());
  weighted.fill();
  EXPECT_EQ(weighted.pages_by_node(), (std::vector<std::size_t>{384, 0, 128, 0, 0}));
}

// Threads write and check every byte of their pages while all of them move without a pause, the
// kernel's own NUMA balancing among them.
TEST_F(Nodes, NoByteIsLostWhileEverythingMoves) {
  write_file("/proc/sys/kernel/numa_balancing", "1");
  write_file("/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs", "1000");
  write_file("/proc/sys/vm/compaction_proactiveness", "20");
  const NodeMemory huge(6, Backing::kHugePages);
  const NodeMemory small(2, Backing::kSmallPages);
  huge.fill();
  small.fill();
  constexpr unsigned kWriters = 3;
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> checked{0};
  std::atomic<std::uint64_t> wrong{0};
  std::vector<std::thread> writers;
  for (unsigned w = 0; w < kWriters; ++w) {
    writers.emplace_back([&, w] {
      std::mt19937 random(w);
      std::vector<std::uint64_t> version(huge.pages() + small.pages());
      while (!stop.load()) {
        // Every third page is this thread's: huge pages have several writers.
        const std::size_t n = random() % (version.size() / kWriters) * kWriters + w;
        const NodeMemory& memory = n < huge.pages() ? huge : small;
        const std::size_t page = n < huge.pages() ? n : n - huge.pages();
        if (!memory.page_holds(page, version[n])) wrong.fetch_add(1);
        memory.fill_page(page, ++version[n]);
        checked.fetch_add(1);
      }
      for (std::size_t n = w; n < version.size(); n += kWriters) {
        const NodeMemory& memory = n < huge.pages() ? huge : small;
        if (!memory.page_holds(n < huge.pages() ? n : n - huge.pages(), version[n]))
          wrong.fetch_add(1);
      }
    });
  }
  std::mt19937 random(99);
  std::vector<int> odd;
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (std::chrono::steady_clock::now() < end) {
    std::vector<PageMove> list;
    for (int i = 0; i < 100; ++i) {
      const auto node = static_cast<unsigned>(random() % 4);
      if (i % 10 == 0) {
        list.push_back({huge.block(random() % huge.blocks()), node, true});
      } else {
        list.push_back({small.page(random() % small.pages()), node});
      }
    }
    std::vector<int> status(list.size(), kStatusUnwritten);
    (void)mover_.move(list.data(), list.size(), status.data());
    for (std::size_t i = 0; i < list.size(); ++i) {
      // Balancing may have it isolated at the time: absent for a moment, or busy.
      const bool busy = status[i] == -EBUSY || status[i] == -ENOENT || status[i] == -EFAULT;
      if (status[i] != static_cast<int>(list[i].node) && !busy) odd.push_back(status[i]);
    }
  }
  stop.store(true);
  for (auto& writer : writers) writer.join();
  EXPECT_EQ(wrong.load(), 0u);
  EXPECT_EQ(odd, std::vector<int>{});
  const NodeMoveTally& total = mover_.total();
  EXPECT_GT(total.of(Outcome::kMoved).entries, 200u);
  EXPECT_GT(checked.load(), 1000u);
  EXPECT_EQ(huge.huge_bytes(), huge.bytes());
  std::printf("moved %llu, busy %llu, absent %llu; checked %llu pages\n",
              static_cast<unsigned long long>(total.of(Outcome::kMoved).entries),
              static_cast<unsigned long long>(total.of(Outcome::kPinned).entries),
              static_cast<unsigned long long>(total.of(Outcome::kAbsent).entries +
                                              total.of(Outcome::kNoMemory).entries),
              static_cast<unsigned long long>(checked.load()));
}

}  // namespace
}  // namespace heaptier
