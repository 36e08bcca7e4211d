// Where a page is, as the kernel says.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

namespace heaptier::test {

// The memory node of a page; negative: it is not mapped, or that cannot be known.
inline int node_of(const void* p) {
  void* page = const_cast<void*>(p);
  int status = -1;
  syscall(SYS_move_pages, 0, 1UL, &page, nullptr, &status, 0);
  return status;
}

}  // namespace heaptier::test
