// The heap of bench_nodes_load: slabs from malloc's family, every cache line written and known, and
// a hot set scattered over its second half. What the load itself needs (tables, versions) is
// mapped, so that it is no part of the heap under test.
#ifndef HEAPTIER_BENCH_NODES_HEAP_H_
#define HEAPTIER_BENCH_NODES_HEAP_H_

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "bench/harness/random.h"

namespace heaptier::bench {

// An array outside of malloc's heap; it lives as long as the process.
template <typename T>
T* mapped_array(std::size_t n) {
  void* memory = mmap(nullptr, n * sizeof(T), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) {
    std::perror("bench_nodes_load: mmap");
    std::exit(1);
  }
  return static_cast<T*>(memory);
}

class NodesHeap {
 public:
  static constexpr std::size_t kPage = 4096;
  static constexpr std::size_t kWords = kPage / sizeof(std::uint64_t);
  static constexpr std::size_t kLine = 8;  // words: one of each cache line is written and checked
  static constexpr std::size_t kSlab = 8u << 20;
  static constexpr std::size_t kHugePage = 2u << 20;

  // Takes the memory; fill() writes it. Slabs are aligned and ask for huge pages themselves, as
  // those of allocators do: without being asked the kernel makes none on a node that is not the
  // nearest.
  NodesHeap(std::size_t mib, bool huge)
      : pages_(mapped_array<std::uint64_t*>((mib << 20) / kPage)),
        versions_(mapped_array<std::uint32_t>((mib << 20) / kPage)),
        order_(mapped_array<std::uint32_t>((mib << 20) / kPage)),
        hot_before_(mapped_array<bool>((mib << 20) / kPage)) {
    for (std::size_t taken = 0; taken < mib << 20; taken += kSlab) {
      void* slab = nullptr;
      if (posix_memalign(&slab, kHugePage, kSlab) != 0) {
        std::fputs("bench_nodes_load: posix_memalign failed\n", stderr);
        std::exit(1);
      }
      if (huge && madvise(slab, kSlab, MADV_HUGEPAGE) != 0) {
        std::perror("bench_nodes_load: MADV_HUGEPAGE");
        std::exit(1);
      }
      for (std::size_t at = 0; at < kSlab; at += kPage) {
        pages_[count_++] = reinterpret_cast<std::uint64_t*>(static_cast<char*>(slab) + at);
      }
    }
  }

  std::uint32_t pages() const { return count_; }
  std::uint32_t hot_pages() const { return hot_; }
  void* address(std::uint32_t page) const { return pages_[page]; }

  // In order of allocation: what is written first gets the fast memory.
  void fill() {
    for (std::uint32_t page = 0; page < count_; ++page) {
      for (std::size_t i = 0; i < kWords; i += kLine) pages_[page][i] = still(page, i);
      pages_[page][changing_word(page)] = changing(page, 0);
    }
  }

  // Another hot set: `mib` of the second half in pieces of `unit` bytes (a page or a huge page),
  // none of which was hot before. The half must have room for it.
  void choose_hot(std::size_t mib, std::size_t unit, Random& random) {
    // Pages of one unit follow one another: slabs are whole numbers of units.
    const auto size = static_cast<std::uint32_t>(unit / kPage);
    const std::uint32_t units = count_ / size;
    const auto wanted = static_cast<std::uint32_t>((mib << 20) / unit);
    auto* is_hot = mapped_array<bool>(count_);
    for (std::uint32_t found = 0; found < wanted;) {
      const std::uint32_t start = (units - units / 2 + random.below(units / 2)) * size;
      if (is_hot[start] || hot_before_[start]) continue;
      for (std::uint32_t page = start; page < start + size; ++page) is_hot[page] = true;
      ++found;
    }

    // Hot pages first, then the others: a draw is one look-up.
    std::uint32_t cold_at = wanted * size;
    hot_ = 0;
    for (std::uint32_t page = 0; page < count_; ++page) {
      order_[is_hot[page] ? hot_++ : cold_at++] = page;
      hot_before_[page] = hot_before_[page] || is_hot[page];
    }
    munmap(is_hot, count_ * sizeof *is_hot);
  }

  std::uint32_t draw_hot(Random& random) const { return order_[random.below(hot_)]; }
  std::uint32_t draw_other(Random& random) const {
    return order_[hot_ + random.below(count_ - hot_)];
  }

  // Reads the page's changing word, and writes it anew if told. False: it was not what was written
  // last.
  bool access(std::uint32_t page, bool write) {
    volatile std::uint64_t& word = pages_[page][changing_word(page)];
    const bool right = word == changing(page, versions_[page]);
    if (write) word = changing(page, ++versions_[page]);
    return right;
  }

  // Reads every line. Pages that hold a wrong word.
  std::uint32_t wrong_pages() const {
    std::uint32_t wrong = 0;
    for (std::uint32_t page = 0; page < count_; ++page) {
      const std::size_t special = changing_word(page);
      std::uint64_t differs = pages_[page][special] ^ changing(page, versions_[page]);
      for (std::size_t i = 0; i < kWords; i += kLine) {
        if (i != special) differs |= pages_[page][i] ^ still(page, i);
      }
      wrong += differs != 0;
    }
    return wrong;
  }

 private:
  // Pages differ in the cache line that is touched, as objects would.
  static std::size_t changing_word(std::uint32_t page) { return page * 9u * kLine % kWords; }
  static std::uint64_t still(std::uint32_t page, std::size_t i) {
    return (std::uint64_t{page} + 1) * 0x9e3779b97f4a7c15u + i;
  }
  static std::uint64_t changing(std::uint32_t page, std::uint32_t version) {
    return mix(std::uint64_t{page} << 32 | version);
  }

  std::uint64_t** pages_;
  std::uint32_t* versions_;
  std::uint32_t* order_;
  bool* hot_before_;
  std::uint32_t count_ = 0;
  std::uint32_t hot_ = 0;
};

}  // namespace heaptier::bench

#endif  // HEAPTIER_BENCH_NODES_HEAP_H_
