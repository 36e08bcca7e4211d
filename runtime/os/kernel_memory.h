// The real MemoryOps: the memory half of the door to the kernel.
#pragma once

#include "runtime/base/ports.h"

namespace heaptier {

// What the running kernel can do, found out once by trying.
struct KernelAbilities {
  bool pagemap_scan = false;      // PAGEMAP_SCAN, Linux 6.7
  bool pagemap_read = false;      // /proc/self/pagemap, in the older way
  bool batched_discard = false;   // process_madvise(DONTNEED) on oneself, Linux 6.13
  bool process_vm_readv = false;  // may be filtered by seccomp
  // UFFDIO_MOVE returns when asked for a part of a huge page that is held (runtime/large_pages.h).
  // By its version, Linux 6.18: to try it is to hang.
  bool refuses_held_parts = false;
  bool scans() const { return pagemap_scan || pagemap_read; }
};

class KernelMemory final : public MemoryOps {
 public:
  constexpr KernelMemory() = default;

  // Opens the files that scan() and discard() use (/proc/self/pagemap, a pidfd). To be called by a
  // thread whose descriptor table is heaptier's own (os::leave_descriptor_table): the application
  // neither sees nor closes them. Again in a forked child.
  void open_files();
  const KernelAbilities& abilities() const { return abilities_; }

  Errno reserve(std::uintptr_t hint, std::size_t bytes, std::uintptr_t* out) override;
  Errno commit(std::uintptr_t at, std::size_t bytes) override;
  Errno renew(std::uintptr_t at, std::size_t bytes) override;
  Errno protect_none(std::uintptr_t at, std::size_t bytes) override;
  Errno set_access(std::uintptr_t at, std::size_t bytes, bool on) override;
  Errno map_private(std::size_t bytes, const char* name, std::uintptr_t* out) override;
  Errno unmap(std::uintptr_t at, std::size_t bytes) override;
  Errno advise(std::uintptr_t at, std::size_t bytes, int advice) override;
  Errno discard(const AddressRange* ranges, std::size_t count, std::size_t* done) override;
  Errno copy_pages(const std::uintptr_t* from, std::size_t count, void* to,
                   std::size_t* done) override;
  Errno scan(std::uintptr_t at, std::size_t bytes, ScannedRun* out, std::size_t max,
             std::size_t* found, std::uintptr_t* next) override;
  bool may_hold_long_pins() override;
  Nanos now() override;

 private:
  int pagemap_ = -1;
  int page_flags_ = -1;  // only where there is no PAGEMAP_SCAN
  int pidfd_ = -1;
  KernelAbilities abilities_{};
};

KernelMemory& kernel_memory_ops();

}  // namespace heaptier
