// The sizes that the compressed tier cuts its spans into. A class is defined by how many objects
// fit a span, so that nothing is left over at the end: the size is 64 KiB / count, rounded down to
// the alignment.
//
// Large sizes take every count (15, 16, 17, ...: steps of 2 to 7 %), smaller ones every size that
// is 3 % and 16 bytes below the one before. Slack and tails together, on the sizes that mixed pages
// compress to with lz4 / zstd: 1.8 / 1.8 % of the memory with these 81 classes (`bench_zpool
// classes`), 1.7 / 1.3 % with 105 (no 3 % rule), 3.8 / 3.1 % with 51 (6 %). Each class in use also
// has a partly filled span, so more classes do not pay.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "runtime/base/units.h"

namespace heaptier {

inline constexpr std::size_t kSpanShift = 16;
inline constexpr std::size_t kSpanBytes = std::size_t{1} << kSpanShift;
inline constexpr std::size_t kObjectAlign = 4;  // the header's (zpool_object.h)

struct SizeClassInfo {
  std::uint16_t bytes = 0;    // of one object, header included
  std::uint16_t objects = 0;  // in a span
};

namespace size_classes_detail {

inline constexpr std::size_t kMinBytes =
    76;  // keeps a span below 1024 objects: 10 bits of a SlotId
inline constexpr std::size_t kFewestObjects = kSpanBytes / (kPageSize + 12);

// Calls f(bytes, objects) for each class, largest first.
template <class F>
constexpr void each_class(F f) {
  std::size_t last = SIZE_MAX / 100;
  for (std::size_t n = kFewestObjects; kSpanBytes / n >= kMinBytes; ++n) {
    const std::size_t bytes = kSpanBytes / n & ~(kObjectAlign - 1);
    if (bytes * 100 > last * 97 || bytes + 16 > last) continue;
    f(bytes, kSpanBytes / bytes);
    last = bytes;
  }
}

consteval unsigned count_classes() {
  unsigned n = 0;
  each_class([&n](std::size_t, std::size_t) { ++n; });
  return n;
}

}  // namespace size_classes_detail

inline constexpr unsigned kSizeClasses = size_classes_detail::count_classes();

// Smallest first.
inline constexpr std::array<SizeClassInfo, kSizeClasses> kSizeClassInfo = [] {
  std::array<SizeClassInfo, kSizeClasses> all{};
  unsigned at = kSizeClasses;
  size_classes_detail::each_class([&](std::size_t bytes, std::size_t objects) {
    all[--at] = {static_cast<std::uint16_t>(bytes), static_cast<std::uint16_t>(objects)};
  });
  return all;
}();

inline constexpr std::size_t kLargestObject = kSizeClassInfo[kSizeClasses - 1].bytes;
inline constexpr std::size_t kMostObjects = kSizeClassInfo[0].objects;

namespace size_classes_detail {

// Class of every size, by units of the alignment.
inline constexpr auto kClassOfUnits = [] {
  std::array<std::uint8_t, kLargestObject / kObjectAlign + 1> classes{};
  unsigned c = 0;
  for (std::size_t units = 0; units < classes.size(); ++units) {
    while (kSizeClassInfo[c].bytes < units * kObjectAlign) ++c;
    classes[units] = static_cast<std::uint8_t>(c);
  }
  return classes;
}();

}  // namespace size_classes_detail

// The smallest class that `bytes` (header included, at most kLargestObject) fit into.
constexpr unsigned size_class_for(std::size_t bytes) {
  return size_classes_detail::kClassOfUnits[(bytes + kObjectAlign - 1) / kObjectAlign];
}

static_assert(kSizeClasses < 256);
static_assert(kMostObjects < 1024);
static_assert(kLargestObject >= kPageSize + 12);

}  // namespace heaptier
