#include "runtime/os/long_pins.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

#include "runtime/os/raw_syscall.h"

namespace heaptier::os {
namespace {

bool starts_with(const char* text, const char* prefix) {
  return std::strncmp(text, prefix, std::strlen(prefix)) == 0;
}

// <linux/dirent.h> as getdents64(2) documents it.
struct Dirent64 {
  std::uint64_t ino;
  std::int64_t off;
  std::uint16_t reclen;
  std::uint8_t type;
  char name[1];  // of any length
};

}  // namespace

bool link_may_pin(const char* target) {
  // io_uring's registered buffers; AF_XDP's umem is registered through a socket and cannot be told
  // from others, but needs CAP_NET_RAW and a device queue: its users pin by the API. RDMA, vfio,
  // GPUs, DPDK's uio, /dev/kvm with assigned devices, video and other DMA-BUF exporters.
  constexpr const char* kPrefixes[] = {"anon_inode:[io_uring]",
                                       "anon_inode:[infinibandevent]",
                                       "anon_inode:[vfio-device]",
                                       "anon_inode:kvm-vm",
                                       "anon_inode:[kvm-vm]",
                                       "/dev/infiniband/",
                                       "/dev/vfio/",
                                       "/dev/iommu",
                                       "/dev/uio",
                                       "/dev/nvidia",
                                       "/dev/dri/",
                                       "/dev/kfd",
                                       "/dev/habanalabs",
                                       "/dev/accel",
                                       "/dev/video",
                                       "/dev/udmabuf",
                                       "/dev/vhost",
                                       "/dev/xdma",
                                       "/dmabuf:"};
  for (const char* p : kPrefixes) {
    if (starts_with(target, p)) return true;
  }
  return false;
}

bool process_may_hold_long_pins() {
  const int dir = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (dir < 0) return true;
  bool may = false;
  bool any = false;
  char buffer[4096];
  for (;;) {
    const long n = raw_syscall(SYS_getdents64, dir, buffer, sizeof buffer);
    if (n < 0) may = true;
    if (n <= 0 || may) break;
    for (long at = 0; at < n && !may;) {
      const auto* entry = reinterpret_cast<const Dirent64*>(buffer + at);
      at += entry->reclen;
      if (entry->name[0] == '.') continue;
      any = true;
      char target[128];
      const ssize_t length = readlinkat(dir, entry->name, target, sizeof target - 1);
      if (length <= 0) continue;  // closed meanwhile
      target[length] = '\0';
      may = link_may_pin(target);
    }
  }
  close(dir);
  // An empty table: the main thread has left and its table with it; others may hold anything.
  return may || !any;
}

}  // namespace heaptier::os
