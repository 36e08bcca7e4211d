// The C++ header: containers over heaps of one's own, moved about while they are in use, and the
// same program where there is no heaptier.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <heaptier/heaptier.hpp>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

namespace {

// How this run was started: nothing, or HEAP=..., POLICY=none, DISABLE=1.
std::string expected() {
  const char* mode = std::getenv("EXPECTED");
  return mode == nullptr ? "" : mode;
}
// heaptier serves memory.
bool serves() {
  return !expected().empty() && expected() != "HEAP=none" && expected() != "DISABLE=1";
}
// And moves it.
bool tiers() {
  return serves() && expected() != "POLICY=none" && heaptier::wake() == 0;
}

bool managed(const void* p) {
  unsigned char place = HEAPTIER_UNMANAGED;
  const heaptier::Bytes one{static_cast<const std::byte*>(p), 1};
  return heaptier::where(one, std::span(&place, 1)) == 1 && place != HEAPTIER_UNMANAGED;
}

TEST(Header, KnowsWhetherHeaptierIsThere) {
  EXPECT_EQ(heaptier::present(), !expected().empty());
  if (serves() && expected() != "POLICY=none") {
    EXPECT_GE(heaptier::state(), -ENOTSUP);
  } else {
    EXPECT_EQ(heaptier::state(), -ENOTSUP);
    EXPECT_EQ(heaptier::tiers(), -ENOTSUP);
    EXPECT_EQ(heaptier::tier_named("dram"), -ENOTSUP);
  }
}

TEST(Heap, GivesAlignedMemoryAndIsGivenBack) {
  for (int round = 0; round < 300; ++round) {  // more than there are heaps at a time
    heaptier::Heap heap(HEAPTIER_HEAP_UNMOVABLE);
    ASSERT_EQ(static_cast<bool>(heap), !expected().empty()) << round;
    if (!heap) return;
    void* p = heap.allocate(1000, 256);
    ASSERT_NE(p, nullptr);
    EXPECT_EQ(reinterpret_cast<std::size_t>(p) % 256, 0u);
    std::memset(p, 1, 1000);
    EXPECT_EQ(heap.allocate(10, 3), nullptr) << "no alignment";
    heaptier::Heap other = std::move(heap);
    EXPECT_FALSE(heap);  // NOLINT(bugprone-use-after-move)
    EXPECT_EQ(heap.allocate(10), nullptr);
    heap = std::move(other);
    EXPECT_TRUE(heap);
    heaptier::Heap::release(p);
  }
}

TEST(Heap, WhatItGaveOutlivesIt) {
  char* text = nullptr;
  {
    heaptier::Heap heap;
    if (!heap) GTEST_SKIP() << "no heap";
    text = static_cast<char*>(heap.allocate(100));
    std::strcpy(text, "still here");
  }
  heaptier::Heap next;
  void* another = next.allocate(100);
  EXPECT_NE(another, text);
  EXPECT_STREQ(text, "still here");
  heaptier::Heap::release(text);
  heaptier::Heap::release(another);
  heaptier::Heap::release(nullptr);
}

TEST(MemoryResource, CarriesContainers) {
  heaptier::memory_resource memory;
  EXPECT_EQ(memory.managed(), !expected().empty());
  std::pmr::vector<std::pmr::string> words(&memory);
  std::pmr::map<int, std::pmr::string> sorted(&memory);
  std::pmr::unordered_map<int, int> hashed(&memory);
  for (int i = 0; i < 20000; ++i) {
    words.emplace_back("a word long enough to live on the heap, number " + std::to_string(i));
    if (i % 7 == 0) sorted.emplace(i, words.back());
    hashed[i] = i * i;
  }
  EXPECT_EQ(managed(words.data()), tiers());
  for (int i = 0; i < 20000; ++i) {
    ASSERT_TRUE(words[static_cast<std::size_t>(i)].ends_with(" " + std::to_string(i)));
    ASSERT_EQ(hashed[i], i * i);
  }
  EXPECT_EQ(sorted.size(), 2858u);
  std::pmr::vector<std::pmr::string> copy = words;  // the default resource's
  EXPECT_EQ(copy.size(), words.size());
  EXPECT_TRUE(copy == words);
  words.clear();
  words.shrink_to_fit();
}

TEST(MemoryResource, IsEqualToItselfAlone) {
  heaptier::memory_resource one;
  heaptier::memory_resource two;
  EXPECT_TRUE(one.is_equal(one));
  EXPECT_FALSE(one.is_equal(two));
  EXPECT_FALSE(one.is_equal(*std::pmr::new_delete_resource()));
  std::pmr::vector<int> a(1000, 1, &one);
  std::pmr::vector<int> b(&two);
  b = std::move(a);  // element by element: they are of different heaps
  EXPECT_EQ(b.size(), 1000u);
}

TEST(MemoryResource, ThrowsWhenThereIsNoMemory) {
  heaptier::memory_resource memory;
  EXPECT_THROW((void)memory.allocate(PTRDIFF_MAX), std::bad_alloc);
  void* p = memory.allocate(0);
  memory.deallocate(p, 0);
  p = memory.allocate(5000, 4096);
  EXPECT_EQ(reinterpret_cast<std::size_t>(p) % 4096, 0u);
  memory.deallocate(p, 5000, 4096);
}

TEST(MemoryResource, MoreThanThereAreHeapsFallBackToNew) {
  std::vector<std::unique_ptr<heaptier::memory_resource>> many;
  for (int i = 0; i < 100; ++i) many.push_back(std::make_unique<heaptier::memory_resource>());
  EXPECT_FALSE(many.back()->managed());
  for (const auto& memory : many) {
    std::pmr::string text("a text that does not fit into the object itself", memory.get());
    EXPECT_EQ(text.size(), 47u);
  }
}

TEST(MemoryResource, ThreadsEachWithContainersOfTheirOwn) {
  heaptier::memory_resource memory;
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&memory, t] {
      for (int round = 0; round < 50; ++round) {
        std::pmr::vector<int> numbers(static_cast<std::size_t>(1000 * (t + 1)), &memory);
        std::iota(numbers.begin(), numbers.end(), t);
        (void)heaptier::demote(std::as_bytes(std::span(numbers)));
        for (std::size_t i = 0; i < numbers.size(); ++i) {
          ASSERT_EQ(numbers[i], static_cast<int>(i) + t);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(Moving, AContainerGoesToTheStoreAndComesBack) {
  heaptier::memory_resource memory;
  std::pmr::vector<int> numbers(1 << 20, &memory);
  const auto number = [](std::size_t i) { return static_cast<int>(i / 32); };
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = number(i);
  const heaptier::Bytes all = std::as_bytes(std::span(numbers));
  EXPECT_GE(heaptier::pages_spanned(all), 1024u);
  std::vector<void*> pages;
  for (std::size_t i = 0; i < numbers.size(); i += 1024) pages.push_back(&numbers[i]);
  std::vector<int> status(pages.size(), 99);
  if (!tiers()) {
    const std::vector<int> where(pages.size(), 0);
    EXPECT_EQ(heaptier::move(pages, where, status), -ENOTSUP);
    EXPECT_EQ(heaptier::move_lazy(all, 0), -ENOTSUP);
    EXPECT_EQ(status[0], 99);
  } else {
    const int store = heaptier::tier_named("zpool");
    const std::vector<int> there(pages.size(), store);
    EXPECT_GT(heaptier::move(pages, there, status), 1000);
    EXPECT_EQ(heaptier::where(std::span<void* const>(pages), status),
              static_cast<int>(pages.size()));
    EXPECT_GE(std::count(status.begin(), status.end(), store), 1000);
    std::vector<int> nodes(heaptier::pages_spanned(all));
    EXPECT_EQ(heaptier::nodes(all, nodes), static_cast<int>(nodes.size()));
    EXPECT_GE(std::count(nodes.begin(), nodes.end(), int{HEAPTIER_NODE_STORED}), 1000);
    const heaptier::Pin pin(all);
    EXPECT_TRUE(pin);
    EXPECT_EQ(heaptier::advise(all, HEAPTIER_COLD), 0) << "it is pinned";
  }
  EXPECT_EQ(heaptier::move(pages, std::span<const int>(), status), -EINVAL)
      << "spans of one length";
  EXPECT_EQ(heaptier::where(std::span<void* const>(pages), std::span(status).first(3)), -EINVAL);
  EXPECT_EQ(heaptier::move({}, {}, {}), 0);
  for (std::size_t i = 0; i < numbers.size(); ++i) ASSERT_EQ(numbers[i], number(i));
}

}  // namespace
