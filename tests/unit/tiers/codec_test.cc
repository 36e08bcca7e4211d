// Both codecs: every kind of page comes back, every limit holds, no input does harm, and nothing
// calls malloc.
#include "runtime/tiers/codec.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "tests/unit/tiers/page_data.h"

// This program's malloc family counts. The sanitizers bring their own.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && defined(__GLIBC__)
#define COUNTS_MALLOC 1
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void __libc_free(void*);
void* __libc_memalign(std::size_t, std::size_t);
}
static constinit std::atomic<std::size_t> allocations{0};
extern "C" {
void* malloc(std::size_t n) {
  ++allocations;
  return __libc_malloc(n);
}
void* calloc(std::size_t n, std::size_t m) {
  ++allocations;
  return __libc_calloc(n, m);
}
void* realloc(void* p, std::size_t n) {
  ++allocations;
  return __libc_realloc(p, n);
}
void* aligned_alloc(std::size_t align, std::size_t n) {
  ++allocations;
  return __libc_memalign(align, n);
}
void free(void* p) {
  __libc_free(p);
}
}
#endif

namespace heaptier {
namespace {

using testing::fill_page;
using testing::PageKind;
using testing::Rng;

struct alignas(64) Page {
  std::array<unsigned char, kPageSize> bytes{};
  unsigned char* data() { return bytes.data(); }
};

struct Setup {
  CodecKind kind;
  int level;
};

// The state's memory is exactly as large as asked for, so that a sanitizer sees the first byte
// beyond it.
class State {
 public:
  State(const Codec& codec, int level)
      : bytes_(codec.state_bytes(level)), memory_(std::aligned_alloc(64, round_up(bytes_, 64))) {
    std::memset(memory_, 0xa5, bytes_);
    made_ = codec.make_state(memory_, level);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() { std::free(memory_); }
  bool made() const { return made_; }
  void* get() const { return memory_; }

 private:
  std::size_t bytes_;
  void* memory_;
  bool made_;
};

class CodecTest : public ::testing::TestWithParam<Setup> {
 protected:
  const Codec& codec_ = codec(GetParam().kind);
  State state_{codec_, GetParam().level};
  Page page_;
  Page out_;
  Page back_;
};

TEST_P(CodecTest, EveryKindOfPageComesBack) {
  ASSERT_TRUE(state_.made());
  for (int kind = 0; kind < testing::kPageKinds; ++kind) {
    for (std::uint64_t seed = 0; seed < 40; ++seed) {
      fill_page(page_.data(), static_cast<PageKind>(kind), seed);
      const std::size_t n = codec_.compress(state_.get(), page_.data(), out_.data(), kPageSize);
      if (static_cast<PageKind>(kind) == PageKind::kRandom) {
        EXPECT_EQ(n, 0u);
        continue;
      }
      ASSERT_GT(n, 0u);
      ASSERT_LE(n, kPageSize);
      back_.bytes.fill(0xcc);
      ASSERT_TRUE(codec_.decompress(state_.get(), out_.data(), n, back_.data()));
      ASSERT_EQ(back_.bytes, page_.bytes) << testing::kPageKindNames[kind] << " " << seed;
    }
  }
}

TEST_P(CodecTest, CapacityIsExact) {
  fill_page(page_.data(), PageKind::kJson, 5);
  const std::size_t n = codec_.compress(state_.get(), page_.data(), out_.data(), kPageSize);
  ASSERT_GT(n, 100u);
  std::vector<unsigned char> tight(n + 16, 0xee);
  for (const std::size_t capacity : {std::size_t{1}, n / 2, n - 1}) {
    EXPECT_EQ(codec_.compress(state_.get(), page_.data(), tight.data(), capacity), 0u) << capacity;
    for (std::size_t i = capacity; i < tight.size(); ++i) ASSERT_EQ(tight[i], 0xee) << i;
  }
  // A refusal leaves the state as good as before.
  EXPECT_EQ(codec_.compress(state_.get(), page_.data(), out_.data(), kPageSize), n);
  ASSERT_TRUE(codec_.decompress(state_.get(), out_.data(), n, back_.data()));
  EXPECT_EQ(back_.bytes, page_.bytes);
}

// The fast path keeps lz4's hash table between pages: a stale entry must never find its way into a
// page.
TEST_P(CodecTest, PagesDoNotLeakIntoEachOther) {
  for (std::uint64_t i = 0; i < 2000; ++i) {
    fill_page(page_.data(), testing::mixed_kind(i), i % 50);
    const std::size_t n = codec_.compress(state_.get(), page_.data(), out_.data(), 3072);
    if (n == 0) continue;
    std::unique_ptr<unsigned char[]> exact(new unsigned char[n]);
    std::memcpy(exact.get(), out_.data(), n);
    ASSERT_TRUE(codec_.decompress(state_.get(), exact.get(), n, back_.data()));
    ASSERT_EQ(back_.bytes, page_.bytes) << i;
  }
}

TEST_P(CodecTest, GarbageIsRefusedOrHarmless) {
  Rng rng(3);
  for (int round = 0; round < 3000; ++round) {
    const std::size_t n = 1 + rng.below(400);
    std::unique_ptr<unsigned char[]> garbage(new unsigned char[n]);
    for (std::size_t i = 0; i < n; ++i) garbage[i] = static_cast<unsigned char>(rng.next());
    (void)codec_.decompress(state_.get(), garbage.get(), n, back_.data());
  }
  // Nor does what it left behind spoil the next page.
  fill_page(page_.data(), PageKind::kText, 9);
  const std::size_t n = codec_.compress(state_.get(), page_.data(), out_.data(), kPageSize);
  ASSERT_GT(n, 0u);
  ASSERT_TRUE(codec_.decompress(state_.get(), out_.data(), n, back_.data()));
  EXPECT_EQ(back_.bytes, page_.bytes);
}

TEST_P(CodecTest, CutShortIsRefused) {
  fill_page(page_.data(), PageKind::kPointers, 2);
  const std::size_t n = codec_.compress(state_.get(), page_.data(), out_.data(), kPageSize);
  ASSERT_GT(n, 0u);
  for (std::size_t cut = 0; cut < n; cut += 13) {
    std::unique_ptr<unsigned char[]> part(new unsigned char[cut + 1]);
    std::memcpy(part.get(), out_.data(), cut);
    EXPECT_FALSE(codec_.decompress(state_.get(), part.get(), cut, back_.data())) << cut;
  }
}

TEST_P(CodecTest, NothingCallsMalloc) {
#ifdef COUNTS_MALLOC
  const std::size_t before_any = allocations.load();
  void* volatile probe = std::malloc(1);  // volatile: a compiler may remove a pair that nobody sees
  std::free(probe);
  ASSERT_GT(allocations.load(), before_any) << "the counter does not count";
  void* memory = state_.get();
  const std::size_t before = allocations.load();
  const bool made = codec_.make_state(memory, GetParam().level);
  bool all = made;
  for (std::uint64_t i = 0; i < 200; ++i) {
    fill_page(page_.data(), testing::mixed_kind(i), i);
    const std::size_t n = codec_.compress(memory, page_.data(), out_.data(), 3072);
    all = all && (n == 0 || codec_.decompress(memory, out_.data(), n, back_.data()));
    (void)codec_.decompress(memory, page_.data(), 500, back_.data());
  }
  EXPECT_EQ(allocations.load(), before);
  EXPECT_TRUE(all);
#else
  GTEST_SKIP() << "the sanitizer's malloc cannot be counted";
#endif
}

std::string setup_name(const ::testing::TestParamInfo<Setup>& info) {
  const int level = info.param.level;
  return std::string(codec(info.param.kind).name()) + (level < 0 ? "_minus" : "_") +
         std::to_string(level < 0 ? -level : level);
}

INSTANTIATE_TEST_SUITE_P(Levels, CodecTest,
                         ::testing::Values(Setup{CodecKind::kLz4, 0}, Setup{CodecKind::kLz4, -2},
                                           Setup{CodecKind::kLz4, -8}, Setup{CodecKind::kZstd, -5},
                                           Setup{CodecKind::kZstd, 0}, Setup{CodecKind::kZstd, 1},
                                           Setup{CodecKind::kZstd, 3}, Setup{CodecKind::kZstd, 7},
                                           Setup{CodecKind::kZstd, 12},
                                           Setup{CodecKind::kZstd, 19}),
                         setup_name);

TEST(Codecs, KnowTheirLevels) {
  EXPECT_TRUE(lz4_codec().has_level(0));
  EXPECT_TRUE(lz4_codec().has_level(-65537));
  EXPECT_FALSE(lz4_codec().has_level(1));
  EXPECT_FALSE(lz4_codec().has_level(-65538));
  EXPECT_TRUE(zstd_codec().has_level(22));
  EXPECT_FALSE(zstd_codec().has_level(23));
}

TEST(Codecs, EveryZstdLevelMakesAState) {
  for (int level = -7; level <= 22; ++level) {
    const State state(zstd_codec(), level);
    EXPECT_TRUE(state.made()) << level;
  }
}

TEST(Codecs, HigherZstdLevelsAreSmaller) {
  std::size_t fast = 0;
  std::size_t slow = 0;
  const State quick(zstd_codec(), -5);
  const State thorough(zstd_codec(), 9);
  Page page;
  Page out;
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    fill_page(page.data(), PageKind::kJson, seed);
    fast += zstd_codec().compress(quick.get(), page.data(), out.data(), kPageSize);
    slow += zstd_codec().compress(thorough.get(), page.data(), out.data(), kPageSize);
  }
  EXPECT_LT(slow, fast);
}

}  // namespace
}  // namespace heaptier
