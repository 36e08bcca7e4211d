// Little address space, little memory: malloc says no, and goes on when there is some again.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <new>
#include <string>
#include <vector>

#include "tests/preload/abi/check.h"

namespace {

// Takes memory until there is none. Returns the MiB taken, or -1 for a wrong errno.
long fill(std::vector<void*>* taken, std::size_t bytes) {
  for (;;) {
    errno = 0;
    void* p = std::malloc(bytes);
    if (p == nullptr) {
      return errno == ENOMEM ? static_cast<long>(taken->size() * bytes >> 20) : -1;
    }
    static_cast<char*>(p)[0] = 1;
    static_cast<char*>(p)[bytes - 1] = 1;
    taken->push_back(p);
  }
}

}  // namespace

// Under a limit of ARGUMENT MiB, set before this process was started.
ROLE(under_a_limit) {
  const long limit = std::strtol(argument, nullptr, 10);
  std::vector<void*> taken;
  taken.reserve(100000);
  for (std::size_t bytes : {std::size_t{100000}, std::size_t{3} << 20, std::size_t{1} << 16}) {
    const long got = fill(&taken, bytes);
    if (got < 0 || got > limit) return 10;
    if (taken.empty()) return 11;
    for (void* p : taken) std::free(p);
    taken.clear();
    void* again = std::malloc(bytes);
    if (again == nullptr) return 12;
    std::free(again);
  }
  try {
    for (;;) taken.push_back(::operator new(1 << 20));
  } catch (const std::bad_alloc&) {
  }
  for (void* p : taken) ::operator delete(p);
  FILE* f = std::fopen("/dev/null", "w");
  if (f == nullptr) return 13;
  std::fclose(f);
  return 0;
}

ROLE(sets_a_limit) {
  const std::string what(argument);
  const std::size_t colon = what.find(':');
  const long mib = std::strtol(what.c_str() + colon + 1, nullptr, 10);
  const rlimit limit{static_cast<rlim_t>(mib) << 20, static_cast<rlim_t>(mib) << 20};
  setrlimit(what.substr(0, colon) == "as" ? RLIMIT_AS : RLIMIT_DATA, &limit);
  execl(abi::program, abi::program, "under_a_limit", what.c_str() + colon + 1, nullptr);
  return 99;
}

GROUP(limited_address_space) {
  // The program itself, its libraries and their mappings need some, too.
  for (const char* limit : {"as:100", "as:150", "as:300", "as:1000", "data:100", "data:400"}) {
    const int status = abi::run_role("sets_a_limit", limit);
    if (status != 0) std::fprintf(stderr, "limit %s: status %x\n", limit, status);
    CHECK(status == 0);
  }
}

// So little that not even the library's own beginnings fit: the program must run all the same.
ROLE(sets_a_tiny_limit) {
  const rlimit limit{static_cast<rlim_t>(std::strtol(argument, nullptr, 10)) << 20, RLIM_INFINITY};
  setrlimit(RLIMIT_AS, &limit);
  execl("/bin/true", "/bin/true", nullptr);
  return 99;
}

GROUP(tiny_address_space) {
  for (const char* limit : {"8", "12", "16", "20", "24", "28", "32", "40", "64"}) {
    const int status = abi::run_role("sets_a_tiny_limit", limit);
    // 127: the dynamic linker itself had no room.
    if (status != 0 && status != 127 << 8)
      std::fprintf(stderr, "limit %s: status %x\n", limit, status);
    CHECK(status == 0 || status == 127 << 8);
  }
}

// The kernel refuses a program that asks for more than there is, whatever the overcommit mode.
GROUP(more_than_there_is) {
  errno = 0;
  void* p = std::malloc(abi::opaque(std::size_t{200} << 40));
  CHECK(p == nullptr && errno == ENOMEM);
  std::free(p);
  p = std::malloc(1000);
  CHECK(p != nullptr);
  std::free(p);
}
