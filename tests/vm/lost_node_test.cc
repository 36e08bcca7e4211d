// A node of the chain that may not be used any more while the program runs, and that comes back:
// its cpuset shrinks and grows, its memory goes offline and online. Run under the library, as root,
// in a machine with a node 0 and a node 1 whose memory can go offline; HEAPTIER names the command.
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "runtime/include/heaptier/heaptier.h"
#include "tests/support/managed.h"
#include "tests/support/process.h"

extern "C" {
[[gnu::weak]] int heaptier_move(void* const* pages, const int* tiers, int* status, size_t count,
                                unsigned flags);
[[gnu::weak]] int heaptier_nodes(const void* p, size_t bytes, int* nodes);
}

namespace heaptier::test {
namespace {

constexpr int kSlow = 1;

// As the kernel takes it: one write.
bool write_file(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  file << text << std::flush;
  return file.good();
}

std::string ctl_tiers() {
  const char* heaptier = std::getenv("HEAPTIER");
  const Ended said = run_command(
      {heaptier == nullptr ? "heaptier" : heaptier, "ctl", std::to_string(getpid()), "tiers"},
      {"LD_PRELOAD"}, 60);
  std::printf("%s%s", said.out.c_str(), said.err.c_str());
  return said.out;
}

std::size_t pages_on(int node, const Area& area) {
  std::vector<int> nodes(area.size() / kPage);
  EXPECT_EQ(heaptier_nodes(area.data(), area.size(), nodes.data()), static_cast<int>(nodes.size()));
  return static_cast<std::size_t>(std::count(nodes.begin(), nodes.end(), node));
}

// All of it to the tier; how many statuses are `expected`.
std::size_t move_all(const Area& area, int tier, int expected) {
  std::vector<void*> pages;
  for (std::size_t at = 0; at < area.size(); at += kPage) pages.push_back(area.at(at));
  const std::vector<int> tiers(pages.size(), tier);
  std::vector<int> status(pages.size(), 12345);
  (void)heaptier_move(pages.data(), tiers.data(), status.data(), pages.size(), 0);
  return static_cast<std::size_t>(std::count(status.begin(), status.end(), expected));
}

bool soon(const std::function<bool()>& is, int longest = 60) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(longest);
  while (!is()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  return true;
}

class Cpuset {
 public:
  Cpuset() {
    good_ = write_file("/sys/fs/cgroup/cgroup.subtree_control", "+cpuset") &&
            (mkdir(kGroup, 0755) == 0 || errno == EEXIST) && allow("0-1") &&
            write_file(std::string(kGroup) + "/cgroup.procs", std::to_string(getpid()));
  }
  ~Cpuset() {
    (void)write_file("/sys/fs/cgroup/cgroup.procs", std::to_string(getpid()));
    rmdir(kGroup);
  }
  bool good() const { return good_; }
  bool allow(const std::string& nodes) {
    return write_file(std::string(kGroup) + "/cpuset.mems", nodes);
  }

 private:
  static constexpr const char* kGroup = "/sys/fs/cgroup/lost_node";
  bool good_ = false;
};

// The slow node's memory, block by block; what the kernel itself holds there comes and goes.
bool set_memory(const char* state) {
  bool all = false;
  for (int tries = 0; tries < 20 && !all; ++tries) {
    all = true;
    for (const auto& entry :
         std::filesystem::directory_iterator("/sys/devices/system/node/node1")) {
      const std::string name = entry.path().filename();
      if (name.compare(0, 6, "memory") != 0 || name.find_first_of("0123456789") != 6) continue;
      const std::string file = entry.path() / "state";
      std::string now;
      std::ifstream(file) >> now;
      if (now == state) continue;
      all = write_file(file, state) && all;
    }
    if (!all) std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
  return all;
}

class LostNode : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (!preloaded() || counter("nodes_lost") < 0) GTEST_SKIP() << "not under heaptier";
    prctl(PR_SET_THP_DISABLE, GetParam() ? 0 : 1, 0, 0, 0);
    ASSERT_EQ(wake(), 0);
    note_away(1);
  }

