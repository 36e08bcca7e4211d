// The units everything is counted in. Strong types: a page number is not a pageblock number, and no
// conversion happens unless it is spelled out.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>

namespace heaptier {

inline constexpr std::size_t kPageShift = 12;
inline constexpr std::size_t kPageSize = std::size_t{1} << kPageShift;
inline constexpr std::size_t kPageblockShift = 21;
inline constexpr std::size_t kPageblockSize = std::size_t{1} << kPageblockShift;
inline constexpr std::size_t kPagesPerBlock = kPageblockSize / kPageSize;

// Number of a page, counted from the base of the Space (runtime/arena.h).
struct PageIndex {
  std::uint32_t v = 0;
  friend constexpr auto operator<=>(PageIndex, PageIndex) = default;
};

// Number of a pageblock, counted from the base of the Space.
struct BlockIndex {
  std::uint32_t v = 0;
  friend constexpr auto operator<=>(BlockIndex, BlockIndex) = default;
};

constexpr BlockIndex block_of(PageIndex p) {
  return {p.v / static_cast<std::uint32_t>(kPagesPerBlock)};
}
constexpr PageIndex first_page(BlockIndex b) {
  return {b.v * static_cast<std::uint32_t>(kPagesPerBlock)};
}
constexpr std::uint32_t page_in_block(PageIndex p) {
  return p.v % static_cast<std::uint32_t>(kPagesPerBlock);
}

// A point in, or a length of, monotonic time, in nanoseconds.
struct Nanos {
  std::int64_t v = 0;
  friend constexpr auto operator<=>(Nanos, Nanos) = default;
  friend constexpr Nanos operator+(Nanos a, Nanos b) { return {a.v + b.v}; }
  friend constexpr Nanos operator-(Nanos a, Nanos b) { return {a.v - b.v}; }
};
constexpr Nanos micros(std::int64_t n) {
  return {n * 1000};
}
constexpr Nanos millis(std::int64_t n) {
  return {n * 1000 * 1000};
}
constexpr Nanos seconds(std::int64_t n) {
  return {n * 1000 * 1000 * 1000};
}

constexpr std::size_t round_up(std::size_t n, std::size_t align) {
  return (n + align - 1) & ~(align - 1);
}
constexpr std::size_t round_down(std::size_t n, std::size_t align) {
  return n & ~(align - 1);
}

}  // namespace heaptier
