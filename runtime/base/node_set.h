// Sets of memory nodes, and the kernel's way of writing sets of numbers ("0-3,8").
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace heaptier {

// Nodes are numbered from 0 as the kernel does. 64 because a set is then one word, and no machine
// that one would tier on has more; what lies beyond is counted where it is met, never mixed up.
inline constexpr unsigned kMaxNodes = 64;

class NodeSet {
 public:
  class Iterator {
   public:
    constexpr explicit Iterator(std::uint64_t rest) : rest_(rest) {}
    constexpr unsigned operator*() const { return static_cast<unsigned>(std::countr_zero(rest_)); }
    constexpr Iterator& operator++() {
      rest_ &= rest_ - 1;
      return *this;
    }
    friend constexpr bool operator==(Iterator, Iterator) = default;

   private:
    std::uint64_t rest_;
  };

  constexpr NodeSet() = default;
  // Requires: node < kMaxNodes, as for add().
  static constexpr NodeSet of(unsigned node) { return NodeSet(std::uint64_t{1} << node); }
  static constexpr NodeSet all() { return NodeSet(~std::uint64_t{0}); }
  // The reverse of bits().
  static constexpr NodeSet of_bits(std::uint64_t bits) { return NodeSet(bits); }

  constexpr void add(unsigned node) { bits_ |= std::uint64_t{1} << node; }
  constexpr bool contains(unsigned node) const {
    return node < kMaxNodes && (bits_ >> node & 1) != 0;
  }
  constexpr bool empty() const { return bits_ == 0; }
  constexpr unsigned count() const { return static_cast<unsigned>(std::popcount(bits_)); }
  // Bit n is node n: as mbind(2) and set_mempolicy(2) take it.
  constexpr std::uint64_t bits() const { return bits_; }

  // In ascending order: for (unsigned node : set).
  constexpr Iterator begin() const { return Iterator(bits_); }
  constexpr Iterator end() const { return Iterator(0); }

  friend constexpr NodeSet operator|(NodeSet a, NodeSet b) { return NodeSet(a.bits_ | b.bits_); }
  friend constexpr NodeSet operator&(NodeSet a, NodeSet b) { return NodeSet(a.bits_ & b.bits_); }
  friend constexpr NodeSet operator-(NodeSet a, NodeSet b) { return NodeSet(a.bits_ & ~b.bits_); }
  friend constexpr bool operator==(NodeSet, NodeSet) = default;

 private:
  constexpr explicit NodeSet(std::uint64_t bits) : bits_(bits) {}
  std::uint64_t bits_ = 0;
};

// Calls range(first, last) for every part of a list like "0-3,8". An empty list is one, and a
// closing line break is passed over. False, after any number of calls: this is no such list.
template <class F>
constexpr bool each_range(std::string_view list, F&& range) {
  constexpr unsigned kMost = 1u << 20;  // more than any kernel numbers; keeps the sums in range
  if (list.ends_with('\n')) list.remove_suffix(1);
  if (list.empty()) return true;
  std::size_t at = 0;
  const auto number = [&](unsigned* out) {
    const std::size_t start = at;
    unsigned n = 0;
    for (; at < list.size() && list[at] >= '0' && list[at] <= '9'; ++at) {
      n = n * 10 + static_cast<unsigned>(list[at] - '0');
      if (n > kMost) return false;
    }
    *out = n;
    return at > start;
  };
  while (true) {
    unsigned first = 0;
    if (!number(&first)) return false;
    unsigned last = first;
    if (at < list.size() && list[at] == '-') {
      ++at;
      if (!number(&last) || last < first) return false;
    }
    range(first, last);
    if (at == list.size()) return true;
    if (list[at++] != ',') return false;
  }
}

// *beyond: how many of the list are kMaxNodes or more. False: no list, and nothing is changed.
[[nodiscard]] constexpr bool parse_nodes(std::string_view list, NodeSet* out, unsigned* beyond) {
  NodeSet nodes;
  unsigned over = 0;
  const bool good = each_range(list, [&](unsigned first, unsigned last) {
    for (unsigned n = first; n <= last; ++n) {
      if (n < kMaxNodes) {
        nodes.add(n);
      } else {
        ++over;
      }
    }
  });
  if (!good) return false;
  *out = nodes;
  *beyond = over;
  return true;
}

}  // namespace heaptier
