// The two doors to the kernel, as interfaces. Everything above them is arithmetic and bookkeeping
// that a test can run on fakes; the real ones are runtime/os/kernel_memory.cc and uffd/api.cc.
//
// Thread rule: every method may be called from any thread at the same time. None allocates from the
// managed heap, none keeps a lock. Addresses and lengths are page aligned unless said otherwise.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/base/errno.h"
#include "runtime/base/units.h"

namespace heaptier {

struct AddressRange {
  std::uintptr_t start = 0;
  std::size_t bytes = 0;
  std::uintptr_t end() const { return start + bytes; }
};

// What one scanned page is. A page that is not listed is absent.
struct ScannedRun {
  std::uintptr_t start = 0;
  std::size_t bytes = 0;
  bool huge = false;       // backed by a PMD-mapped transparent huge page
  bool zero_page = false;  // the kernel's shared zero page: reads as zero, owns no memory
};

class MemoryOps {
 public:
  // Claims address space with no access and no memory. `hint` 0 lets the kernel choose; otherwise
  // the range is taken exactly there or not at all (EEXIST). Result in *out.
  virtual Errno reserve(std::uintptr_t hint, std::size_t bytes, std::uintptr_t* out) = 0;
  // Makes a reserved range readable and writable. ENOMEM under strict overcommit or a VMA limit.
  virtual Errno commit(std::uintptr_t at, std::size_t bytes) = 0;
  // Puts fresh, empty memory into the place of a committed range, without page tables. What was
  // registered there with a FaultPort is so no more.
  virtual Errno renew(std::uintptr_t at, std::size_t bytes) = 0;
  // Makes a range inaccessible for good: a touch raises SIGSEGV.
  virtual Errno protect_none(std::uintptr_t at, std::size_t bytes) = 0;
  // Takes access away from committed pages for a while (a touch raises SIGSEGV), or gives it back,
  // to read and write. What they hold stays. ENOMEM: would need more mappings than a process may
  // have; part of the range may be done.
  virtual Errno set_access(std::uintptr_t at, std::size_t bytes, bool on) = 0;
  // Maps fresh zeroed, private, writable memory of heaptier's own (bootstrap heap, pool).
  virtual Errno map_private(std::size_t bytes, const char* name, std::uintptr_t* out) = 0;
  virtual Errno unmap(std::uintptr_t at, std::size_t bytes) = 0;
  // madvise(2) with `advice` a MADV_ constant.
  virtual Errno advise(std::uintptr_t at, std::size_t bytes, int advice) = 0;
  // Releases the memory of many ranges at once: one TLB flush for the batch where the kernel can
  // (process_madvise on oneself, Linux 6.13), else one call a range. *done: ranges released, in
  // order.
  virtual Errno discard(const AddressRange* ranges, std::size_t count, std::size_t* done) = 0;
  // Copies `count` pages from managed memory to `to` (count * 4 KiB) without ever faulting in the
  // caller: an unreadable source page is an error (EFAULT), not a signal. *done: pages copied, in
  // order.
  virtual Errno copy_pages(const std::uintptr_t* from, std::size_t count, void* to,
                           std::size_t* done) = 0;
  // Present pages of [at, at+bytes) as runs, in address order, at most `max`. *next: where to go on
  // (== end when finished). ENOTSUP where the kernel has no PAGEMAP_SCAN (before Linux 6.7).
  virtual Errno scan(std::uintptr_t at, std::size_t bytes, ScannedRun* out, std::size_t max,
                     std::size_t* found, std::uintptr_t* next) = 0;
  // Whether this process holds a file descriptor that can pin its memory for long and write it
  // without faulting (io_uring, uverbs, vfio, ...). True when in doubt.
  virtual bool may_hold_long_pins() = 0;
  virtual Nanos now() = 0;

 protected:
  ~MemoryOps() = default;
};

// Result of an operation on a run of pages: how far it came and why it stopped.
struct [[nodiscard]] RunResult {
  Errno error;           // kOk: the whole run is done
  std::size_t done = 0;  // bytes done from the start of the run, also on error
};

// One userfaultfd. Shards of the Space each have their own (uffd/shard.h).
class FaultPort {
 public:
  // Delivers MISSING and WP faults of the range here from now on. Present pages are not touched.
  virtual Errno register_range(std::uintptr_t at, std::size_t bytes) = 0;
  virtual Errno unregister_range(std::uintptr_t at, std::size_t bytes) = 0;
  // Fills absent pages from `from`. wp: mapped write-protected. wake: false leaves the faulting
  // threads asleep until wake(). EEXIST: the page at start+done is present.
  virtual RunResult copy(std::uintptr_t to, const void* from, std::size_t bytes, bool wp,
                         bool wake) = 0;
  // Maps the shared zero page.
  virtual RunResult zero(std::uintptr_t to, std::size_t bytes, bool wake) = 0;
  // Moves pages without copying (UFFDIO_MOVE, Linux 6.8). ENOENT: the page at from+done is absent.
  // EBUSY: it is pinned or shared with a forked child. EEXIST: the target is occupied there.
  virtual RunResult move(std::uintptr_t to, std::uintptr_t from, std::size_t bytes, bool wake) = 0;
  // on: later writes fault; off: they no longer do, and writers waiting there are woken (if wake).
  virtual Errno write_protect(std::uintptr_t at, std::size_t bytes, bool on, bool wake) = 0;
  virtual Errno wake(std::uintptr_t at, std::size_t bytes) = 0;
  // Every touch of these absent pages raises SIGBUS from now on (UFFDIO_POISON, Linux 6.6). Wakes.
  virtual RunResult poison(std::uintptr_t at, std::size_t bytes) = 0;

 protected:
  ~FaultPort() = default;
};

}  // namespace heaptier
