// Memory on chosen nodes and the kernel's counts of what happened to it, for tests of node moving.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "runtime/os/kernel_nodes.h"
#include "runtime/tiers/node_mover.h"
#include "tests/support/vmstat.h"

namespace heaptier::testing {

enum class Backing { kSmallPages, kHugePages };

// Private anonymous memory in whole 2 MiB blocks, of one kind of page.
class NodeMemory {
 public:
  NodeMemory(std::size_t blocks, Backing backing) : bytes_(blocks * kPageblockSize) {
    whole_bytes_ = bytes_ + kPageblockSize;
    void* p = mmap(nullptr, whole_bytes_, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) abort();
    whole_ = reinterpret_cast<std::uintptr_t>(p);
    at_ = round_up(whole_, kPageblockSize);
    madvise(ptr(), bytes_, backing == Backing::kHugePages ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  }
  ~NodeMemory() { munmap(reinterpret_cast<void*>(whole_), whole_bytes_); }
  NodeMemory(const NodeMemory&) = delete;
  NodeMemory& operator=(const NodeMemory&) = delete;

  std::uintptr_t page(std::size_t n) const { return at_ + n * kPageSize; }
  std::uintptr_t block(std::size_t n) const { return at_ + n * kPageblockSize; }
  char* ptr(std::size_t page_number = 0) const {
    return reinterpret_cast<char*>(page(page_number));
  }
  std::size_t bytes() const { return bytes_; }
  std::size_t pages() const { return bytes_ / kPageSize; }
  std::size_t blocks() const { return bytes_ / kPageblockSize; }

  // The memory comes from `node` and no other from now on.
  [[nodiscard]] bool bind(unsigned node) const {
    const NodePolicy policy{PolicyMode::kBind, 0, std::uint64_t{1} << node};
    return kernel_node_ops().set_policy(at_, bytes_, policy, false).ok();
  }
  // Every word says where it is and of which version.
  void fill(std::uint64_t version = 0) const {
    for (std::size_t i = 0; i < pages(); ++i) fill_page(i, version);
  }
  void fill_page(std::size_t n, std::uint64_t version) const {
    auto* words = reinterpret_cast<volatile std::uint64_t*>(page(n));
    for (std::size_t i = 0; i < kPageSize / 8; ++i) words[i] = word(n, i, version);
  }
  bool page_holds(std::size_t n, std::uint64_t version) const {
    const auto* words = reinterpret_cast<const volatile std::uint64_t*>(page(n));
    for (std::size_t i = 0; i < kPageSize / 8; ++i) {
      if (words[i] != word(n, i, version)) return false;
    }
    return true;
  }
  // The first page that does not hold what fill() put there; pages(): none.
  std::size_t first_wrong(std::uint64_t version = 0) const {
    std::size_t n = 0;
    while (n < pages() && page_holds(n, version)) ++n;
    return n;
  }
  // How many pages are on each node, by the kernel's word; [4]: nowhere or elsewhere.
  std::vector<std::size_t> pages_by_node() const {
    std::vector<std::size_t> count(5);
    NodeMover mover(kernel_node_ops());
    std::vector<std::uintptr_t> at(pages());
    std::vector<int> status(pages());
    for (std::size_t i = 0; i < pages(); ++i) at[i] = page(i);
    mover.where(at.data(), at.size(), status.data());
    for (const int s : status) ++count[s >= 0 && s < 4 ? static_cast<std::size_t>(s) : 4];
    return count;
  }
  std::size_t huge_bytes() const { return test::huge_bytes(at_, bytes_); }

 private:
  static std::uint64_t word(std::size_t n, std::size_t i, std::uint64_t version) {
    return (n * kPageSize + i * 8 + 1) * 0x9e3779b97f4a7c15 ^ version * 0xbf58476d1ce4e5b9;
  }
  std::uintptr_t whole_ = 0;
  std::size_t whole_bytes_ = 0;
  std::uintptr_t at_ = 0;
  std::size_t bytes_ = 0;
};

// What must not grow while huge pages are moved.
struct SplitCounts {
  std::uint64_t pages = test::vmstat("thp_split_page");
  std::uint64_t mappings = test::vmstat("thp_split_pmd");
  std::uint64_t in_migration = test::vmstat("thp_migration_split");
  std::uint64_t failed = test::vmstat("thp_migration_fail");
  friend bool operator==(const SplitCounts&, const SplitCounts&) = default;
  friend std::ostream& operator<<(std::ostream& out, const SplitCounts& c) {
    return out << "split pages " << c.pages << ", mappings " << c.mappings << ", in migration "
               << c.in_migration << ", failed " << c.failed;
  }
};

// Moves whole blocks, one address each; the statuses.
inline std::vector<int> move_blocks(NodeMover& mover, const NodeMemory& memory, unsigned node) {
  std::vector<PageMove> list;
  for (std::size_t i = 0; i < memory.blocks(); ++i) list.push_back({memory.block(i), node, true});
  std::vector<int> status(list.size(), kStatusUnwritten);
  (void)mover.move(list.data(), list.size(), status.data());
  return status;
}

}  // namespace heaptier::testing
