// Content that proves where it came from: every 8-byte word is a function of a seed and of its
// place in the object, so that a byte lost, zeroed, stale, shifted or taken from another page is
// seen. Runs of 64 bytes are similar, so that a page compresses about 3:1 and really leaves for the
// store.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace heaptier::test {

constexpr std::uint64_t mix(std::uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9u;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// The word at byte offset 8 * `index` of the object made from `seed`.
constexpr std::uint64_t pattern_word(std::uint64_t seed, std::uint64_t index) {
  const std::uint64_t line = mix(seed + (index / 8) * 0x9e3779b97f4a7c15u);
  return index % 8 == 0 ? mix(line ^ index) : line;
}

inline unsigned char pattern_byte(std::uint64_t seed, std::size_t at) {
  return static_cast<unsigned char>(pattern_word(seed, at / 8) >> (at % 8 * 8));
}

// Writes the pattern's bytes [at, at + bytes) to p. Async-signal-safe.
inline void fill(void* p, std::size_t bytes, std::uint64_t seed, std::size_t at = 0) {
  auto* out = static_cast<unsigned char*>(p);
  std::size_t i = 0;
  for (; i < bytes && (at + i) % 8 != 0; ++i) out[i] = pattern_byte(seed, at + i);
  for (; i + 8 <= bytes; i += 8) {
    const std::uint64_t word = pattern_word(seed, (at + i) / 8);
    std::memcpy(out + i, &word, 8);
  }
  for (; i < bytes; ++i) out[i] = pattern_byte(seed, at + i);
}

// The first offset in [0, bytes) where p differs from the pattern's bytes [at, at + bytes);
// `bytes`: none does. Reads every byte. Async-signal-safe.
inline std::size_t first_wrong(const void* p, std::size_t bytes, std::uint64_t seed,
                               std::size_t at = 0) {
  // The memory may have been away and back since the compiler last saw it: every check reads it
  // anew.
  asm volatile("" ::: "memory");
  const auto* in = static_cast<const unsigned char*>(p);
  std::size_t i = 0;
  for (; i < bytes && (at + i) % 8 != 0; ++i) {
    if (in[i] != pattern_byte(seed, at + i)) return i;
  }
  for (; i + 8 <= bytes; i += 8) {
    std::uint64_t word;
    std::memcpy(&word, in + i, 8);
    if (word != pattern_word(seed, (at + i) / 8)) break;
  }
  for (; i < bytes; ++i) {
    if (in[i] != pattern_byte(seed, at + i)) return i;
  }
  return bytes;
}

// The first byte of [0, bytes) that is not zero; `bytes`: none.
inline std::size_t first_nonzero(const void* p, std::size_t bytes) {
  asm volatile("" ::: "memory");
  const auto* in = static_cast<const unsigned char*>(p);
  for (std::size_t i = 0; i < bytes; ++i) {
    if (in[i] != 0) return i;
  }
  return bytes;
}

}  // namespace heaptier::test
