// Which pages are present, as kernels tell it that have no PAGEMAP_SCAN (before Linux 6.7): a word
// a page from /proc/self/pagemap. Whether they are one huge page only /proc/kpageflags says, to
// root; whoever may not read it finds small pages.
//
// Thread rule: any thread; no state.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/base/errno.h"
#include "runtime/base/ports.h"

namespace heaptier::os {

// As MemoryOps::scan(). `page_flags`: a descriptor of /proc/kpageflags, -1: none. A zero page
// counts as any other.
Errno read_pagemap(int pagemap, int page_flags, std::uintptr_t at, std::size_t bytes,
                   ScannedRun* out, std::size_t max, std::size_t* found, std::uintptr_t* next);

}  // namespace heaptier::os
