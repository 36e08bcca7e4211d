// A small heap on a FakeMachine: the real Space, table, pool, fault service and migration, with
// touches that are function calls and contents that can be told apart.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <vector>

#include "runtime/bootstrap_heap.h"
#include "runtime/content.h"
#include "runtime/core.h"
#include "runtime/discard.h"
#include "runtime/fault_service.h"
#include "runtime/migration.h"
#include "runtime/tiers/zpool.h"
#include "tests/fakes/fake_machine.h"

namespace heaptier::test {

class SmallHeap {
 public:
  static constexpr std::uint32_t kBlocks = 2;

  explicit SmallHeap(std::size_t pool_bytes = std::size_t{64} << 20) {
    SpaceConfig config;
    config.window_bytes = std::size_t{1} << 30;
    config.physical_bytes = std::size_t{1} << 30;
    config.seed = 42;
    EXPECT_TRUE(space.init(machine, config).ok());
    EXPECT_TRUE(table.init(static_cast<std::uint32_t>(space.bytes() >> kPageblockShift)).ok());
    ZPoolConfig pool_config;
    pool_config.capacity_bytes = pool_bytes;
    EXPECT_TRUE(pool.init(machine, pool_config).ok());
    core.store = &pool;
    core.port = &machine;
    EXPECT_TRUE(core.fetched.init(12).ok());
    EXPECT_TRUE(core.copied.init(12).ok());
    EXPECT_TRUE(core.choose_park(false).ok());
    for (Worker* w : {&own, &handler[0], &handler[1]}) {
      w->workspace = pool.make_workspace();
      w->staging = bootstrap::allocate_array<char>(kStagingPages * kPageSize);
    }
    service.use_workers(handler, 2);
    base = reinterpret_cast<std::uintptr_t>(space.allocate(kBlocks * kPageblockSize, kPageblockSize,
                                                           Mobility::kMovable, Owner::kJemalloc));
    EXPECT_NE(base, 0u);
    expected.resize(kBlocks * kPagesPerBlock);
  }

  PageIndex page(std::uint32_t i) const { return {space.page_at(base).v + i}; }
  BlockIndex block(std::uint32_t b) const { return block_of(page(b * 512)); }
  std::uintptr_t home(std::uint32_t i) const { return base + std::size_t{i} * kPageSize; }

  // Content number `n` for a page: compressible, and no two alike. 0: all zeros.
  static void fill(std::uintptr_t at, std::uint64_t n) {
    auto* words = reinterpret_cast<std::uint64_t*>(at);
    for (std::size_t i = 0; i < kPageSize / 8; ++i) words[i] = n == 0 ? 0 : n + (i / 64);
  }
  static bool holds(std::uintptr_t at, std::uint64_t n) {
    const auto* words = reinterpret_cast<const std::uint64_t*>(at);
    for (std::size_t i = 0; i < kPageSize / 8; ++i) {
      if (words[i] != (n == 0 ? 0 : n + (i / 64))) return false;
    }
    return true;
  }

  // What the kernel does at an access of the application: faults until the page is there and may be
  // written. False: it did not become so within reason.
  bool touch(std::uint32_t i, bool write) {
    FakeMachine::Page& p = machine.page(home(i));
    for (int tries = 0; tries < 64; ++tries) {
      if (p.poisoned) return false;
      if (p.present && !(write && p.wp)) return true;
      if (!p.present && !machine.is_registered(home(i))) {
        std::memset(reinterpret_cast<void*>(home(i)), 0, kPageSize);  // the kernel's own zero fill
        p.present = true;
        return true;
      }
      const FaultEvent event{home(i), write, p.present, 1};
      last = service.on_fault(event, 0);
      ++faults;
    }
    return false;
  }
  bool write(std::uint32_t i, std::uint64_t n) {
    if (!touch(i, true)) return false;
    fill(home(i), n);
    expected[i] = n;
    return true;
  }
  // Reads and compares.
  bool good(std::uint32_t i) { return touch(i, false) && holds(home(i), expected[i]); }

  // Every page has what it should, and the books agree: counts of blocks, totals, flows, presence.
  void check_all() {
    for (std::uint32_t i = 0; i < expected.size(); ++i) {
      ASSERT_TRUE(good(i)) << "page " << i << " in state "
                           << (table.managed(page(i)) ? to_string(table.peek(page(i)).state())
                                                      : "unmanaged");
    }
    check_books();
  }
  void check_books() {
    std::uint64_t seen[kPageStates] = {};
    for (std::uint32_t i = 0; i < expected.size(); ++i) {
      if (!table.managed(page(i))) continue;
      const PageWord w = table.peek(page(i));
      ASSERT_FALSE(w.locked()) << "page " << i << " left locked";
      ++seen[static_cast<int>(w.state())];
      const bool present = machine.page(home(i)).present;
      const PageState s = w.state();
      if (s == PageState::kStored || s == PageState::kFilled || s == PageState::kParked) {
        ASSERT_FALSE(present) << "page " << i << " is " << to_string(s) << " and present";
      }
      if (s == PageState::kClean) {
        ASSERT_TRUE(present && machine.page(home(i)).wp) << "clean page " << i << " can be written";
      }
      if (s == PageState::kParked) {
        ASSERT_TRUE(machine.page(core.park(page(i))).present)
            << "parked page " << i << " has no frame";
      }
    }
    for (int s = 0; s < kPageStates; ++s) {
      ASSERT_EQ(table.total(static_cast<PageState>(s)), seen[s])
          << to_string(static_cast<PageState>(s));
    }
    ASSERT_EQ(table.refused(), 0u);
    ASSERT_EQ(pool.usage().slots, seen[static_cast<int>(PageState::kStored)] +
                                      seen[static_cast<int>(PageState::kClean)]);
    StatsSnapshot now;
    stats.read(&now);
    now.resident_pages = table.total(PageState::kResident);
    now.clean_pages = table.total(PageState::kClean);
    now.parked_pages = table.total(PageState::kParked);
    now.stored_pages = table.total(PageState::kStored);
    now.filled_pages = table.total(PageState::kFilled);
    now.poisoned_pages = table.total(PageState::kPoisoned);
    ASSERT_EQ(now.imbalance_pages(), 0u);
  }

  std::uint32_t in_state(PageState s) const { return static_cast<std::uint32_t>(table.total(s)); }

  FakeMachine machine;
  Stats stats;
  Space space;
  PageblockTable table;
  ZPool pool;
  Core core{space, table, machine, stats};
  Worker own{};
  Worker handler[2]{};
  FaultService service{core};
  Migration migration{core, own};
  std::uintptr_t base = 0;
  std::vector<std::uint64_t> expected;
  FaultReply last{};
  std::uint64_t faults = 0;
};

}  // namespace heaptier::test
