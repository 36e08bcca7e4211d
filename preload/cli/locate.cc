#include "preload/cli/locate.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "preload/cli/exit_codes.h"

namespace heaptier::cli {
namespace {

constexpr const char kLibrary[] = "libheaptier.so";

std::optional<std::string> regular_file(const std::string& path) {
  char real[PATH_MAX];
  struct stat status;
  if (realpath(path.c_str(), real) == nullptr || stat(real, &status) != 0) return std::nullopt;
  if (!S_ISREG(status.st_mode)) {
    errno = S_ISDIR(status.st_mode) ? EISDIR : EINVAL;
    return std::nullopt;
  }
  return real;
}

// 0: can be executed; else the errno that says why not.
int why_not_executable(const std::string& path) {
  struct stat status;
  if (stat(path.c_str(), &status) != 0) return errno;
  if (S_ISDIR(status.st_mode)) return EISDIR;
  return access(path.c_str(), X_OK) == 0 ? 0 : errno;
}

Located refusal(int error) {
  const bool absent = error == ENOENT || error == ENOTDIR;
  return {
      absent ? kNotFound : kNotExecutable, {}, absent ? "command not found" : std::strerror(error)};
}

}  // namespace

std::string own_directory() {
  char path[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof path);
  if (length <= 0 || length == static_cast<ssize_t>(sizeof path)) return {};
  const std::string file(path, static_cast<std::size_t>(length));
  return file.substr(0, file.rfind('/'));
}

std::optional<std::string> find_library(std::string* problem) {
  std::optional<std::string> found;
  if (const char* given = std::getenv("HEAPTIER_LIB"); given != nullptr && *given != '\0') {
    found = regular_file(given);
    if (!found) {
      *problem = std::string("HEAPTIER_LIB=") + given + ": " + std::strerror(errno);
      return std::nullopt;
    }
  } else {
    const std::string here = own_directory();
    if (here.empty()) {
      *problem = "/proc is not mounted; HEAPTIER_LIB can name the library";
      return std::nullopt;
    }
    std::string tried;
    for (const char* place : {"../lib", HEAPTIER_LIBDIR_FROM_BINDIR}) {
      const std::string candidate = here + "/" + place + "/" + kLibrary;
      if (!found) found = regular_file(candidate);
      if (tried != candidate) tried += (tried.empty() ? "" : " and no ") + candidate;
    }
    if (!found) {
      *problem = "there is no " + tried + "; HEAPTIER_LIB can name the library";
      return std::nullopt;
    }
  }
  // ld.so splits the list at both, and knows no way to quote them.
  if (found->find_first_of(": ") != std::string::npos) {
    *problem = *found + ": LD_PRELOAD cannot hold a path with a space or a colon";
    return std::nullopt;
  }
  return found;
}

Located find_program(const std::string& name) {
  if (name.empty()) return refusal(ENOENT);
  if (name.find('/') != std::string::npos) {
    const int error = why_not_executable(name);
    return error == 0 ? Located{0, name, {}} : refusal(error);
  }
  const char* path = std::getenv("PATH");
  std::string_view rest = path != nullptr ? path : "/bin:/usr/bin";
  int worst = ENOENT;
  while (true) {
    const std::size_t colon = rest.find(':');
    const std::string directory(rest.substr(0, colon));
    const std::string candidate = (directory.empty() ? "." : directory) + "/" + name;
    const int error = why_not_executable(candidate);
    if (error == 0) return {0, candidate, {}};
    if (error == EACCES) worst = EACCES;  // as execvp: go on, but remember
    if (colon == std::string_view::npos) break;
    rest.remove_prefix(colon + 1);
  }
  return refusal(worst);
}

}  // namespace heaptier::cli
