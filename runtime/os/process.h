// What the process and the machine look like from inside: limits, sizes, output.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/base/errno.h"

namespace heaptier::os {

std::size_t physical_bytes();
// RLIMIT_AS in force, 0: none.
std::size_t address_limit();
// RLIMIT_DATA, where it is one that could be felt; 0: none, or more than heap, park and store come
// to together.
std::size_t data_limit();
// The process' memory cgroup (v2 or v1): of it and those of its ancestors that can be seen, the one
// with the tightest limit.
struct CgroupMemory {
  std::size_t limit = 0;      // bytes, 0: none
  std::size_t anonymous = 0;  // bytes of anonymous memory of all processes in it
};
CgroupMemory cgroup_memory();
// Memory free for the taking on the machine (MemAvailable), 0: unknown.
std::size_t available_bytes();
// Memory that a range of the process' own mappings really uses.
std::size_t resident_bytes(std::uintptr_t at, std::size_t bytes);
// Mappings that a process may have (vm.max_map_count), 0: unknown.
std::size_t most_mappings();
unsigned cpu_count();
int process_id();
// 64 random bits from the kernel's gift to the process (AT_RANDOM); for address choice only.
std::uint64_t startup_random();

// Writes all of it to a descriptor, whatever errno becomes; for messages and reports. On failure
// part of it may be written. A reader that is gone and a limit on the size of files (EPIPE, EFBIG)
// raise no signal. Any thread, as early as may be.
Errno write_all(int fd, const char* text, std::size_t bytes);
// A second descriptor of an open file, for the time when the application has closed the first:
// close-on-exec, a high number. It may have been closed and its number used for another file since.
struct KeptDescriptor {
  int fd = -1;
  unsigned long device = 0;
  unsigned long file = 0;
};
KeptDescriptor keep_descriptor(int fd);
bool still_there(const KeptDescriptor& kept);
bool is_open(int fd);
void let_go(KeptDescriptor* kept);
void write_text(const char* text);  // to standard error
// Writes `bytes` to a file of its own (created 0600, truncated).
Errno write_file(const char* path, const char* text, std::size_t bytes);
// Reads at most `room - 1` bytes of a small file and closes the text with NUL. Length, or -1.
long read_file(const char* path, char* out, std::size_t room);

}  // namespace heaptier::os
