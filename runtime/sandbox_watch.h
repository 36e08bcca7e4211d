// Whether what moves pages between nodes may be asked of the kernel: an application can enter a
// sandbox that ends the process for it, before that or later.
//
// Thread rule: one thread, the one that asks the kernel.
#pragma once

#include "runtime/config/options.h"
#include "runtime/os/sandbox.h"

namespace heaptier {

class SandboxWatch {
 public:
  // Found out once; where the chain names nodes it was when the engine woke.
  bool allows(const TierChain& chain) {
    filters_ = os::seccomp_filters();
    return chain.names_nodes() || filters_ == 0 || !os::filter_would_kill(true);
  }
  // Since then; from the first time on for good.
  bool changed() {
    if (!changed_ && os::seccomp_filters() != filters_) changed_ = true;
    return changed_;
  }

 private:
  unsigned filters_ = 0;
  bool changed_ = false;
};

}  // namespace heaptier
