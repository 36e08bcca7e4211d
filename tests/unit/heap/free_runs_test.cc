#include "runtime/free_runs.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace heaptier {
namespace {

class Model {
 public:
  explicit Model(std::uint32_t blocks)
      : words_(FreeRuns::words_for(blocks)), nodes_(FreeRuns::nodes_for(blocks)), free_(blocks) {
    runs.init(blocks, words_.data(), nodes_.data());
  }
  void set(std::uint32_t first, std::uint32_t count, bool free) {
    runs.set_free(first, count, free);
    for (std::uint32_t i = first; i < first + count; ++i) free_[i] = free;
  }
  std::uint32_t find(std::uint32_t count) const {
    std::uint32_t run = 0;
    for (std::uint32_t i = 0; i < free_.size(); ++i) {
      run = free_[i] ? run + 1 : 0;
      if (run == count) return i + 1 - count;
    }
    return FreeRuns::kNone;
  }
  std::uint32_t longest() const {
    std::uint32_t n = 0;
    while (find(n + 1) != FreeRuns::kNone) ++n;
    return n;
  }
  bool is_free(std::uint32_t i) const { return free_[i]; }
  std::uint32_t size() const { return static_cast<std::uint32_t>(free_.size()); }

  FreeRuns runs;

 private:
  std::vector<std::uint64_t> words_;
  std::vector<FreeRuns::Node> nodes_;
  std::vector<bool> free_;
};

TEST(FreeRuns, NothingIsFreeAtFirst) {
  Model m(5000);
  EXPECT_EQ(m.runs.find(1), FreeRuns::kNone);
  EXPECT_EQ(m.runs.longest(), 0u);
  EXPECT_EQ(m.runs.run_before(5000), 0u);
}

TEST(FreeRuns, RunsCrossEveryBoundary) {
  Model m(4096);
  for (std::uint32_t middle : {64u, 512u, 1024u, 2048u}) {
    m.set(middle - 3, 7, true);
    EXPECT_EQ(m.runs.find(7), middle - 3);
    EXPECT_EQ(m.runs.find(8), FreeRuns::kNone);
    EXPECT_EQ(m.runs.run_from(middle - 3), 7u);
    EXPECT_EQ(m.runs.run_before(middle + 4), 7u);
    m.set(middle - 3, 7, false);
  }
  m.set(0, 4096, true);
  EXPECT_EQ(m.runs.find(4096), 0u);
  EXPECT_EQ(m.runs.run_before(4096), 4096u);
}

TEST(FreeRuns, AgreesWithAPlainSearch) {
  for (std::uint32_t blocks : {1u, 63u, 512u, 513u, 3000u}) {
    std::mt19937 random(blocks);
    Model m(blocks);
    for (int round = 0; round < 600; ++round) {
      const auto first = static_cast<std::uint32_t>(random() % blocks);
      const std::uint32_t most = round % 10 == 0 ? blocks - first : std::min(blocks - first, 20u);
      m.set(first, 1 + static_cast<std::uint32_t>(random() % most), random() % 2 == 0);
      ASSERT_EQ(m.runs.longest(), m.longest());
      for (std::uint32_t wanted : {1u, 2u, 5u, 16u, 100u, 700u}) {
        ASSERT_EQ(m.runs.find(wanted), m.find(wanted)) << blocks << " blocks, round " << round;
      }
      const auto at = static_cast<std::uint32_t>(random() % blocks);
      std::uint32_t from = 0;
      while (at + from < blocks && m.is_free(at + from)) ++from;
      std::uint32_t before = 0;
      while (before < at && m.is_free(at - before - 1)) ++before;
      ASSERT_EQ(m.runs.run_from(at), from);
      ASSERT_EQ(m.runs.run_before(at), before);
      ASSERT_EQ(m.runs.is_free(at), m.is_free(at));
    }
  }
}

}  // namespace
}  // namespace heaptier
