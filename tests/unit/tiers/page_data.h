// Seeded page contents for the tests and benchmarks of the compressed tier: what heaps really hold,
// and what hurts a compressor. The same (kind, seed) always gives the same 4 KiB.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "runtime/base/units.h"

namespace heaptier::testing {

// splitmix64: one multiply-xor-shift chain a number, every seed a good one.
class Rng {
 public:
  explicit Rng(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  std::uint64_t below(std::uint64_t n) { return next() % n; }
  // Small numbers often, large ones rarely, roughly as words occur in text.
  std::uint64_t skewed(std::uint64_t n) { return below(1 + below(1 + below(n))); }

 private:
  std::uint64_t state_;
};

enum class PageKind {
  kText,      // words of a 2000-word vocabulary, frequent ones often
  kJson,      // records with repeated keys and varying values
  kPointers,  // nodes: heap pointers, small integers, flags, padding
  kIntegers,  // sorted 64-bit keys beside 32-bit counters
  kDoubles,   // measurements of one decimal
  kObjects,   // 512-byte cached values: a header, text, half-random body
  kSparse,    // zeros with a few words set
  kRandom,    // encrypted or already compressed
};
inline constexpr int kPageKinds = 8;
inline constexpr const char* kPageKindNames[kPageKinds] = {
    "text", "json", "pointers", "integers", "doubles", "objects", "sparse", "random"};

namespace page_data_detail {

// A cursor that fills a page and drops what does not fit.
class Writer {
 public:
  explicit Writer(unsigned char* page) : page_(page) {}
  bool full() const { return at_ == kPageSize; }
  void put(const void* data, std::size_t bytes) {
    const std::size_t fits = bytes < kPageSize - at_ ? bytes : kPageSize - at_;
    std::memcpy(page_ + at_, data, fits);
    at_ += fits;
  }
  template <class T>
  void value(T v) {
    put(&v, sizeof v);
  }

