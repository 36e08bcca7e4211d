// A library with constructors and destructors that allocate: loaded with the program, or later with
// dlopen.
#include "tests/preload/abi/early_library.h"

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

char* from_constructor = nullptr;
std::string* from_static = new std::string(1000, 's');
std::vector<std::string> with_destructor(100, std::string(100, 'v'));

__attribute__((constructor)) void construct() {
  from_constructor = static_cast<char*>(std::malloc(5000));
  std::memset(from_constructor, 'c', 5000);
}

// Runs after, or before, the preloaded library's own: both must work.
__attribute__((destructor)) void destruct() {
  std::free(from_constructor);
  char* late = static_cast<char*>(std::malloc(100000));
  if (late == nullptr) std::abort();
  std::memset(late, 1, 100000);
  std::free(late);
  delete from_static;
}

}  // namespace

extern "C" int early_library_is_whole() {
  for (int i = 0; i < 5000; ++i) {
    if (from_constructor[i] != 'c') return 0;
  }
  return *from_static == std::string(1000, 's') && with_destructor[99] == std::string(100, 'v');
}

extern "C" void* early_library_gives(unsigned long bytes) {
  return std::malloc(bytes);
}

static thread_local char big_thread_local[20000];
extern "C" char* early_library_thread_local() {
  return big_thread_local;
}
