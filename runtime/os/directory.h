// The names in an open folder, without opendir(3), which allocates. Only for runtime/os/*.cc.
#pragma once

#include <sys/syscall.h>

#include <cerrno>
#include <cstdint>

#include "runtime/base/errno.h"
#include "runtime/os/raw_syscall.h"

namespace heaptier::os {

// Calls name(const char*) for each, . and .. and all others that begin with a dot left out, until
// it answers false.
template <class F>
Errno each_name(int folder, F&& name) {
  // <linux/dirent.h> as getdents64(2) documents it.
  struct Dirent64 {
    std::uint64_t ino;
    std::int64_t off;
    std::uint16_t reclen;
    std::uint8_t type;
    char name[1];  // of any length
  };
  alignas(Dirent64) char buffer[4096];
  for (;;) {
    const long n = raw_syscall(SYS_getdents64, folder, buffer, sizeof buffer);
    if (n < 0) return {errno};
    if (n == 0) return kOk;
    for (long at = 0; at < n;) {
      const auto* entry = reinterpret_cast<const Dirent64*>(buffer + at);
      at += entry->reclen;
      if (entry->name[0] != '.' && !name(entry->name)) return kOk;
    }
  }
}

}  // namespace heaptier::os
