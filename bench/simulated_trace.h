// Page traces for bench/simulate and for the policies' unit tests, and the yardsticks that they are
// held against: exact LRU, and the best that static popularity allows.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "runtime/base/units.h"

namespace heaptier::simulation {

using Weights = std::vector<double>;

// Draws an index with a probability in proportion to its weight: Walker's alias method, one random
// number a draw.
class Draw {
 public:
  explicit Draw(const Weights& weight) : share_(weight.size()), other_(weight.size()) {
    const double sum = std::accumulate(weight.begin(), weight.end(), 0.0);
    std::vector<std::uint32_t> small, large;
    for (std::uint32_t i = 0; i < weight.size(); ++i) {
      share_[i] = weight[i] * static_cast<double>(weight.size()) / sum;
      other_[i] = i;
      (share_[i] < 1 ? small : large).push_back(i);
    }
    while (!small.empty() && !large.empty()) {
      const std::uint32_t s = small.back(), l = large.back();
      small.pop_back();
      other_[s] = l;
      share_[l] -= 1 - share_[s];
      if (share_[l] < 1) {
        large.pop_back();
        small.push_back(l);
      }
    }
  }
  std::uint32_t operator()(std::mt19937_64& random) const {
    const std::uint64_t r = random();
    const auto i = static_cast<std::uint32_t>(((r >> 32) * share_.size()) >> 32);
    return static_cast<double>(r & 0xffffffff) < share_[i] * 4294967296.0 ? i : other_[i];
  }

 private:
  std::vector<double> share_;
  std::vector<std::uint32_t> other_;
};

// The pages of a key-value store: 8 objects to a page at random, zipf 0.99 over the objects.
inline Weights zipf_pages(std::uint32_t pages, std::uint64_t seed) {
  constexpr std::uint32_t kObjects = 8;
  std::vector<std::uint32_t> slot(std::size_t{pages} * kObjects);
  std::iota(slot.begin(), slot.end(), 0U);
  std::mt19937_64 random(seed);
  std::shuffle(slot.begin(), slot.end(), random);
  Weights weight(pages);
  for (std::size_t rank = 0; rank < slot.size(); ++rank) {
    weight[slot[rank] / kObjects] += std::pow(static_cast<double>(rank + 1), -0.99);
  }
  return weight;
}

// One block in `every` takes `hot` of the accesses; `phase` says which.
inline Weights hot_blocks(std::uint32_t pages, std::uint32_t every, std::uint32_t phase,
                          double hot) {
  Weights weight(pages);
  for (std::uint32_t p = 0; p < pages; ++p) {
    weight[p] = p / kPagesPerBlock % every == phase ? hot * every : (1 - hot) * every / (every - 1);
  }
  return weight;
}

// A trace is page weights that may change half-way, and a scanner that may go along.
struct Trace {
  bool huge = false;  // its blocks are huge pages at first
  Weights first, second;
  std::uint32_t scan_percent = 0;  // of the accesses walk through all pages in order
};

inline const std::vector<std::string>& trace_names() {
  static const std::vector<std::string> names = {"zipf",   "zipf-huge",   "scan",  "phase",
                                                 "blocks", "blocks-huge", "still", "uniform"};
  return names;
}

inline Trace make_trace(const std::string& name, std::uint32_t pages, std::uint64_t seed) {
  Trace t;
  t.huge = name.ends_with("-huge");
  if (name == "zipf" || name == "zipf-huge" || name == "scan" || name == "phase") {
    t.first = zipf_pages(pages, seed);
    if (name == "scan") t.scan_percent = 10;
    if (name == "phase") {
      t.second = t.first;
      std::rotate(t.second.begin(), t.second.begin() + pages / 2, t.second.end());
    }
  } else if (name == "blocks" || name == "blocks-huge") {
    t.first = hot_blocks(pages, 8, 2, 0.9);
    t.second = hot_blocks(pages, 8, 5, 0.9);
  } else if (name == "still") {  // four blocks in ten are used, the others never again
    for (std::uint32_t p = 0; p < pages; ++p) {
      t.first.push_back(p / kPagesPerBlock % 10 < 4 ? 1.0 : 0.0);
    }
  } else if (name == "uniform") {
    t.first.assign(pages, 1.0);
  }
  if (t.second.empty()) t.second = t.first;
  return t;
}

class Lru {
 public:
  Lru(std::uint32_t pages, std::uint32_t capacity)
      : next_(pages + 1), previous_(pages + 1), in_(pages), left_(capacity), head_(pages) {
    next_[head_] = previous_[head_] = head_;
  }
  // True: a miss.
  bool access(std::uint32_t page) {
    const bool miss = !in_[page];
    if (!miss) {
      unlink(page);
    } else if (left_ > 0) {
      --left_;
    } else {
      const std::uint32_t victim = previous_[head_];
      unlink(victim);
      in_[victim] = false;
    }
    in_[page] = true;
    next_[page] = next_[head_];
    previous_[page] = head_;
    previous_[next_[head_]] = page;
    next_[head_] = page;
    return miss;
  }

 private:
  void unlink(std::uint32_t p) {
    next_[previous_[p]] = next_[p];
    previous_[next_[p]] = previous_[p];
  }
  std::vector<std::uint32_t> next_, previous_;
  std::vector<bool> in_;
  std::uint32_t left_, head_;
};

// The miss rate of keeping the `capacity` most popular pages for ever.
inline double lfu_optimal(Weights weight, std::uint64_t capacity) {
  std::sort(weight.begin(), weight.end(), std::greater<>());
  const double all = std::accumulate(weight.begin(), weight.end(), 0.0);
  const auto cut = weight.begin() + static_cast<std::ptrdiff_t>(capacity);
  return std::accumulate(cut, weight.end(), 0.0) / all;
}

}  // namespace heaptier::simulation
