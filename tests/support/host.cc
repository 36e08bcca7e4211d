#include "tests/support/host.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

namespace heaptier::test {
namespace {

// Debian 12's headers are older than the running kernels may be.
constexpr std::uint64_t kFeatureMove = std::uint64_t{1} << 16;
constexpr unsigned long kNewUserfaultfd = 0xAA00;  // USERFAULTFD_IOC_NEW

int open_userfaultfd() {
  const int fd = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));
  if (fd >= 0) return fd;
  const int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
  if (device < 0) return -1;
  const int from_device = ioctl(device, kNewUserfaultfd, O_CLOEXEC | O_NONBLOCK);
  close(device);
  return from_device;
}

}  // namespace

std::string why_no_userfaultfd() {
  const int fd = open_userfaultfd();
  if (fd < 0) return std::string("no userfaultfd: ") + std::strerror(errno);
  uffdio_api api{};
  api.api = UFFD_API;
  const bool agreed = ioctl(fd, UFFDIO_API, &api) == 0;
  close(fd);
  if (!agreed) return "this kernel's userfaultfd speaks another interface";
  if ((api.features & kFeatureMove) == 0) return "this kernel has no UFFDIO_MOVE (Linux 6.8)";
  return {};
}

}  // namespace heaptier::test
