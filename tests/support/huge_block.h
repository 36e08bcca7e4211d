// Which pageblocks are mapped as huge pages. Before Linux 6.7 only root is told.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>

#include "runtime/base/units.h"
#include "runtime/os/kernel_memory.h"

namespace heaptier::test {

inline bool is_huge(const unsigned char* block) {
  static KernelMemory& kernel = []() -> KernelMemory& {
    kernel_memory_ops().open_files();
    return kernel_memory_ops();
  }();
  ScannedRun run{};
  std::size_t count = 0;
  std::uintptr_t next = 0;
  const auto at = reinterpret_cast<std::uintptr_t>(block);
  EXPECT_TRUE(kernel.scan(at, kPageblockSize, &run, 1, &count, &next).ok());
  return count == 1 && run.huge && run.bytes == kPageblockSize;
}

// How many of an area of whole pageblocks.
inline std::size_t huge_blocks(const unsigned char* data, std::size_t bytes) {
  std::size_t n = 0;
  for (std::size_t at = 0; at < bytes; at += kPageblockSize) n += is_huge(data + at) ? 1 : 0;
  return n;
}

}  // namespace heaptier::test
