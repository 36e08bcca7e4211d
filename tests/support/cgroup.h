// A memory cgroup of a test's own, version 1 or 2.
#pragma once

#include <cstddef>
#include <string>

namespace heaptier::test {

// Made with a limit, below the root of the memory controller; removed at the end. Needs root:
// without it, or without a controller, path() is empty and why_not() says why. Whoever is to live
// in it joins it by its path.
class OwnCgroup {
 public:
  explicit OwnCgroup(std::size_t limit_bytes);
  ~OwnCgroup();
  OwnCgroup(const OwnCgroup&) = delete;
  OwnCgroup& operator=(const OwnCgroup&) = delete;
  const std::string& path() const { return path_; }
  const std::string& why_not() const { return why_not_; }

 private:
  std::string path_;
  std::string why_not_;
};

// The calling process goes there. False: it may not.
bool join_cgroup(const std::string& path);

}  // namespace heaptier::test
