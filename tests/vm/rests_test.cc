// Where the kernel makes huge pages by itself: large objects that fill no pageblock may not cost
// more memory than their sizes and one pageblock's rest.
#include <gtest/gtest.h>
#include <malloc.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

// A field of /proc/self/smaps_rollup, in bytes.
std::size_t rollup(const std::string& field) {
  std::ifstream file("/proc/self/smaps_rollup");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(field + ":", 0) == 0) return std::stoul(line.substr(field.size() + 1)) * 1024;
  }
  return 0;
}

// jemalloc's classes of the sizes: what it takes for each, without a rest.
struct Case {
  std::size_t object, taken;
};

class Rests : public testing::TestWithParam<Case> {};

TEST_P(Rests, AreUsedByTheNext) {
  const auto [object, taken] = GetParam();
  const std::size_t count = 120 * kMiB / object;
  std::vector<void*> objects;
  objects.reserve(count);
  malloc_trim(0);  // what the test before has freed
  const std::size_t before = rollup("Rss");
  for (std::size_t i = 0; i < count; ++i) {
    objects.push_back(std::malloc(object));
    ASSERT_NE(objects.back(), nullptr);
    std::memset(objects.back(), 1, object);
  }
  EXPECT_LE(rollup("Rss"), before + count * taken + 8 * kMiB)
      << count << " objects of " << object << " bytes";
  EXPECT_GE(rollup("AnonHugePages"), 3 * count * object / 4) << "made of huge pages, all the same";
  for (void* p : objects) std::free(p);
}

INSTANTIATE_TEST_SUITE_P(Sizes, Rests,
                         testing::Values(Case{kMiB + 33, kMiB / 4 * 5},
                                         Case{kMiB / 2 * 3, kMiB / 2 * 3},
                                         Case{2 * kMiB + 33, kMiB / 2 * 5}, Case{3000000, 3 * kMiB},
                                         Case{4 * kMiB, 4 * kMiB}, Case{6000000, 6 * kMiB}));

}  // namespace
