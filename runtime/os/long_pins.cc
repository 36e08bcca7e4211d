#include "runtime/os/long_pins.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstring>

#include "runtime/os/directory.h"

namespace heaptier::os {
namespace {

bool starts_with(const char* text, const char* prefix) {
  return std::strncmp(text, prefix, std::strlen(prefix)) == 0;
}

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
  const Errno e = each_name(dir, [&](const char* name) {
    any = true;
    char target[128];
    const ssize_t length = readlinkat(dir, name, target, sizeof target - 1);
    if (length <= 0) return true;  // closed meanwhile
    target[length] = '\0';
    may = link_may_pin(target);
    return !may;
  });
  close(dir);
  // An empty table: the main thread has left and its table with it; others may hold anything.
  return may || !any || e.failed();
}

}  // namespace heaptier::os