 private:
  unsigned char* page_;
  std::size_t at_ = 0;
};

// Word number `n` of a fixed vocabulary; frequent (low) words are short.
inline std::size_t word(std::uint64_t n, char* out) {
  static constexpr char kLetters[] = "etaoinshrdlucmfwypvbgkqjxz";
  Rng rng(n * 7919 + 17);
  const std::size_t length = 2 + rng.below(3) + (n > 40 ? rng.below(7) : 0);
  for (std::size_t i = 0; i < length; ++i) out[i] = kLetters[rng.skewed(26)];
  return length;
}

// About `count` words. Every third is the start of one of 64 stock phrases: language repeats itself
// in runs.
inline void words(Writer& w, Rng& rng, std::size_t count) {
  char buffer[32];
  for (std::size_t i = 0; i < count; ++i) {
    const bool phrase = rng.below(3) == 0;
    Rng stock(rng.skewed(64) + 99);
    for (std::uint64_t k = phrase ? 2 + rng.below(4) : 1; k > 0; --k, ++i) {
      const std::size_t n = word(phrase ? stock.skewed(2000) : rng.skewed(2000), buffer);
      buffer[n] = rng.below(24) == 0 ? '\n' : ' ';
      w.put(buffer, n + 1);
    }
  }
}

}  // namespace page_data_detail

inline void fill_page(void* page, PageKind kind, std::uint64_t seed) {
  auto* bytes = static_cast<unsigned char*>(page);
  Rng rng(seed * static_cast<std::uint64_t>(kPageKinds) + static_cast<std::uint64_t>(kind));
  page_data_detail::Writer w(bytes);
  switch (kind) {
    case PageKind::kText:
      while (!w.full()) page_data_detail::words(w, rng, 16);
      break;
    case PageKind::kJson:
      for (std::uint64_t id = rng.below(1000000); !w.full(); ++id) {
        char record[256];
        const int n = std::snprintf(
            record, sizeof record,
            R"({"id":%llu,"user":"u%05llu","score":%llu.%02llu,"active":%s,"created_at":"2024-%02llu-%02lluT%02llu:%02llu:%02lluZ","tags":[)",
            static_cast<unsigned long long>(id), static_cast<unsigned long long>(rng.below(100000)),
            static_cast<unsigned long long>(rng.below(100)),
            static_cast<unsigned long long>(rng.below(100)), rng.below(3) ? "true" : "false",
            static_cast<unsigned long long>(1 + rng.below(12)),
            static_cast<unsigned long long>(1 + rng.below(28)),
            static_cast<unsigned long long>(rng.below(24)),
            static_cast<unsigned long long>(rng.below(60)),
            static_cast<unsigned long long>(rng.below(60)));
        w.put(record, static_cast<std::size_t>(n));
        for (std::uint64_t t = rng.below(4); t > 0; --t) {
          char tag[40] = "\"";
          const std::size_t length = page_data_detail::word(rng.skewed(200), tag + 1);
          std::memcpy(tag + 1 + length, "\",", 2);
          w.put(tag, length + 3);
        }
        w.put("]},\n", 4);
      }
      break;
    case PageKind::kPointers: {
      const std::uint64_t heap = 0x7f0000000000u + (rng.below(1u << 20) << 21);
      while (!w.full()) {
        w.value<std::uint64_t>(heap + (rng.below(1u << 22) << 4));
        w.value<std::uint64_t>(rng.below(4) ? heap + (rng.below(1u << 22) << 4) : 0);
        w.value<std::uint32_t>(static_cast<std::uint32_t>(rng.skewed(100000)));
        w.value<std::uint16_t>(static_cast<std::uint16_t>(rng.below(8)));
        w.value<std::uint16_t>(1);
        w.value<std::uint64_t>(rng.skewed(1u << 24));
      }
      break;
    }
    case PageKind::kIntegers:
      for (std::uint64_t key = rng.next() >> 20; !w.full(); key += 1 + rng.below(5000)) {
        w.value<std::uint64_t>(key);
        w.value<std::uint32_t>(static_cast<std::uint32_t>(rng.skewed(4000)));
        w.value<std::uint32_t>(0);
      }
      break;
    case PageKind::kDoubles:
      while (!w.full()) w.value<double>(static_cast<double>(rng.skewed(10000)) / 10);
      break;
    case PageKind::kObjects:
      while (!w.full()) {
        w.value<std::uint64_t>(rng.next());
        w.value<std::uint64_t>(rng.below(100000));
        page_data_detail::words(w, rng, 20 + rng.below(10));
        for (std::uint64_t i = rng.below(16); i > 0; --i) w.value<std::uint64_t>(rng.next());
        for (std::uint64_t i = rng.below(24); i > 0; --i) w.value<std::uint64_t>(0);
      }
      break;
    case PageKind::kSparse:
      std::memset(bytes, 0, kPageSize);
      for (std::uint64_t i = 1 + rng.below(40); i > 0; --i) {
        const std::uint64_t v = rng.next() >> rng.below(60);
        std::memcpy(bytes + rng.below(kPageSize / 8) * 8, &v, sizeof v);
      }
      break;
    case PageKind::kRandom:
      while (!w.full()) w.value<std::uint64_t>(rng.next());
      break;
  }
}

// The mix the figures are quoted for: out of 20 pages 4 text, 4 JSON, 4 pointers, 2 integers, 1
// doubles, 3 objects, 1 sparse, 1 random.
inline PageKind mixed_kind(std::uint64_t i) {
  using enum PageKind;
  static constexpr PageKind kMix[20] = {kText,     kJson,     kPointers, kObjects,  kText,
                                        kIntegers, kJson,     kPointers, kObjects,  kText,
                                        kJson,     kPointers, kSparse,   kIntegers, kText,
                                        kJson,     kPointers, kObjects,  kDoubles,  kRandom};
  return kMix[i % 20];
}

}  // namespace heaptier::testing
