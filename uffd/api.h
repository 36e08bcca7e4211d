// The door to the kernel's userfaultfd: the only file of this room that knows its ioctls.
//
// Thread rule: FaultPort's methods and read_events() from any thread at once; open() and close() by
// one thread while nobody else uses the object. No memory is allocated. File descriptors are
// close-on-exec, non-blocking, and moved to high numbers, out of the way of programs that count on
// low ones.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/base/errno.h"
#include "runtime/base/ports.h"
#include "uffd/event.h"
#include "uffd/features.h"

namespace heaptier {

enum class OpenMode : std::uint8_t {
  kHandler,  // faults are messages, served by other threads (uffd/fault_loop.h); right for every
             // access
  kInline,   // faults are SIGBUS in the faulting thread (uffd/inline_faults.h); system calls get
             // EFAULT
};

class Userfaultfd final : public FaultPort {
 public:
  constexpr Userfaultfd() = default;
  // Tries the sources in the order of enum Source; kUserModeOnly only for kInline. On failure the
  // errno of the system call (EPERM: not allowed, ENOSYS: not in this kernel; EBUSY: already open).
  // `source` may be null. `feature_mask`: kernel abilities outside it are treated as absent (tests
  // of older kernels).
  Errno open(OpenMode mode, Source* source, std::uint64_t feature_mask = ~std::uint64_t{0});
  // Every registration made through it ends: absent pages then read as zeros. Threads asleep in
  // faults wake.
  void close();
  bool is_open() const { return fd_ >= 0; }
  int fd() const { return fd_; }
  // Abilities of the kernel that may be used through this descriptor.
  const Features& features() const { return features_; }

  // As many messages as are there, at most `max` (128 a call). *n == 0 and kOk: none now.
  Errno read_events(RawEvent* out, std::size_t max, std::size_t* n);

  Errno register_range(std::uintptr_t at, std::size_t bytes) override;
  Errno unregister_range(std::uintptr_t at, std::size_t bytes) override;
  RunResult copy(std::uintptr_t to, const void* from, std::size_t bytes, bool wp,
                 bool wake) override;
  RunResult zero(std::uintptr_t to, std::size_t bytes, bool wake) override;
  // ENOTSUP without features().move.
  RunResult move(std::uintptr_t to, std::uintptr_t from, std::size_t bytes, bool wake) override;
  Errno write_protect(std::uintptr_t at, std::size_t bytes, bool on, bool wake) override;
  Errno wake(std::uintptr_t at, std::size_t bytes) override;
  // Every later touch of these absent pages is SIGBUS (BUS_MCEERR_AR; BUS_ADRERR on kernels without
  // memory failure handling), in system calls EHWPOISON or EFAULT. EEXIST: a page is present; those
  // before it are poisoned. ENOTSUP without features().poison.
  RunResult poison(std::uintptr_t at, std::size_t bytes) override;

 private:
  int fd_ = -1;
  Features features_;
};

}  // namespace heaptier
