// What the kernel counts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>

namespace heaptier::test {

// A counter of /proc/vmstat; 0 where this kernel has none of that name.
inline std::uint64_t vmstat(const std::string& name) {
  std::ifstream file("/proc/vmstat");
  std::string key;
  std::uint64_t value = 0;
  while (file >> key >> value) {
    if (key == name) return value;
  }
  return 0;
}

// How much of the mappings of this process that meet [at, at + bytes) is huge pages.
inline std::size_t huge_bytes(std::uintptr_t at, std::size_t bytes) {
  std::ifstream smaps("/proc/self/smaps");
  std::size_t sum = 0;
  bool inside = false;
  for (std::string line; std::getline(smaps, line);) {
    std::uintptr_t from = 0;
    std::uintptr_t to = 0;
    std::size_t kib = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &from, &to) == 2) {
      inside = from < at + bytes && to > at;
    } else if (inside && std::sscanf(line.c_str(), "AnonHugePages: %zu", &kib) == 1) {
      sum += kib * 1024;
    }
  }
  return sum;
}

}  // namespace heaptier::test
