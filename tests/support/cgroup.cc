#include "tests/support/cgroup.h"

#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

namespace heaptier::test {
namespace {

struct Controller {
  const char* root;
  const char* limit;
};
constexpr Controller kControllers[] = {{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"},
                                       {"/sys/fs/cgroup", "memory.max"},
                                       {"/sys/fs/cgroup/unified", "memory.max"}};

}  // namespace

OwnCgroup::OwnCgroup(std::size_t limit_bytes) {
  if (geteuid() != 0) {
    why_not_ = "a memory cgroup needs root";
    return;
  }
  for (const auto& [root, limit] : kControllers) {
    const std::string path = std::string(root) + "/heaptier-test-" + std::to_string(getpid());
    if (mkdir(path.c_str(), 0755) != 0) continue;
    if (access((path + "/" + limit).c_str(), W_OK) == 0) {
      std::ofstream file(path + "/" + limit);
      file << limit_bytes << std::flush;
      if (file.good()) {
        path_ = path;
        return;
      }
    }
    rmdir(path.c_str());
  }
  why_not_ = "no memory controller that a cgroup can be made in";
}

OwnCgroup::~OwnCgroup() {
  // The last process may not be reaped yet.
  for (int i = 0; i < 100 && !path_.empty() && rmdir(path_.c_str()) != 0; ++i) usleep(20000);
}

bool join_cgroup(const std::string& path) {
  std::ofstream file(path + "/cgroup.procs");
  file << getpid() << std::flush;
  return file.good();
}

}  // namespace heaptier::test
