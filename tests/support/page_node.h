// Where a page is, as the kernel says.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <random>

namespace heaptier::test {

// The memory node of a page; negative: it is not mapped, or that cannot be known.
inline int node_of(const void* p) {
  void* page = const_cast<void*>(p);
  int status = -1;
  syscall(SYS_move_pages, 0, 1UL, &page, nullptr, &status, 0);
  return status;
}

// The part of some pages, looked at right after a touch, that are on the node. Few, since looking
// is touching.
inline double share_on(int node, const unsigned char* data, std::size_t bytes) {
  constexpr int kLooks = 128;
  static std::minstd_rand random(3);
  int there = 0;
  for (int i = 0; i < kLooks; ++i) {
    const unsigned char* const at = data + random() % bytes;
    volatile const unsigned char touch = *at;
    (void)touch;
    there += node_of(at) == node ? 1 : 0;
  }
  return static_cast<double>(there) / kLooks;
}

}  // namespace heaptier::test
