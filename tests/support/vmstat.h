// What the kernel counts.
#pragma once

#include <cstdint>
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

}  // namespace heaptier::test
