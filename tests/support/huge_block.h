// Which pageblocks are mapped as huge pages. Linux 6.7 and later tell it of a single one.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/base/units.h"
#include "runtime/os/kernel_memory.h"

namespace heaptier::test {

// False also where the kernel does not tell it.
inline bool is_huge(const unsigned char* block) {
  static KernelMemory& kernel = []() -> KernelMemory& {
    kernel_memory_ops().open_files();
    return kernel_memory_ops();
  }();
  ScannedRun run{};
  std::size_t count = 0;
  std::uintptr_t next = 0;
  const auto at = reinterpret_cast<std::uintptr_t>(block);
  if (kernel.scan(at, kPageblockSize, &run, 1, &count, &next).failed()) return false;
  return count == 1 && run.huge && run.bytes == kPageblockSize;
}

// How many of an area of whole pageblocks.
inline std::size_t huge_blocks(const unsigned char* data, std::size_t bytes) {
  std::size_t n = 0;
  for (std::size_t at = 0; at < bytes; at += kPageblockSize) n += is_huge(data + at) ? 1 : 0;
  return n;
}

}  // namespace heaptier::test
