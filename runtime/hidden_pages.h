// Hidden pages (protection.h) that are to be touched by a system call, or mapped otherwise.
//
// Thread rule: any thread of the application that holds none of the engine's locks.
#pragma once

#include "runtime/content.h"
#include "runtime/core.h"

namespace heaptier {

// Gives access back to all that is hidden in the pageblocks of [at, at+bytes), which lies in the
// Space; what is hidden anew meanwhile may be so afterwards. Returns how many pages of the range
// that were.
int show_hidden(Core& core, OperationGate& gate, std::uintptr_t at, std::size_t bytes);

// The same for one page whose node is asked for: old kernels do not say where hidden pages are
// (Linux 6.1). A page that waits to move at its next touch stays hidden. False: so it does.
bool show_to_find(Core& core, OperationGate& gate, std::uintptr_t page);

}  // namespace heaptier
