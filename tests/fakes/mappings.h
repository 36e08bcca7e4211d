// Lines of a made-up /proc/self/maps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>

namespace heaptier::test {

inline constexpr char kAnonymous[] = "rw-p 00000000 00:00 0 ";

inline std::string mapping(std::uintptr_t at, std::size_t bytes, const char* rest = kAnonymous) {
  char line[160];
  std::snprintf(line, sizeof line, "%zx-%zx %s\n", std::size_t{at}, std::size_t{at + bytes}, rest);
  return line;
}

}  // namespace heaptier::test
