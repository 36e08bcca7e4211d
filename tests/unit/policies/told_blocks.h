// Two tiers of blocks of which a sampler tells the heat: huge pages, or small ones.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "policies/placement.h"

namespace heaptier {

inline constexpr auto kBlockPages = static_cast<std::uint16_t>(kPagesPerBlock);

class ToldBlocks : public testing::TestWithParam<bool> {
 protected:
  static constexpr std::uint64_t kTier = 64 * kPagesPerBlock;

  void SetUp() override {
    view_.told = true;
    view_.tier_count = 2;
    view_.tiers[0] = {kTier, kTier, 0};
    view_.tiers[1] = {kTier, kTier, 0};
  }
  // The reference holds until the next one is added.
  PlacedBlock& add_block(unsigned tier) {
    PlacedBlock b;
    b.index = {static_cast<std::uint32_t>(blocks_.size())};
    b.movable = true;
    b.huge = GetParam();
    b.tier = static_cast<std::uint8_t>(tier);
    b.resident = kBlockPages;
    b.slow = tier == 0 ? 0 : kBlockPages;
    blocks_.push_back(b);
    view_.blocks = blocks_;
    return blocks_.back();
  }

  std::vector<PlacedBlock> blocks_;
  PlacementView view_;
  PlacementPolicy policy_;
  Nanos now_ = seconds(1000);
  PlaceStep steps_[256];
};

}  // namespace heaptier
