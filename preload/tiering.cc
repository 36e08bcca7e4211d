#include "preload/tiering.h"

#include "runtime/os/kernel_memory.h"

namespace heaptier::preload::tiering {
namespace {

class KernelSink final : public ContentSink {
 public:
  bool drop(std::uintptr_t at, std::size_t bytes) override {
    const AddressRange range{at, bytes};
    std::size_t done = 0;
    return kernel_memory_ops().discard(&range, 1, &done).ok();
  }
  void carved(std::size_t) override {}
};

constinit KernelSink the_sink;

}  // namespace

ContentSink& sink() {
  return the_sink;
}
void fork_prepare() {}
void fork_parent() {}
void fork_child() {}

}  // namespace heaptier::preload::tiering
