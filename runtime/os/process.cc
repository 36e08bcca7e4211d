#include "runtime/os/process.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "runtime/os/held_signals.h"
#include "runtime/os/raw_syscall.h"

namespace heaptier::os {
namespace {

// A decimal number at the start of the text; "max" and nonsense are 0.
std::size_t number(const char* text) {
  std::size_t n = 0;
  for (; *text >= '0' && *text <= '9'; ++text) {
    if (n > SIZE_MAX / 16) return 0;
    n = n * 10 + static_cast<std::size_t>(*text - '0');
  }
  return n;
}

// The number behind `key` at the start of a line of memory.stat.
std::size_t stat_value(const char* text, const char* key) {
  const std::size_t length = std::strlen(key);
  for (const char* line = text; line != nullptr && *line != '\0';) {
    if (std::strncmp(line, key, length) == 0) return number(line + length);
    line = std::strchr(line, '\n');
    if (line != nullptr) ++line;
  }
  return 0;
}

struct Hierarchy {
  const char* mount;
  const char* limit_file;
  const char* anonymous_key;  // in memory.stat, descendants included
};

// Goes from `group` up to the root of the hierarchy and keeps the tightest limit in *best.
void find_tightest(const Hierarchy& h, char* group, CgroupMemory* best) {
  for (;;) {
    char path[512];
    char text[8192];
    std::snprintf(path, sizeof path, "%s%s/%s", h.mount, group, h.limit_file);
    if (read_file(path, text, sizeof text) > 0) {
      const std::size_t n = number(text);
      // v1 writes "no limit" as a number near 2^63.
      if (n != 0 && n < (std::size_t{1} << 60) && (best->limit == 0 || n < best->limit)) {
        best->limit = n;
        std::snprintf(path, sizeof path, "%s%s/memory.stat", h.mount, group);
        best->anonymous =
            read_file(path, text, sizeof text) > 0 ? stat_value(text, h.anonymous_key) : 0;
      }
    }
    char* slash = std::strrchr(group, '/');
    if (slash == nullptr || group[0] == '\0') return;
    *slash = '\0';
  }
}

}  // namespace

std::size_t physical_bytes() {
  return static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) *
         static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
}

std::size_t address_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return 0;
  return static_cast<std::size_t>(limit.rlim_cur);
}

