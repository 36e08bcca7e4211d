// Who calls malloc: libc for itself (stdio buffers, directory streams, ...), or libc on behalf of
// the application (strdup). The former goes to unmovable memory.
#pragma once

#include <cstdint>

namespace heaptier::preload {

// Finds libc's code and lets malloc take the long way for calls from it. Once, from the
// constructor.
void learn_libc_callers();

// Whether memory asked for from here stays libc's own.
bool is_libc_internal(std::uintptr_t caller);

}  // namespace heaptier::preload
