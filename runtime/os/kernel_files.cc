#include "runtime/os/kernel_files.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "runtime/os/directory.h"

namespace heaptier {
namespace {

class KernelFiles final : public OrderTree {
 public:
  Errno read(const char* path, TextSink& sink) override {
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return {errno};
    Errno result = kOk;
    char piece[1024];
    for (;;) {
      const ssize_t n = ::read(fd, piece, sizeof piece);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) result = {errno};
      if (n <= 0 || !sink.take({piece, static_cast<std::size_t>(n)})) break;
    }
    close(fd);
    return result;
  }

  Errno list(const char* path, TextSink& names) override {
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return {errno};
    const Errno result = os::each_name(fd, [&](const char* name) { return names.take(name); });
    close(fd);
    return result;
  }

  Errno link(const char* path, char* out, std::size_t room) override {
    const ssize_t n = readlink(path, out, room);
    if (n < 0) return {errno};
    if (static_cast<std::size_t>(n) >= room) return {ENAMETOOLONG};
    out[n] = '\0';
    return kOk;
  }

  Errno write(const char* path, std::string_view text) override {
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return {errno};
    ssize_t n = 0;
    do {
      n = ::write(fd, text.data(), text.size());
    } while (n < 0 && errno == EINTR);
    const int failed = n < 0 ? errno : 0;
    close(fd);
    if (failed != 0) return {failed};
    return static_cast<std::size_t>(n) == text.size() ? kOk : Errno{EIO};
  }
};

}  // namespace

OrderTree& kernel_files() {
  static constinit KernelFiles files;
  return files;
}

}  // namespace heaptier