std::size_t data_limit() {
  // Heap and park hold what the machine's memory and a store in it can, and there is some more.
  constexpr std::size_t kFelt = 4;
  rlimit limit{};
  if (getrlimit(RLIMIT_DATA, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return 0;
  if (limit.rlim_cur / kFelt >= physical_bytes()) return 0;
  return std::max(static_cast<std::size_t>(limit.rlim_cur), std::size_t{1});
}

CgroupMemory cgroup_memory() {
  constexpr Hierarchy kV2{"/sys/fs/cgroup", "memory.max", "anon "};
  constexpr Hierarchy kV1{"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "total_rss "};
  CgroupMemory best;
  char text[4096];
  if (read_file("/proc/self/cgroup", text, sizeof text) <= 0) return best;
  for (char* line = text; line != nullptr && *line != '\0';) {
    char* end = std::strchr(line, '\n');
    if (end != nullptr) *end = '\0';
    const bool v2 = std::strncmp(line, "0::", 3) == 0;
    if (v2 || std::strstr(line, ":memory:") != nullptr) {
      char group[256];
      const char* second = std::strchr(std::strchr(line, ':') + 1, ':');
      std::snprintf(group, sizeof group, "%s", second == nullptr ? "" : second + 1);
      if (std::strcmp(group, "/") == 0) group[0] = '\0';
      find_tightest(v2 ? kV2 : kV1, group, &best);
    }
    line = end == nullptr ? nullptr : end + 1;
  }
  return best;
}

std::size_t available_bytes() {
  char text[1024];
  if (read_file("/proc/meminfo", text, sizeof text) <= 0) return 0;
  const char* line = std::strstr(text, "MemAvailable:");
  if (line == nullptr) return 0;
  line += std::strlen("MemAvailable:");
  while (*line == ' ') ++line;
  return number(line) * 1024;
}

std::size_t resident_bytes(std::uintptr_t at, std::size_t bytes) {
  constexpr std::size_t kPage = 4096;
  unsigned char present[1024];
  std::size_t resident = 0;
  for (std::size_t done = 0; done < bytes; done += sizeof present * kPage) {
    const std::size_t part =
        bytes - done < sizeof present * kPage ? bytes - done : sizeof present * kPage;
    // NOLINTNEXTLINE(performance-no-int-to-ptr)
    if (mincore(reinterpret_cast<void*>(at + done), part, present) != 0) return bytes;
    for (std::size_t i = 0; i < part / kPage; ++i) resident += (present[i] & 1) != 0 ? kPage : 0;
  }
  return resident;
}

std::size_t most_mappings() {
  char text[32];
  if (read_file("/proc/sys/vm/max_map_count", text, sizeof text) <= 0) return 0;
  return std::strtoull(text, nullptr, 10);
}

unsigned cpu_count() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return static_cast<unsigned>(CPU_COUNT(&set));
  const long n = sysconf(_SC_NPROCESSORS_ONLN);
  return n > 0 ? static_cast<unsigned>(n) : 1;
}

int process_id() {
  return getpid();
}

std::uint64_t startup_random() {
  std::uint64_t bits = 0;
  // NOLINTNEXTLINE(performance-no-int-to-ptr)
  const auto* source = reinterpret_cast<const void*>(getauxval(AT_RANDOM));
  if (source != nullptr) std::memcpy(&bits, source, sizeof bits);
  return bits;
}

Errno write_all(int fd, const char* text, std::size_t bytes) {
  WriteSignalsHeld held;
  while (bytes > 0) {
    // Past libc's, where a thread may be cancelled.
    const long n = raw_syscall(SYS_write, fd, text, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      const Errno why{n < 0 ? errno : EIO};
      held.failed(why.code);
      return why;
    }
    text += n;
    bytes -= static_cast<std::size_t>(n);
  }
  return kOk;
}

KeptDescriptor keep_descriptor(int fd) {
  KeptDescriptor kept;
  rlimit limit{};
  struct stat about {};
  if (fstat(fd, &about) != 0 || getrlimit(RLIMIT_NOFILE, &limit) != 0) return kept;
  // Out of the way of programs that count on low numbers.
  const auto from = static_cast<int>(limit.rlim_cur < 1024 ? limit.rlim_cur / 2 : 900);
  kept.fd = fcntl(fd, F_DUPFD_CLOEXEC, from);
  kept.device = about.st_dev;
  kept.file = about.st_ino;
  return kept;
}

bool still_there(const KeptDescriptor& kept) {
  struct stat about {};
  return kept.fd >= 0 && fstat(kept.fd, &about) == 0 && about.st_dev == kept.device &&
         about.st_ino == kept.file;
}

bool is_open(int fd) {
  return fcntl(fd, F_GETFD) >= 0;
}

void let_go(KeptDescriptor* kept) {
  if (still_there(*kept)) close(kept->fd);
  kept->fd = -1;
}

void write_text(const char* text) {
  (void)write_all(2, text, std::strlen(text));
}

Errno write_file(const char* path, const char* text, std::size_t bytes) {
  const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return {errno};
  const Errno e = write_all(fd, text, bytes);
  if (close(fd) != 0 && e.ok()) return {errno};
  return e;
}

long read_file(const char* path, char* out, std::size_t room) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  std::size_t length = 0;
  while (length < room - 1) {
    const ssize_t n = read(fd, out + length, room - 1 - length);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    length += static_cast<std::size_t>(n);
  }
  close(fd);
  out[length] = '\0';
  return static_cast<long>(length);
}

}  // namespace heaptier::os
