#include "runtime/os/translations.h"

#include <sys/mman.h>
#include <sys/syscall.h>

#include <cerrno>

#include "runtime/base/units.h"
#include "runtime/os/raw_syscall.h"

namespace heaptier::os {
namespace {

// More pages at once than Linux has CPUs forget one by one (33).
constexpr std::size_t kPages = 64;
constexpr std::size_t kBytes = kPages * kPageSize;

}  // namespace

Errno Translations::init() {
  if (pages_ != nullptr) return kOk;
  const long at = raw_syscall(SYS_mmap, 0UL, kBytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at < 0) return {errno};
  pages_ = reinterpret_cast<unsigned char*>(at);  // NOLINT(performance-no-int-to-ptr)
  return kOk;
}

// What could be written and cannot any more must not be remembered. Only what is there counts, and
// a fork has parent and child share it: so it is written first.
void Translations::forget() {
  if (pages_ == nullptr) return;
  for (std::size_t i = 0; i < kBytes; i += kPageSize) {
    *const_cast<volatile unsigned char*>(pages_ + i) = 1;
  }
  raw_syscall(SYS_mprotect, pages_, kBytes, PROT_READ);
  raw_syscall(SYS_mprotect, pages_, kBytes, PROT_READ | PROT_WRITE);
}

}  // namespace heaptier::os
