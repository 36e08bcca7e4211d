#include "runtime/os/pagemap.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "runtime/base/units.h"

namespace heaptier::os {
namespace {

// Words of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst) and of /proc/kpageflags.
constexpr std::uint64_t kPresentOrSwapped = std::uint64_t{3} << 62;
constexpr std::uint64_t kFrame = (std::uint64_t{1} << 55) - 1;
constexpr std::uint64_t kFlagHuge = std::uint64_t{1} << 22;

bool read_words(int fd, std::uint64_t first, std::uint64_t* out, std::size_t n) {
  const auto bytes = static_cast<ssize_t>(n * sizeof *out);
  return pread(fd, out, n * sizeof *out, static_cast<off_t>(first * sizeof *out)) == bytes;
}

// Whether a whole pageblock's words are of one huge page. Frames read as 0 where we may not know
// them.
bool one_huge_page(const std::uint64_t* words, int page_flags) {
  const std::uint64_t first = words[0] & kFrame;
  if (page_flags < 0 || first == 0 || first % kPagesPerBlock != 0) return false;
  for (std::size_t i = 0; i < kPagesPerBlock; ++i) {
    if ((words[i] & kFrame) != first + i) return false;
  }
  std::uint64_t flags = 0;
  return read_words(page_flags, first, &flags, 1) && (flags & kFlagHuge) != 0;
}

}  // namespace

Errno read_pagemap(int pagemap, int page_flags, std::uintptr_t at, std::size_t bytes,
                   ScannedRun* out, std::size_t max, std::size_t* found, std::uintptr_t* next) {
  std::uint64_t words[kPagesPerBlock];
  *found = 0;
  *next = at;
  for (const std::uintptr_t end = at + bytes; *next < end;) {
    // The whole pageblock, also for a part of it: else it would not be seen to be huge.
    const std::uintptr_t block = round_down(*next, kPageblockSize);
    if (!read_words(pagemap, block / kPageSize, words, kPagesPerBlock)) {
      return {errno != 0 ? errno : EIO};
    }
    const bool huge = one_huge_page(words, page_flags);
    for (; *next < std::min(end, block + kPageblockSize); *next += kPageSize) {
      if ((words[(*next - block) / kPageSize] & kPresentOrSwapped) == 0) continue;
      ScannedRun* last = *found > 0 ? &out[*found - 1] : nullptr;
      const bool goes_on = last != nullptr && last->start + last->bytes == *next;
      if (goes_on && last->huge == huge && (!huge || *next != block)) {
        last->bytes += kPageSize;
        continue;
      }
      if (*found == max) return kOk;
      out[(*found)++] = {*next, kPageSize, huge, false};
    }
  }
  return kOk;
}

}  // namespace heaptier::os
