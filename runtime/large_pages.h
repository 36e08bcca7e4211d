// Whether the pages of a range can be moved one by one, on kernels where asking for it is
// dangerous.
//
// Before Linux 6.18 UFFDIO_MOVE of a part of a huge page that a pipe or a device holds on to never
// returns: the kernel cannot split the page, and tries again for ever, with the mapping locked
// (mm/userfaultfd.c, move_pages() after -EAGAIN of split_folio(); seen with 6.12, while 6.18 says
// EBUSY). Every other thread then waits for the address space, the pipe's reader perhaps among
// them. So a huge page is taken apart first, by an madvise that gives up where it cannot, and its
// parts are asked for only when that is known to have worked. Pages above 4 KiB of any other size
// (multi-size THP) are the same to UFFDIO_MOVE, and here.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/base/errno.h"
#include "runtime/base/file_tree.h"
#include "runtime/base/ports.h"

namespace heaptier {

// Thread rule: one thread at a time. Nothing is allocated; no page of the range is touched.
class LargePages {
 public:
  constexpr LargePages(MemoryOps& ops, FileTree& files) : ops_(ops), files_(files) {}

  // Makes small pages of all larger ones in a pageblock at home. kOk: none of its pages is part of
  // a larger one any more. EBUSY: one may be that cannot be taken apart now (held by a pipe or a
  // device). ENOTSUP: this cannot be known here (no /proc nor /sys). About 0.1 ms.
  Errno take_apart(std::uintptr_t block);

  // Whether the pageblock is one huge page in one mapping. False also where this cannot be known.
  bool is_huge(std::uintptr_t block);

 private:
  bool read_refusals(std::uint64_t* n);
  bool other_sizes_in_use();
  bool make_cold(std::uintptr_t block, bool singly);

  MemoryOps& ops_;
  FileTree& files_;
};

}  // namespace heaptier
