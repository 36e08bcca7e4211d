// Moving by hand in a chain of two tiers of nodes and a store, under the library: each page where
// it was sent, huge ones whole, a status for each that says the truth, and no byte lost. Run in a
// machine with a fast node 0 and a slow node 1.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <heaptier/heaptier.hpp>
#include <memory>
#include <random>
#include <string>
#include <thread>

#include "runtime/os/kernel_nodes.h"
#include "tests/support/huge_block.h"
#include "tests/support/managed.h"
#include "tests/support/process.h"
#include "tests/support/vmstat.h"

namespace heaptier::test {
namespace {

constexpr int kFast = 0;
constexpr int kSlow = 1;
constexpr int kStore = 2;

std::vector<void*> pages_in(const Area& area, std::size_t step = kPage) {
  std::vector<void*> list;
  for (std::size_t at = 0; at < area.size(); at += step) list.push_back(area.at(at));
  return list;
}

std::vector<int> move_all(const std::vector<void*>& pages, int tier, unsigned flags = 0,
                          int* answer = nullptr) {
  const std::vector<int> tiers(pages.size(), tier);
  std::vector<int> status(pages.size(), 12345);
  const int n = heaptier::move(pages, tiers, status, flags);
  if (answer != nullptr) *answer = n;
  return status;
}

std::size_t count_of(const std::vector<int>& list, int value) {
  return static_cast<std::size_t>(std::count(list.begin(), list.end(), value));
}

Bytes bytes(const Area& area) {
  return {reinterpret_cast<const std::byte*>(area.data()), area.size()};
}

// How many of the area's pages are on the node, wherever they are mapped.
std::size_t on_node(const Area& area, int node) {
  std::vector<int> nodes(area.size() / kPage);
  EXPECT_EQ(heaptier::nodes(bytes(area), nodes), static_cast<int>(nodes.size()));
  return count_of(nodes, node);
}

// Huge pages are moved whole: none of the machine's is split, all of the area's are there
// afterwards.
class Whole {
 public:
  explicit Whole(const Area& area) : area_(area) {}
  std::size_t blocks() const { return huge_blocks(area_.data(), area_.size()); }
  void expect() const {
    EXPECT_EQ(blocks(), blocks_);
    EXPECT_EQ(vmstat("thp_split_page"), split_);
    EXPECT_EQ(vmstat("thp_migration_split"), split_in_migration_);
    EXPECT_EQ(vmstat("thp_migration_fail"), failed_);
  }

