// A test program that runs under LD_PRELOAD. It links nothing of heaptier's and no test framework:
// what it allocates is all its own doing. A group is one function; `abi_check` runs all, `abi_check
// NAME` runs one.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace abi {

struct Group {
  Group(const char* name, void (*run)());
  const char* name;
  void (*run)();
  Group* next;
};

// Says why the group cannot run here and ends it.
struct Skipped {
  const char* why;
};

extern int failures;
extern const char* program;  // argv[0], to start itself again

// Which heap is expected to serve: HEAPTIER_HEAP, "jemalloc" when unset.
inline const char* heap() {
  const char* h = std::getenv("HEAPTIER_HEAP");
  return h == nullptr ? "jemalloc" : h;
}
inline bool heap_is(const char* name) {
  return std::strcmp(heap(), name) == 0;
}

// Keeps the compiler from knowing what a pointer, or a size, is.
template <class T>
T opaque(T value) {
  asm volatile("" : "+r"(value) : : "memory");
  return value;
}

// Runs itself as `program ROLE ARGUMENT` and returns the exit status as of waitpid.
int run_role(const char* role, const char* argument = "");
// A role is the main of such a process.
struct Role {
  Role(const char* name, int (*run)(const char* argument));
  const char* name;
  int (*run)(const char* argument);
  Role* next;
};

}  // namespace abi

#define GROUP(name)                                  \
  static void run_##name();                          \
  static abi::Group group_##name(#name, run_##name); \
  static void run_##name()

#define ROLE(name)                                      \
  static int role_##name(const char* argument);         \
  static abi::Role the_role_##name(#name, role_##name); \
  static int role_##name([[maybe_unused]] const char* argument)

#define CHECK(condition)                                                           \
  do {                                                                             \
    if (!(condition)) {                                                            \
      std::fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
      ++abi::failures;                                                             \
    }                                                                              \
  } while (false)
