// Who calls malloc: libc for itself (stdio buffers, directory streams, ...), or libc on behalf of
// the application (strdup). The former goes to unmovable memory.
#pragma once

#include <cstdint>

namespace heaptier::preload {

// Finds the code of libc and of the dynamic linker. Once, from the constructor.
void learn_libc_callers();

struct CodeRange {
  std::uintptr_t start = 0;
  std::uintptr_t end = 0;
  bool holds(std::uintptr_t at) const { return at - start < end - start; }
};
// libc's code; empty until learnt.
CodeRange libc_code();

// Whether memory asked for from here stays libc's own.
bool is_libc_internal(std::uintptr_t caller);

// Whether the caller is libc or the dynamic linker.
bool is_system_caller(std::uintptr_t caller);

}  // namespace heaptier::preload
