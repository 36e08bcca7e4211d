// Who tells how often parts of the heap are used, without their being parked or hidden for it. What
// it tells becomes the heat of pageblocks (policies/told_heat.h, policies/counted_heat.h). It tells
// in one of two ways: of looks at a range, or of single uses.
//
// Thread rule: the background thread, unless said otherwise.
#pragma once

#include <cstdint>
#include <span>

#include "runtime/base/units.h"

namespace heaptier {

// The pageblocks that are to be looked at.
struct SampledBlocks {
  std::uintptr_t base = 0;                // of block 0
  std::span<const std::uint64_t> wanted;  // a bit for each
  std::uint32_t count = 0;                // of those that are set
  bool has(std::uint32_t b) const {
    return b / 64 < wanted.size() && (wanted[b / 64] >> (b % 64) & 1) != 0;
  }
};

class HeatSink {
 public:
  // [start, end) was looked at so often, each time after so long; and was found used.
  virtual void told(std::uintptr_t start, std::uintptr_t end, std::uint32_t looks,
                    std::uint32_t used, Nanos each) = 0;
  // One use was seen, at random, of so many that there were; the address may be anybody's.
  virtual void used(std::uintptr_t address, std::uint64_t times) = 0;
  // Those were all until now.
  virtual void counted(Nanos now) = 0;

 protected:
  ~HeatSink() = default;
};

class Sampler {
 public:
  // Whether it goes on telling. Once it does not it never does again.
  virtual bool tells() const = 0;
  // Hands on what has come, and sees to it that what is wanted is looked at. Never waits for long.
  virtual void round(const SampledBlocks& blocks, Nanos now, HeatSink& sink) = 0;
  // Ends it, for good.
  virtual void stop() = 0;

 protected:
  ~Sampler() = default;
};

}  // namespace heaptier
