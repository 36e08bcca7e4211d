#include "preload/libc_callers.h"

#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <iterator>

#include "preload/next_heap.h"
#include "runtime/heap/gates.h"

namespace heaptier::preload {
namespace {

struct CodeRange {
  std::uintptr_t start = 0;
  std::uintptr_t end = 0;
};

// Functions whose memory the application gets and frees: theirs is ordinary memory. Those that only
// pass through to another of these (getline to getdelim, asprintf to vasprintf) have no code that
// allocates.
constexpr const char* kGivers[] = {
    "strdup",
    "strndup",
    "__strdup",
    "__strndup",
    "wcsdup",
    "getdelim",
    "__getdelim",
    "realpath",
    "getcwd",
    "get_current_dir_name",
    "canonicalize_file_name",
    "reallocarray",
    "scandir",
    "scandir64",
    "tempnam",
    "vasprintf",
    "asprintf",
    "__vasprintf_chk",
    "_IO_str_overflow",
    "open_memstream",
    "getaddrinfo",
    "posix_memalign",
};

constinit CodeRange libc_code;
constinit CodeRange givers[std::size(kGivers)];
constinit std::size_t giver_count = 0;

int find_libc(dl_phdr_info* info, std::size_t, void* inside) {
  const auto address = reinterpret_cast<std::uintptr_t>(inside);
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr)& segment = info->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD || (segment.p_flags & PF_X) == 0) continue;
    const std::uintptr_t start = info->dlpi_addr + segment.p_vaddr;
    if (address - start >= segment.p_memsz) continue;
    libc_code = {start, start + segment.p_memsz};
    return 1;
  }
  return 0;
}

}  // namespace

void learn_libc_callers() {
  void* inside = next_heap::next_symbol("gnu_get_libc_version");
  if (inside == nullptr || dl_iterate_phdr(find_libc, inside) == 0) return;
  for (const char* name : kGivers) {
    void* at = next_heap::next_symbol(name);
    Dl_info info;
    void* symbol = nullptr;
    if (at == nullptr || dladdr1(at, &info, &symbol, RTLD_DL_SYMENT) == 0 || symbol == nullptr) {
      continue;
    }
    const auto start = reinterpret_cast<std::uintptr_t>(at);
    givers[giver_count++] = {start, start + static_cast<const ElfW(Sym)*>(symbol)->st_size};
  }
  gates.call_start.store(libc_code.start, std::memory_order_relaxed);
  gates.call_bytes.store(libc_code.end - libc_code.start, std::memory_order_relaxed);
}

bool is_libc_internal(std::uintptr_t caller) {
  if (caller - libc_code.start >= libc_code.end - libc_code.start) return false;
  return std::none_of(givers, givers + giver_count,
                      [caller](const CodeRange& r) { return caller - r.start < r.end - r.start; });
}

}  // namespace heaptier::preload
