// Which pageblocks are free, and where the first run of k free ones lies: a bitmap with a tree of
// run lengths above it. Finding and changing cost O(log n), however many holes there are, so that a
// heap of 100,000 pageblocks with every other one free is no slower than an empty one.
//
// Thread rule: none inside; the Space's lock guards it. The memory is the caller's (zeroed, and
// touched only near the blocks in use).
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

namespace heaptier {

class FreeRuns {
 public:
  static constexpr std::uint32_t kNone = 0xffffffffu;
  // Blocks under one leaf of the tree.
  static constexpr std::uint32_t kLeafBlocks = 512;

  // Free blocks at the start and at the end of a node's blocks, and the longest run anywhere in it.
  struct Node {
    std::uint32_t prefix = 0;
    std::uint32_t suffix = 0;
    std::uint32_t best = 0;
  };

  static constexpr std::uint32_t leaves_for(std::uint32_t blocks) {
    return std::bit_ceil((blocks + kLeafBlocks - 1) / kLeafBlocks);
  }
  static constexpr std::size_t words_for(std::uint32_t blocks) {
    return std::size_t{leaves_for(blocks)} * kLeafWords;
  }
  static constexpr std::size_t nodes_for(std::uint32_t blocks) {
    return std::size_t{leaves_for(blocks)} * 2;
  }

  constexpr FreeRuns() = default;
  // `words` and `nodes`: words_for(blocks) and nodes_for(blocks) zeroed elements. No block is free.
  void init(std::uint32_t blocks, std::uint64_t* words, Node* nodes) {
    leaves_ = leaves_for(blocks);
    words_ = words;
    nodes_ = nodes;
  }

  bool is_free(std::uint32_t block) const { return (words_[block / 64] >> (block % 64) & 1) != 0; }
  std::uint32_t longest() const { return nodes_[1].best; }

  void set_free(std::uint32_t first, std::uint32_t count, bool free) {
    for (std::uint32_t i = first; i < first + count;) {
      const std::uint32_t bit = i % 64;
      const std::uint32_t n = count_in_word(bit, first + count - i);
      const std::uint64_t mask = (n == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << n) - 1) << bit;
      if (free) {
        words_[i / 64] |= mask;
      } else {
        words_[i / 64] &= ~mask;
      }
      i += n;
    }
    update(first / kLeafBlocks, (first + count - 1) / kLeafBlocks);
  }

  // First block of the lowest run of at least `count`, or kNone.
  std::uint32_t find(std::uint32_t count) const {
    if (nodes_[1].best < count) return kNone;
    std::uint32_t node = 1;
    std::uint32_t first = 0;
    std::uint32_t span = leaves_ * kLeafBlocks;
    while (node < leaves_) {
      const Node& left = nodes_[2 * node];
      const Node& right = nodes_[2 * node + 1];
      span /= 2;
      if (left.best >= count) {
        node = 2 * node;
      } else if (left.suffix + right.prefix >= count) {
        return first + span - left.suffix;
      } else {
        node = 2 * node + 1;
        first += span;
      }
    }
    return find_in_leaf(first, count);
  }

  // Length of the run that starts at `block`, and of the one that ends just below `end`.
  std::uint32_t run_from(std::uint32_t block) const {
    const std::uint32_t limit = leaves_ * kLeafBlocks;
    std::uint32_t i = block;
    while (i < limit) {
      const std::uint64_t taken = ~words_[i / 64] >> (i % 64);
      if (taken != 0) return i + static_cast<std::uint32_t>(std::countr_zero(taken)) - block;
      i = (i / 64 + 1) * 64;
    }
    return limit - block;
  }
  std::uint32_t run_before(std::uint32_t end) const {
    std::uint32_t i = end;
    while (i > 0) {
      const std::uint32_t bit = (i - 1) % 64;
      const std::uint64_t taken = ~words_[(i - 1) / 64] << (63 - bit);
      if (taken != 0) return end - i + static_cast<std::uint32_t>(std::countl_zero(taken));
      i -= bit + 1;
    }
    return end;
  }

 private:
  static constexpr std::uint32_t kLeafWords = kLeafBlocks / 64;

  static constexpr std::uint32_t count_in_word(std::uint32_t bit, std::uint32_t wanted) {
    return wanted < 64 - bit ? wanted : 64 - bit;
  }

  std::uint32_t find_in_leaf(std::uint32_t first, std::uint32_t count) const {
    std::uint32_t run = 0;
    for (std::uint32_t i = first; i < first + kLeafBlocks; ++i) {
      if (i % 64 == 0 && run == 0 && words_[i / 64] == 0) {
        i += 63;
        continue;
      }
      run = is_free(i) ? run + 1 : 0;
      if (run == count) return i + 1 - count;
    }
    return kNone;
  }

  Node summarise_leaf(std::uint32_t leaf) const {
    Node n;
    std::uint32_t run = 0;
    bool from_start = true;
    for (std::uint32_t w = leaf * kLeafWords; w < (leaf + 1) * kLeafWords; ++w) {
      std::uint64_t word = words_[w];
      std::uint32_t left = 64;
      while (left > 0) {
        const auto ones = static_cast<std::uint32_t>(std::countr_one(word));
        const std::uint32_t add = ones < left ? ones : left;
        run += add;
        left -= add;
        if (run > n.best) n.best = run;
        if (left == 0) break;
        if (from_start) n.prefix = run;
        from_start = false;
        run = 0;
        word = add == 64 ? 0 : word >> add;
        const auto zeros = word == 0 ? left : static_cast<std::uint32_t>(std::countr_zero(word));
        const std::uint32_t skip = zeros < left ? zeros : left;
        left -= skip;
        word = skip == 64 ? 0 : word >> skip;
      }
    }
    n.suffix = run;
    if (from_start) n.prefix = run;
    return n;
  }

  void update(std::uint32_t first_leaf, std::uint32_t last_leaf) {
    for (std::uint32_t leaf = first_leaf; leaf <= last_leaf; ++leaf) {
      nodes_[leaves_ + leaf] = summarise_leaf(leaf);
    }
    std::uint32_t low = (leaves_ + first_leaf) / 2;
    std::uint32_t high = (leaves_ + last_leaf) / 2;
    for (std::uint32_t span = kLeafBlocks; low >= 1; low /= 2, high /= 2, span *= 2) {
      for (std::uint32_t n = low; n <= high; ++n)
        nodes_[n] = join(nodes_[2 * n], nodes_[2 * n + 1], span);
    }
  }

  static Node join(const Node& a, const Node& b, std::uint32_t span) {
    Node n;
    n.prefix = a.prefix == span ? span + b.prefix : a.prefix;
    n.suffix = b.suffix == span ? span + a.suffix : b.suffix;
    n.best = a.best > b.best ? a.best : b.best;
    if (a.suffix + b.prefix > n.best) n.best = a.suffix + b.prefix;
    return n;
  }

  std::uint32_t leaves_ = 0;
  std::uint64_t* words_ = nullptr;
  Node* nodes_ = nullptr;
};

}  // namespace heaptier
