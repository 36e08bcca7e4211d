#include "preload/libc_callers.h"

#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <iterator>

#include "preload/next_heap.h"
#include "runtime/heap/gates.h"

namespace heaptier::preload {
namespace {

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
    "getaddrinfo",
    "posix_memalign",
};

constinit CodeRange libc;
constinit CodeRange linker;
constinit CodeRange givers[std::size(kGivers)];
constinit std::size_t giver_count = 0;

// For the object that holds the address which *range starts with: its code.
int find_code(dl_phdr_info* info, std::size_t, void* out) {
  auto* range = static_cast<CodeRange*>(out);
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr)& segment = info->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD || (segment.p_flags & PF_X) == 0) continue;
    const std::uintptr_t start = info->dlpi_addr + segment.p_vaddr;
    if (range->start - start >= segment.p_memsz) continue;
    *range = {start, start + segment.p_memsz};
    return 1;
  }
  return 0;
}

CodeRange code_around(const char* function) {
  void* inside = next_heap::next_symbol(function);
  CodeRange range{reinterpret_cast<std::uintptr_t>(inside), 0};
  return inside != nullptr && dl_iterate_phdr(find_code, &range) != 0 ? range : CodeRange{};
}

}  // namespace

void learn_libc_callers() {
  libc = code_around("gnu_get_libc_version");
  linker = code_around("__tls_get_addr");
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
}

CodeRange libc_code() {
  return libc;
}

bool is_libc_internal(std::uintptr_t caller) {
  if (!libc.holds(caller)) return false;
  const bool internal =
      std::none_of(givers, givers + giver_count,
                   [caller](const CodeRange& range) { return range.holds(caller); });
  if (!internal) gates.giver(caller).store(caller, std::memory_order_relaxed);
  return internal;
}

bool is_system_caller(std::uintptr_t caller) {
  return libc.holds(caller) || linker.holds(caller);
}

}  // namespace heaptier::preload