  // Nothing is tried there any more, this is said, and nothing is lost.
  void expect_gone(const Area& area, const char* why) {
    const long long lost = counter("nodes_lost");
    EXPECT_EQ(pages_on(kSlow, area), 0u) << "by the kernel's hand";
    EXPECT_TRUE(soon([] { return ctl_tiers().find("node 1") != std::string::npos; }));
    EXPECT_NE(ctl_tiers().find(why), std::string::npos);
    EXPECT_EQ(move_all(area, kSlow, -ENOMEM), area.size() / kPage);
    const long long failed = counter("nodes_failed");
    const long long demoted = counter("nodes_demoted");
    std::this_thread::sleep_for(std::chrono::seconds(4));
    EXPECT_EQ(counter("nodes_failed"), failed) << "it is not tried again and again";
    EXPECT_EQ(counter("nodes_demoted"), demoted);
    EXPECT_EQ(pages_on(kSlow, area), 0u);
    EXPECT_LE(counter("nodes_lost"), lost + 1) << "said once";
    EXPECT_GT(counter("nodes_lost"), 0);
    EXPECT_TRUE(area.holds());
  }
  void expect_back(const Area& area) {
    EXPECT_TRUE(soon([&] { return move_all(area, kSlow, kSlow) == area.size() / kPage; }));
    EXPECT_EQ(ctl_tiers().find("node 1"), std::string::npos) << "nothing to say of it";
    EXPECT_TRUE(area.holds());
  }
};

TEST_P(LostNode, TheCpusetShrinksAndGrows) {
  Cpuset cpuset;
  ASSERT_TRUE(cpuset.good()) << "no cpuset to be had";
  const Area area(16 * kMiB, 1);
  ASSERT_TRUE(soon([&] { return move_all(area, kSlow, kSlow) == area.size() / kPage; }));
  ASSERT_TRUE(cpuset.allow("0"));
  EXPECT_TRUE(soon([&] { return pages_on(kSlow, area) == 0; })) << "the kernel moves them";
  expect_gone(area, "not allowed by the cpuset: node 1");
  ASSERT_TRUE(cpuset.allow("0-1"));
  expect_back(area);
}

TEST_P(LostNode, ItsMemoryGoesOfflineAndComesBack) {
  const Area area(16 * kMiB, 2);
  ASSERT_TRUE(soon([&] { return move_all(area, kSlow, kSlow) == area.size() / kPage; }));
  ASSERT_TRUE(set_memory("offline")) << "the kernel needs it";
  expect_gone(area, "without memory: node 1");
  ASSERT_TRUE(set_memory("online_movable"));
  expect_back(area);
}

// What the engine demotes by itself goes on when there is somewhere to go to.
TEST_P(LostNode, DemotionGoesOnAfterwards) {
  Cpuset cpuset;
  ASSERT_TRUE(cpuset.good());
  ASSERT_TRUE(cpuset.allow("0"));
  ASSERT_TRUE(soon([] { return ctl_tiers().find("not allowed") != std::string::npos; }));
  const Area cold(40 * kMiB, 3);  // the first tier may hold less
  const long long demoted = counter("nodes_demoted");
  std::this_thread::sleep_for(std::chrono::seconds(4));
  EXPECT_EQ(counter("nodes_demoted"), demoted);
  EXPECT_EQ(pages_on(kSlow, cold), 0u);
  ASSERT_TRUE(cpuset.allow("0-1"));
  EXPECT_TRUE(
      soon([&] { return pages_on(kSlow, cold) > 0 && counter("nodes_demoted") > demoted; }, 120));
  EXPECT_TRUE(cold.holds());
}

INSTANTIATE_TEST_SUITE_P(Of, LostNode, testing::Bool(), [](const auto& info) {
  return info.param ? std::string("huge") : std::string("small");
});

}  // namespace
}  // namespace heaptier::test
