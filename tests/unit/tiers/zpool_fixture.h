// A compressed tier on fake memory with one thread's workspace, and pages to put into it.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <memory>

#include "runtime/tiers/zpool.h"
#include "tests/unit/tiers/fake_memory.h"
#include "tests/unit/tiers/page_data.h"

namespace heaptier::testing {

struct alignas(64) Page {
  std::array<unsigned char, kPageSize> bytes{};
  unsigned char* data() { return bytes.data(); }
  friend bool operator==(const Page&, const Page&) = default;
};

inline Page mixed_page(std::uint64_t i) {
  Page page;
  // Not the random ones: each page here can be stored.
  const PageKind kind = mixed_kind(i);
  fill_page(page.data(), kind == PageKind::kRandom ? PageKind::kJson : kind, i);
  return page;
}

// `text` bytes that do not compress, then zeros: shrinks to a little more than `text`, by choice of
// size.
inline Page page_of_entropy(std::size_t text, std::uint64_t seed) {
  Page page;
  Rng rng(seed);
  for (std::size_t i = 0; i < text; ++i) page.bytes[i] = static_cast<unsigned char>(rng.next());
  return page;
}

struct Pool {
  explicit Pool(const ZPoolConfig& config) : zpool(new ZPool) {
    EXPECT_TRUE(zpool->init(memory, config).ok());
    ws = zpool->make_workspace();
    EXPECT_NE(ws, nullptr);
  }
  ~Pool() { zpool->release_workspace(ws); }
  SlotId store(Page page, std::uint32_t owner = 7) {
    SlotId slot;
    EXPECT_EQ(zpool->store(ws, page.data(), {owner}, &slot), StoreOutcome::kStored);
    return slot;
  }
  ::testing::AssertionResult holds(SlotId slot, const Page& page) {
    Page out;
    out.bytes.fill(0xcc);
    if (zpool->fetch(ws, slot, out.data()) != FetchOutcome::kFetched) {
      return ::testing::AssertionFailure() << "slot " << slot.v << " is corrupt";
    }
    if (!(out == page)) return ::testing::AssertionFailure() << "slot " << slot.v << " differs";
    return ::testing::AssertionSuccess();
  }

  FakeMemory memory;
  std::unique_ptr<ZPool> zpool;
  StoreWorkspace* ws = nullptr;
};

inline constexpr std::size_t kMiB = std::size_t{1} << 20;

}  // namespace heaptier::testing
