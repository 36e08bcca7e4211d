// What huge pages the kernel makes by itself, and whether the pages of a block can be moved one by
// one on kernels where asking for it is dangerous.
//
// Before Linux 6.18 UFFDIO_MOVE of a part of a huge page that a pipe or a device holds on to never
// returns: the kernel cannot split the page, and tries again for ever, with the mapping locked
// (mm/userfaultfd.c, move_pages() after -EAGAIN of split_folio(); seen with 6.12, while 6.18 says
// EBUSY). Every other thread then waits for the address space, the pipe's reader perhaps among
// them. So a huge page is taken apart first, by an madvise that gives up where it cannot, and its
// parts are asked for only when that is known to have worked. Pages above 4 KiB of any other size
// (multi-size THP) are the same to UFFDIO_MOVE, and here.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "runtime/base/errno.h"
#include "runtime/base/file_tree.h"
#include "runtime/base/ports.h"

namespace heaptier {

// Thread rule: the background thread, but where said. Nothing is allocated; no page of a block is
// touched.
class LargePages {
 public:
  constexpr LargePages(MemoryOps& ops, FileTree& files) : ops_(ops), files_(files) {}

  // Before the first use. `refuses_held_parts`: of the kernel (os/kernel_memory.h). `advised`: the
  // heap is advised to have huge pages.
  void begin(bool refuses_held_parts, bool advised) {
    ask_first_ = !refuses_held_parts;
    advised_ = advised;
  }
  // Whether a page has to be taken apart before its parts are asked for. Any thread.
  bool ask_first() const { return ask_first_; }

  // Makes small pages of all larger ones in a pageblock at home. kOk: none of its pages is part of
  // a larger one any more. EBUSY: one may be that cannot be taken apart now (held by a pipe or a
  // device). ENOTSUP: this cannot be known here (no /proc nor /sys, or sizes in use that the kernel
  // does not count). About 0.1 ms, or some ms where other sizes are in use.
  Errno take_apart(std::uintptr_t block);
  // The same of a block that is one huge page in one mapping, which stays so where it cannot be
  // split: no file has to be asked. Any thread. ENOTSUP: it is no such block.
  Errno take_huge_apart(std::uintptr_t block);

  // Whether the pageblock is one huge page in one mapping. False also where this cannot be known.
  // Any thread.
  bool is_huge(std::uintptr_t block);

  // Whether a huge page that was parked whole comes home whole: not where the kernel makes no huge
  // page at a first touch, since it then makes a page table there before it tells of the touch. By
  // the system's setting and the process' own (prctl), which are looked at once a second.
  bool come_home_whole();
  // Looks now and then, where other threads have to know. Reads nothing elsewhere.
  void keep_known() {
    if (ask_first_) (void)come_home_whole();
  }
  // As it was the last time. Any thread.
  bool came_home_whole() const { return whole_.load(std::memory_order_relaxed); }

 private:
  bool made_at_first_touch();
  bool kernel_has_them();
  bool read_refusals(std::uint64_t* n);
  bool other_sizes_in_use();
  bool make_cold(std::uintptr_t block, bool singly);

  MemoryOps& ops_;
  FileTree& files_;
  bool ask_first_ = true;
  bool advised_ = false;
  Nanos looked_at_{};
  std::atomic<bool> whole_{false};
};

}  // namespace heaptier
