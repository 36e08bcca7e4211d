// Has the process' CPUs forget where pages are (their TLBs). A page that a CPU remembers is touched
// without the page table's being looked at, so that nobody who goes by accessed bits sees it: who
// clears these bits, the kernel's DAMON among them, does not have the CPUs forget, as that costs
// each of them an interruption.
//
// Thread rule: one thread.
#pragma once

#include <cstddef>

#include "runtime/base/errno.h"

namespace heaptier::os {

class Translations {
 public:
  // Memory of its own, 256 KiB. ENOMEM. Once.
  Errno init();
  // All of them, on every CPU that runs the process. Nothing before init().
  void forget();

 private:
  unsigned char* pages_ = nullptr;
};

}  // namespace heaptier::os
