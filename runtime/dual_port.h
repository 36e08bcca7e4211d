// Two kinds of faults in one process: messages to handlers for ordinary memory, signals in the
// faulting thread for pageblocks of heaps that the application declared user-only. Every operation
// stays within one pageblock or, at the registration of inherited memory, within one owner; the
// block's owner decides.
//
// Thread rule: as the ports'.
#pragma once

#include "runtime/arena.h"
#include "runtime/base/ports.h"

namespace heaptier {

class DualPort final : public FaultPort {
 public:
  // `park_base`: read at every call, since it is chosen late.
  DualPort(const Space& space, const std::uintptr_t& park_base)
      : space_(space), park_base_(park_base) {}
  // `inline_port` null: all memory is served by the other.
  void use(FaultPort* handler_port, FaultPort* inline_port) {
    handler_port_ = handler_port;
    inline_port_ = inline_port;
  }

  Errno register_range(std::uintptr_t at, std::size_t bytes) override {
    return port(at).register_range(at, bytes);
  }
  Errno unregister_range(std::uintptr_t at, std::size_t bytes) override {
    return port(at).unregister_range(at, bytes);
  }
  RunResult copy(std::uintptr_t to, const void* from, std::size_t bytes, bool wp,
                 bool wake) override {
    return port(to).copy(to, from, bytes, wp, wake);
  }
  RunResult zero(std::uintptr_t to, std::size_t bytes, bool wake) override {
    return port(to).zero(to, bytes, wake);
  }
  RunResult move(std::uintptr_t to, std::uintptr_t from, std::size_t bytes, bool wake) override {
    return port(to).move(to, from, bytes, wake);
  }
  Errno write_protect(std::uintptr_t at, std::size_t bytes, bool on, bool wake) override {
    return port(at).write_protect(at, bytes, on, wake);
  }
  Errno wake(std::uintptr_t at, std::size_t bytes) override { return port(at).wake(at, bytes); }
  RunResult poison(std::uintptr_t at, std::size_t bytes) override {
    return port(at).poison(at, bytes);
  }

  bool is_inline(std::uintptr_t at) const {
    if (inline_port_ == nullptr) return false;
    if (handler_port_ == nullptr) return true;
    const std::uintptr_t in_park = at - park_base_;
    const std::uintptr_t home = in_park < space_.bytes() ? space_.base() + in_park : at;
    return space_.owner_of(block_of(space_.page_at(home))) == Owner::kUserOnly;
  }

 private:
  FaultPort& port(std::uintptr_t at) const {
    return is_inline(at) ? *inline_port_ : *handler_port_;
  }

  const Space& space_;
  const std::uintptr_t& park_base_;
  FaultPort* handler_port_ = nullptr;
  FaultPort* inline_port_ = nullptr;
};

}  // namespace heaptier