 private:
  const Area& area_;
  std::size_t blocks_ = blocks();
  std::uint64_t split_ = vmstat("thp_split_page");
  std::uint64_t split_in_migration_ = vmstat("thp_migration_split");
  std::uint64_t failed_ = vmstat("thp_migration_fail");
};

// A pageblock of small pages that is not heaptier's, from one node.
class Hog {
 public:
  explicit Hog(PolicyMode mode, int advice = MADV_NOHUGEPAGE) {
    whole_ = static_cast<char*>(mmap(nullptr, 2 * kPageblock, PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    const auto start = reinterpret_cast<std::uintptr_t>(whole_);
    at_ = whole_ + (round_up(start, kPageblock) - start);
    madvise(at_, kPageblock, advice);
    const NodePolicy there{mode, 0, 1u << kSlow};
    EXPECT_TRUE(kernel_node_ops()
                    .set_policy(reinterpret_cast<std::uintptr_t>(at_), kPageblock, there, false)
                    .ok());
  }
  ~Hog() { munmap(whole_, 2 * kPageblock); }
  Hog(const Hog&) = delete;
  Hog& operator=(const Hog&) = delete;
  void take(std::size_t page) { *at(page) = 1; }
  void give(std::size_t page) { madvise(at(page), kPage, MADV_DONTNEED); }

 private:
  char* at(std::size_t page) { return at_ + page * kPage; }
  char* whole_;
  char* at_;
};

NodeRoom slow_room() {
  NodeRoom room;
  EXPECT_TRUE(kernel_node_ops().room(kSlow, &room).ok());
  return room;
}

using Hogs = std::vector<std::unique_ptr<Hog>>;

// Until the slow node has nothing to give any more; a CPU may still give back what it had for
// itself.
void fill_rest_of_slow_node(Hogs* hogs) {
  for (std::size_t i = 0; i < 4 * kPagesPerBlock && slow_room().pages > 0; ++i) {
    if (i % kPagesPerBlock == 0) hogs->push_back(std::make_unique<Hog>(PolicyMode::kPreferred));
    hogs->back()->take(i % kPagesPerBlock);
  }
}

Hogs fill_slow_node() {
  Hogs hogs;
  while (slow_room().pages > 2 * kPagesPerBlock) {
    hogs.push_back(std::make_unique<Hog>(PolicyMode::kBind));
    for (std::size_t i = 0; i < kPagesPerBlock; ++i) hogs.back()->take(i);
  }
  fill_rest_of_slow_node(&hogs);
  return hogs;
}

template <class Done>
bool soon(Done done) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!done()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

// Memory that is not used again: what one test has put on the slow node is not what the next one
// gets.
struct Fresh : Area {
  using Area::Area;
  ~Fresh() { leak(); }
};

class Hand : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (!tiered() || heaptier::tiers() != 3) GTEST_SKIP() << "no chain of nodes";
    ASSERT_EQ(heaptier::tier_named("dram"), kFast);
    ASSERT_EQ(heaptier::tier_named("cxl"), kSlow);
    ASSERT_EQ(heaptier::tier_named("zpool"), kStore);
    prctl(PR_SET_THP_DISABLE, huge() ? 0 : 1, 0, 0, 0);
  }
  static bool huge() { return GetParam(); }
  // One address for what moves as one.
  static std::size_t step() { return huge() ? kPageblock : kPage; }
  const std::size_t size_ = 4 * kPageblock;
};

TEST_P(Hand, MovesBothWays) {
  Fresh area(size_, 21);
  const Whole whole(area);
  ASSERT_GE(whole.blocks(), huge() ? area.size() / kPageblock : 0);
  const auto list = pages_in(area, step());
  for (int round = 0; round < 3; ++round) {
    for (const int tier : {kSlow, kFast}) {
      int answer = 0;
      EXPECT_EQ(count_of(move_all(list, tier, 0, &answer), tier), list.size()) << "to " << tier;
      EXPECT_EQ(answer, static_cast<int>(list.size()));
      EXPECT_EQ(on_node(area, tier), size_ / kPage) << "to " << tier;
      EXPECT_TRUE(area.holds());
    }
  }
  // All addresses of what may be huge.
  const auto all = pages_in(area);
  EXPECT_EQ(count_of(move_all(all, kSlow), kSlow), all.size());
  std::vector<int> status(all.size());
  EXPECT_EQ(heaptier::where(std::span<void* const>(all), status), static_cast<int>(all.size()));
  EXPECT_EQ(count_of(status, kSlow), all.size());
  EXPECT_EQ(on_node(area, kSlow), size_ / kPage);
  EXPECT_TRUE(area.holds());
  if (huge()) whole.expect();
  EXPECT_GT(counter("nodes_asked"), 0);
  note_away(1);
}

TEST_P(Hand, ToTheStoreAndFromThere) {
  Fresh area(kPageblock, 22);
  const auto list = pages_in(area, step());
  const auto all = pages_in(area);
  for (const int tier : {kSlow, kFast}) {
    // The first time in one piece.
    const auto& parts = tier == kSlow ? list : all;
    EXPECT_EQ(count_of(move_all(parts, kStore), kStore), parts.size());
    EXPECT_EQ(places_of(area.data(), area.size()), std::string(512, 's'));
    EXPECT_EQ(on_node(area, HEAPTIER_NODE_STORED), all.size());
    EXPECT_EQ(count_of(move_all(all, tier), tier), all.size());
    EXPECT_EQ(on_node(area, tier), all.size());
    EXPECT_TRUE(area.holds());
  }
  note_away(1);
}

TEST_P(Hand, EachHasAStatusOfItsOwn) {
  Fresh area(kPageblock, 23);
  Fresh pinned(kPageblock, 24);
  Fresh held(kPageblock, 25);
  Fresh locked(kPageblock, 26);
  Fresh shared(kPageblock, 27);
  ASSERT_EQ(mlock(locked.data(), kPageblock), 0);
  ASSERT_EQ(heaptier::advise(bytes(held), HEAPTIER_PIN), 0);
  int wait_here[2];
  ASSERT_EQ(pipe2(wait_here, O_CLOEXEC), 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    close(wait_here[1]);
    char end;
    _exit(read(wait_here[0], &end, 1) == 0 &&
                  first_wrong(shared.data(), shared.size(), shared.seed()) == shared.size()
              ? 0
              : 1);
  }
  close(wait_here[0]);
  // Written by the parent since: its own again. Everything else is shared with the child, but what
  // it shares as a huge page is only mapped in pieces.
  for (const Area* own : {&area, &pinned, &locked}) fill(own->data(), own->size(), own->seed());
  int pipe_ends[2];
  ASSERT_EQ(pipe2(pipe_ends, O_CLOEXEC), 0);
  const iovec spliced{pinned.at(9 * kPage), kPage};
  ASSERT_EQ(vmsplice(pipe_ends[1], &spliced, 1, 0), static_cast<ssize_t>(kPage));
  auto* const untouched = static_cast<unsigned char*>(std::aligned_alloc(kPageblock, kPageblock));
  madvise(untouched, kPageblock, MADV_DONTNEED);
  int local = 0;

  const void* const list[] = {area.at(0),
                              area.at(5),
                              pinned.at(9 * kPage),
                              held.at(3 * kPage),
                              untouched,
                              locked.at(7 * kPage),
                              shared.at(4 * kPage),
                              &local,
                              nullptr,
                              area.at(0),
                              area.at(0),
                              area.at(0),
                              reinterpret_cast<void*>(~0ul)};
  const int tiers[] = {kSlow, kSlow, kSlow, kSlow, kSlow, kSlow, kSlow,
                       kSlow, kFast, kFast, 77,    -1,    kSlow};
  int status[std::size(list)];
  // vmsplice's reference fails a migration as a pin does.
  EXPECT_EQ(
      heaptier::move(std::span(const_cast<void* const*>(list), std::size(list)), tiers, status), 4);
  EXPECT_EQ(status[0], kSlow);
  EXPECT_EQ(status[1], kSlow) << "the same page";
  EXPECT_EQ(status[2], -EBUSY);
  EXPECT_EQ(status[3], -EPERM);
  EXPECT_EQ(status[4], -ENOENT);
  EXPECT_EQ(status[5], kSlow) << "locked memory moves between nodes";
  EXPECT_EQ(status[6], -EACCES);
  EXPECT_EQ(status[7], -EINVAL) << "the stack";
  EXPECT_EQ(status[8], -EINVAL) << "NULL";
  EXPECT_EQ(status[9], kFast) << "once more, back";
  EXPECT_EQ(status[10], -EINVAL);
  EXPECT_EQ(status[11], -EINVAL);
  EXPECT_EQ(status[12], -EINVAL);
  EXPECT_EQ(move_all({locked.at(0)}, kStore)[0], -EPERM);
  EXPECT_EQ(move_all({shared.at(0)}, kStore)[0], -EBUSY);
  for (const Area* each : {&area, &pinned, &held, &locked, &shared}) EXPECT_TRUE(each->holds());
  close(wait_here[1]);
  EXPECT_TRUE(exited(wait_for(child, 60), 0));
  // What held them is gone.
  close(pipe_ends[0]);
  close(pipe_ends[1]);
  EXPECT_EQ(heaptier::advise(bytes(held), HEAPTIER_UNPIN), 0);
  EXPECT_EQ(move_all({pinned.at(9 * kPage), held.at(0), shared.at(0)}, kSlow),
            (std::vector<int>{kSlow, kSlow, kSlow}));
  ASSERT_EQ(munlock(locked.data(), kPageblock), 0);
  std::free(untouched);
  note_away(1);
}

TEST_P(Hand, LazilyAtTheFirstTouch) {
  Fresh area(size_, 28);
  const Whole whole(area);
  ASSERT_GE(whole.blocks(), huge() ? area.size() / kPageblock : 0);
  const std::uint64_t swapped = vmstat("pswpout");
  for (const int tier : {kSlow, kFast, kSlow}) {
    const std::size_t pages = size_ / kPage;
    EXPECT_EQ(heaptier::move_lazy(bytes(area), tier), static_cast<int>(pages));
    EXPECT_EQ(heaptier::move_lazy(bytes(area), tier), static_cast<int>(pages)) << "and again";
    EXPECT_EQ(places_of(area.data(), area.size()), std::string(pages, 'p'));
    EXPECT_EQ(on_node(area, tier), 0u) << "nothing moves yet";
    // One touch from a thread: home at once, on the target soon.
    std::thread([&] { EXPECT_TRUE(area.holds(3 * kPage + 10, 3 * kPage + 20)); }).join();
    const std::string places = places_of(area.data(), area.size());
    EXPECT_EQ(places[3], '.');
    EXPECT_EQ(places.substr(512, 512), std::string(512, 'p'));
    const std::size_t moves = huge() ? 512 : 1;
    EXPECT_TRUE(soon([&] { return on_node(area, tier) >= moves; })) << on_node(area, tier);
    EXPECT_EQ(on_node(area, tier), moves);
    EXPECT_TRUE(area.holds());
    EXPECT_TRUE(soon([&] { return on_node(area, tier) == pages; })) << on_node(area, tier);
    EXPECT_TRUE(area.holds());
    EXPECT_EQ(heaptier::move_lazy(bytes(area), tier), 0) << "they are there";
  }
  EXPECT_EQ(vmstat("pswpout"), swapped);
  if (huge()) whole.expect();
  EXPECT_EQ(heaptier::move_lazy(bytes(area), kStore), -EINVAL);
  EXPECT_EQ(heaptier::move_lazy(bytes(area), 3), -EINVAL);
  note_away(1);
}

TEST_P(Hand, AWishEndsWithThePageAndLivesInAChild) {
  Fresh area(kPageblock, 29);
  ASSERT_EQ(heaptier::move_lazy(bytes(area), kSlow), 512);
  EXPECT_TRUE(exited(
      in_child(
          [&] { return first_wrong(area.data(), area.size(), area.seed()) == area.size() ? 0 : 1; },
          60),
      0));
  EXPECT_TRUE(area.holds());
  EXPECT_TRUE(soon([&] { return on_node(area, kSlow) == 512; })) << on_node(area, kSlow);
  ASSERT_EQ(move_all(pages_in(area), kFast), std::vector<int>(512, kFast));
  ASSERT_EQ(heaptier::move_lazy(bytes(area), kSlow), 512);
  madvise(area.data(), kPageblock, MADV_DONTNEED);
  fill(area.data(), area.size(), area.seed());
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_EQ(on_node(area, kSlow), 0u) << "new content";
  EXPECT_TRUE(area.holds());
  note_away(1);
}

TEST_P(Hand, AFullTargetRefusesAndTakesNothingApart) {
  Fresh area(4 * kPageblock, 30);
  const Whole whole(area);
  ASSERT_GE(whole.blocks(), huge() ? area.size() / kPageblock : 0);
  const auto list = pages_in(area, step());
  {
    Hogs hogs = fill_slow_node();
    ASSERT_GT(hogs.size(), 50u);
    if (huge()) {
      auto status = move_all(list, kSlow);
      for (int tries = 0; tries < 10 && count_of(status, -ENOSPC) > 0; ++tries) {
        fill_rest_of_slow_node(&hogs);
        status = move_all(list, kSlow);
      }
      EXPECT_EQ(count_of(status, -ENOMEM), list.size());
    } else {
      EXPECT_GE(count_of(move_all(list, kSlow), -ENOMEM), list.size() / 2);
    }
    if (huge()) whole.expect();
    // Pages, but no block. Many: each CPU keeps thousands of what it gets back to itself.
    for (const auto& hog : hogs) {
      for (std::size_t k = 0; k < kPagesPerBlock; k += 2) hog->give(k);
    }
    std::vector<std::unique_ptr<Hog>> blocks;
    while (slow_room().huge_blocks > 0 && blocks.size() < 100) {
      blocks.push_back(std::make_unique<Hog>(PolicyMode::kBind, MADV_HUGEPAGE));
      blocks.back()->take(0);
    }
    if (huge()) {
      const Whole with_blocks(area);
      // But what the kernel may put together at the last moment.
      const auto status = move_all(list, kSlow);
      EXPECT_GE(count_of(status, -ENOSPC), 1u);
      EXPECT_EQ(count_of(status, -ENOSPC) + count_of(status, kSlow), list.size());
      with_blocks.expect();
      EXPECT_EQ(count_of(move_all(list, kSlow, HEAPTIER_MOVE_SPLIT), kSlow), list.size());
      EXPECT_EQ(on_node(area, kSlow), area.size() / kPage);
    } else {
      EXPECT_EQ(count_of(move_all(list, kSlow), kSlow), list.size());
    }
    EXPECT_TRUE(area.holds());
  }
  EXPECT_EQ(count_of(move_all(list, kFast), kFast), list.size());
  EXPECT_TRUE(area.holds());
  note_away(1);
}

TEST_P(Hand, AdviceInAChainOfNodes) {
  Fresh area(size_, 31);
  const int pages = static_cast<int>(size_ / kPage);
  EXPECT_EQ(heaptier::advise(bytes(area), HEAPTIER_COLD), pages);
  EXPECT_EQ(on_node(area, kSlow), size_ / kPage);
  EXPECT_EQ(heaptier::advise(bytes(area), HEAPTIER_HOT), pages);
  EXPECT_EQ(on_node(area, kFast), size_ / kPage);
  EXPECT_EQ(heaptier::advise(bytes(area), HEAPTIER_COLD), pages);
  EXPECT_EQ(heaptier::advise(bytes(area), HEAPTIER_COLD), pages) << "and into the store";
  EXPECT_EQ(on_node(area, HEAPTIER_NODE_STORED), size_ / kPage);
  EXPECT_GE(heaptier::advise(bytes(area), HEAPTIER_HOT), pages);
  EXPECT_EQ(on_node(area, kFast), size_ / kPage);
  EXPECT_EQ(heaptier::advise(bytes(area), HEAPTIER_COLD), pages);
  {
    const Pin pin(bytes(area));
    EXPECT_TRUE(pin);
    EXPECT_EQ(on_node(area, kFast), size_ / kPage) << "what is pinned is to be fast";
    EXPECT_EQ(heaptier::advise(bytes(area), HEAPTIER_COLD), 0);
    EXPECT_EQ(heaptier::move_lazy(bytes(area), kSlow), 0);
  }
  EXPECT_EQ(heaptier::advise(bytes(area), HEAPTIER_COLD), pages);
  EXPECT_TRUE(area.holds());
  note_away(1);
}

TEST_P(Hand, ThreadsMoveWhatOthersWriteAndFree) {
  constexpr int kWriters = 4;
  constexpr int kMovers = 4;
  std::atomic<bool> stop{false};
  std::atomic<void*> shown[kWriters] = {};
  std::atomic<long> moved{0};
  std::vector<std::thread> threads;
  for (int w = 0; w < kWriters; ++w) {
    threads.emplace_back([&, w] {
      for (std::uint64_t round = 0; !stop; ++round) {
        const std::uint64_t seed = 1000 * static_cast<std::uint64_t>(w) + round;
        Area own(kPageblock, seed);
        shown[w] = own.data();
        for (int i = 0; i < 5; ++i) {
          ASSERT_TRUE(own.holds()) << "writer " << w << " round " << round;
          fill(own.data(), own.size(), seed);
        }
        ASSERT_TRUE(own.holds());
      }
    });
  }
  for (int m = 0; m < kMovers; ++m) {
    threads.emplace_back([&, m] {
      std::minstd_rand random(static_cast<unsigned>(m));
      std::vector<void*> list(40);
      std::vector<int> tiers(list.size());
      std::vector<int> status(list.size());
      while (!stop) {
        auto* const base = static_cast<unsigned char*>(shown[random() % kWriters].load());
        if (base == nullptr) continue;
        if (random() % 8 == 0) {
          const Bytes part{reinterpret_cast<std::byte*>(base), kPageblock};
          if (random() % 2 == 0) {
            (void)heaptier::move_lazy(part, static_cast<int>(random() % 2));
          } else {
            (void)heaptier::advise(part, random() % 2 == 0 ? HEAPTIER_COLD : HEAPTIER_HOT);
          }
          continue;
        }
        for (std::size_t i = 0; i < list.size(); ++i) {
          list[i] = base + random() % kPageblock;
          tiers[i] = static_cast<int>(random() % 3);
        }
        const int n = heaptier::move(list, tiers, status);
        ASSERT_GE(n, 0);
        moved += n;
        for (const int s : status) {
          ASSERT_TRUE(s < 3 && s > -200 && s != -EIO && s != -ENOSYS) << s;
        }
      }
    });
  }
  for (int i = 0; i < 8; ++i) {
    Area own(kPageblock, 9000);
    (void)heaptier::move_lazy(bytes(own), kSlow);
    const auto child = in_child(
        [&] {
          void* page = own.at(9 * kPage);
          int status = -1;
          if (detail::api()->move(&page, &kFast, &status, 1, 0) < 0) return 2;
          return first_wrong(own.data(), own.size(), own.seed()) == own.size() ? 0 : 1;
        },
        60);
    EXPECT_TRUE(exited(child, 0)) << i;
    EXPECT_TRUE(own.holds());
    std::this_thread::sleep_for(std::chrono::seconds(1));
  }
  stop = true;
  for (std::thread& t : threads) t.join();
  EXPECT_GT(moved.load(), 100);
  std::printf("%ld pages as asked\n", moved.load());
  note_away(moved.load());
}

INSTANTIATE_TEST_SUITE_P(Of, Hand, testing::Bool(), [](const auto& info) {
  return info.param ? std::string("huge") : std::string("small");
});

}  // namespace
}  // namespace heaptier::test
