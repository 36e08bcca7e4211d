// A machine with memory nodes for tests: pages and huge pages at addresses that nothing is mapped
// at, nodes with room for some, and move_pages as the kernel does it, with what it does when it
// stops half-way. No kernel, no thread; time passes when somebody pauses.
//
// fail_at(n, code): the n-th call from then on fails. A failing move_pages has moved half of its
// pages by then and written no status.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "runtime/base/node_ops.h"
#include "runtime/base/ports.h"

namespace heaptier::test {

class FakeNodes final : public NodeOps {
 public:
  struct Page {
    int node = 0;
    bool huge = false;    // the address is that of the block
    unsigned busy = 0;    // so many tries fail; ~0u: pinned
    unsigned hidden = 0;  // for so many looks the kernel has it under migration: absent
    bool shared = false;  // with a child
    bool zero_page = false;
    bool splits_here = false;  // set by a move that failed for lack of room: what must not happen
  };

  std::map<std::uintptr_t, Page> pages;
  std::map<unsigned, NodeRoom> rooms;  // a node that is not here does not exist
  std::vector<unsigned> outside_cpuset;
  std::vector<unsigned> compactable;  // a huge page finds room there while 512 pages are free
  // Somebody else takes so many pages of a node before each move_pages call.
  std::map<unsigned, std::uint64_t> thief;
  std::vector<std::pair<AddressRange, NodePolicy>> policies;  // by mbind; the last one counts
  NodePolicy own_policy;                                      // the thread's
  Nanos clock{1'000'000'000};
  std::vector<Nanos> pauses;
  std::uint64_t calls = 0;
  std::uint64_t move_calls = 0;
  std::uint64_t pages_passed = 0;  // to move_pages

  void add_node(unsigned node, std::uint64_t free, std::uint64_t huge) {
    rooms[node] = {free, free, huge};
  }
  void fail_at(std::uint64_t nth, int code) {
    fail_at_ = calls + nth;
    code_ = code;
  }
  void stop_failing() { fail_at_ = 0; }
  bool failed_once() const { return failed_once_; }
  std::uint64_t splits() const {
    std::uint64_t n = 0;
    for (const auto& [at, page] : pages) n += page.splits_here ? 1 : 0;
    return n;
  }
  // The page that an address is in, or null.
  Page* find(std::uintptr_t at) {
    auto it = pages.find(round_down(at, kPageblockSize));
    if (it != pages.end() && it->second.huge) return &it->second;
    it = pages.find(round_down(at, kPageSize));
    return it == pages.end() ? nullptr : &it->second;
  }

  Errno move_pages(const std::uintptr_t* at, const int* nodes, int* status, std::size_t count,
                   std::size_t* unmoved) override {
    *unmoved = 0;
    ++move_calls;
    pages_passed += count;
    for (auto& [node, n] : thief) {
      NodeRoom& room = rooms[node];
      room.pages -= std::min(n, room.pages);
      room.huge_blocks = std::min(room.huge_blocks, room.pages / kPagesPerBlock);
    }
    const Errno e = step();
    if (e.failed()) {
      for (std::size_t i = 0; i < count / 2; ++i) {
        Page* p = find(at[i]);
        if (p != nullptr && !p->shared) (void)migrate(*p, static_cast<unsigned>(nodes[i]));
      }
      return e;
    }
    // Runs of pages for one node are queued and moved together, when the node changes or a page
    // is met that cannot be queued. One failure among them, and the call is over.
    std::size_t start = 0;
    for (std::size_t i = 0; i <= count; ++i) {
      const bool end = i == count;
      if (end || (i > start && nodes[i] != nodes[i - 1])) {
        if (Errno f = flush(at, nodes, status, start, i, count, unmoved);
            f.failed() || *unmoved > 0)
          return f;
        start = i;
        if (end) break;
      }
      const auto node = static_cast<unsigned>(nodes[i]);
      const bool known = rooms.contains(node);
      if (!known || std::ranges::count(outside_cpuset, node) > 0) {
        (void)flush(at, nodes, status, start, i, count, unmoved);
        *unmoved = 0;
        return {known ? EACCES : ENODEV};
      }
      const int refused = refuse(at, i, start, node);
      if (refused == kQueued) continue;
      status[i] = refused;
      if (Errno f = flush(at, nodes, status, start, i, count, unmoved); f.failed() || *unmoved > 0)
        return f;
      start = i + 1;
    }
    return kOk;
  }

  Errno where(const std::uintptr_t* at, int* status, std::size_t count) override {
    if (Errno e = step(); e.failed()) return e;
    for (std::size_t i = 0; i < count; ++i) {
      Page* p = find(at[i]);
      const bool hidden = p != nullptr && p->hidden > 0;
      if (hidden) --p->hidden;
      status[i] = p == nullptr || hidden ? -ENOENT : p->zero_page ? -EFAULT : p->node;
    }
    return kOk;
  }
  Errno set_policy(std::uintptr_t at, std::size_t bytes, const NodePolicy& policy, bool) override {
    const Errno e = step();
    if (e.ok()) policies.push_back({{at, bytes}, policy});
    return e;
  }
  Errno policy_at(std::uintptr_t at, NodePolicy* out) override {
    *out = {};
    for (const auto& [range, policy] : policies) {
      if (at - range.start < range.bytes) *out = policy;
    }
    return step();
  }
  Errno policy_of_this_thread(NodePolicy* out) override {
    *out = own_policy;
    return step();
  }
  NodeSet allowed_nodes() override {
    NodeSet nodes = NodeSet::all();
    for (const unsigned node : outside_cpuset) nodes = nodes - NodeSet::of(node);
    return nodes;
  }
  Errno room(unsigned node, NodeRoom* out) override {
    if (Errno e = step(); e.failed()) return e;
    const auto it = rooms.find(node);
    if (it == rooms.end()) return {ENODEV};
    *out = it->second;
    return kOk;
  }
  Errno compact(unsigned) override { return step(); }
  unsigned here = 0;  // where the caller runs
  unsigned node_here() override { return here; }
  Nanos now() override { return clock; }
  void pause(Nanos length) override {
    pauses.push_back(length);
    clock = clock + length;
  }

 private:
  static constexpr int kQueued = kStatusUnwritten;

  Errno step() {
    if (++calls != fail_at_) return kOk;
    failed_once_ = true;
    return {code_};
  }

  // The status of a page that is not queued for moving, or kQueued.
  int refuse(const std::uintptr_t* at, std::size_t i, std::size_t start, unsigned node) {
    const Page* p = find(at[i]);
    if (p == nullptr) return -ENOENT;
    if (p->zero_page) return -EFAULT;
    if (p->node == static_cast<int>(node)) return p->node;
    if (p->shared) return -EACCES;
    for (std::size_t j = start; j < i; ++j) {
      if (find(at[j]) == p) return -EBUSY;  // isolated already
    }
    return kQueued;
  }

  bool migrate(Page& p, unsigned node) {
    if (p.busy > 0) {
      if (p.busy != ~0u) --p.busy;
      return false;
    }
    const std::uint64_t size = p.huge ? kPagesPerBlock : 1;
    NodeRoom& to = rooms[node];
    const bool compacts = std::ranges::count(compactable, node) > 0;
    if (to.pages < size || (p.huge && to.huge_blocks == 0 && !compacts)) {
      if (p.huge) p.splits_here = true;
      return false;
    }
    to.pages -= size;
    if (p.huge && to.huge_blocks > 0) --to.huge_blocks;
    to.huge_blocks = std::min(to.huge_blocks, to.pages / kPagesPerBlock);
    NodeRoom& from = rooms[static_cast<unsigned>(p.node)];
    from.pages += size;
    if (p.huge) ++from.huge_blocks;
    p.node = static_cast<int>(node);
    return true;
  }

  Errno flush(const std::uintptr_t* at, const int* nodes, int* status, std::size_t start,
              std::size_t end, std::size_t count, std::size_t* unmoved) {
    std::size_t failed = 0;
    for (std::size_t i = start; i < end; ++i) {
      Page& p = *find(at[i]);
      const auto node = static_cast<unsigned>(nodes[i]);
      const bool full = !p.huge && p.busy == 0 && rooms[node].pages == 0;
      if (full) return {ENOMEM};  // for small pages the kernel gives up at once
      failed += migrate(p, node) ? 0 : 1;
    }
    if (failed > 0) {
      *unmoved = failed + (count - end);
      return kOk;
    }
    for (std::size_t i = start; i < end; ++i) status[i] = nodes[i];
    return kOk;
  }

  std::uint64_t fail_at_ = 0;
  int code_ = 0;
  bool failed_once_ = false;
};

}  // namespace heaptier::test
