// Random operations against a model: a map from page to content. A failure names the seed and the
// step.
#include <gtest/gtest.h>

#include <array>
#include <map>
#include <memory>
#include <set>

#include "runtime/tiers/zpool.h"
#include "tests/unit/tiers/fake_memory.h"
#include "tests/unit/tiers/page_data.h"

namespace heaptier {
namespace {

using testing::FakeMemory;
using testing::fill_page;
using testing::mixed_kind;
using testing::Rng;

using Bytes = std::array<unsigned char, kPageSize>;

struct Kept {
  SlotId slot;
  std::uint64_t seed;
};

class Model final : public SlotMover {
 public:
  bool relocate(PageIndex owner, SlotId from, SlotId to) override {
    const auto found = pages.find(owner.v);
    if (found == pages.end() || found->second.slot != from) return false;
    found->second.slot = to;
    return true;
  }
  std::map<std::uint32_t, Kept> pages;
};

class ZPoolFuzz : public ::testing::TestWithParam<int> {};

TEST_P(ZPoolFuzz, AgreesWithTheModel) {
  const auto seed = static_cast<std::uint64_t>(GetParam());
  Rng rng(seed);
  FakeMemory memory;
  memory.refuse.old_kernel = seed % 4 == 3;
  memory.refuse.map = static_cast<int>(rng.below(6));
  memory.refuse.populate = static_cast<int>(rng.below(80));
  memory.refuse.discard = static_cast<int>(rng.below(6));
  const std::unique_ptr<ZPool> pool(new ZPool);
  // Small enough to be full now and then.
  ZPoolConfig config{.capacity_bytes = std::size_t{1 + rng.below(7)} << 20};
  config.codec = seed % 3 == 2 ? CodecKind::kZstd : CodecKind::kLz4;
  config.max_ratio_percent = static_cast<unsigned>(40 + rng.below(61));
  ASSERT_TRUE(pool->init(memory, config).ok());
  StoreWorkspace* ws = pool->make_workspace();
  ASSERT_NE(ws, nullptr);

  Model model;
  const std::uint64_t owners = 500 + rng.below(5000);
  unsigned storing = 50;  // percent; drifts, so that the pool fills and drains
  Bytes page;
  Bytes out;
  for (int step = 0; step < 12'000; ++step) {
    SCOPED_TRACE("step " + std::to_string(step));
    if (step % 1000 == 0) storing = static_cast<unsigned>(10 + rng.below(80));
    const auto owner = static_cast<std::uint32_t>(rng.below(owners));
    const auto found = model.pages.find(owner);
    if (rng.below(1000) == 0) {
      (void)pool->compact(model, rng.below(3) == 0 ? rng.below(50) : SIZE_MAX);
    } else if (rng.below(1500) == 0) {
      (void)pool->trim();
    } else if (found != model.pages.end() && rng.below(100) >= storing) {
      pool->drop(found->second.slot);
      model.pages.erase(found);
    } else if (found != model.pages.end()) {
      fill_page(page.data(), mixed_kind(found->second.seed), found->second.seed);
      ASSERT_EQ(pool->fetch(ws, found->second.slot, out.data()), FetchOutcome::kFetched);
      ASSERT_EQ(out, page);
    } else if (rng.below(100) < storing) {
      const std::uint64_t content = rng.below(1000);
      fill_page(page.data(), mixed_kind(content), content);
      SlotId slot;
      if (pool->store(ws, page.data(), {owner}, &slot) == StoreOutcome::kStored) {
        ASSERT_NE(slot.v, 0u);
        model.pages[owner] = {slot, content};
      }
    }
  }
  ASSERT_EQ(pool->usage().slots, model.pages.size());
  std::set<std::uint32_t> slots;
  for (const auto& [owner, kept] : model.pages) {
    ASSERT_TRUE(slots.insert(kept.slot.v).second) << "two pages share a slot";
    fill_page(page.data(), mixed_kind(kept.seed), kept.seed);
    ASSERT_EQ(pool->fetch(ws, kept.slot, out.data()), FetchOutcome::kFetched);
    ASSERT_EQ(out, page);
    pool->drop(kept.slot);
  }
  (void)pool->trim();
  (void)pool->trim();  // the first may have been refused
  EXPECT_EQ(pool->fragmentation().held, 0u);
  EXPECT_EQ(pool->usage().payload_bytes, 0u);
  EXPECT_EQ(pool->drops_refused(), 0u);
  EXPECT_TRUE(memory.untouched());
  pool->release_workspace(ws);
}

INSTANTIATE_TEST_SUITE_P(Seeds, ZPoolFuzz, ::testing::Range(0, 24));

}  // namespace
}  // namespace heaptier
