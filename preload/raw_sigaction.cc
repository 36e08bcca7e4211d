#include "preload/raw_sigaction.h"

#include <signal.h>

#include <cerrno>
#include <cstring>

#include "uffd/inline_faults.h"

namespace heaptier::preload {
namespace {

// The kernel's struct sigaction (x86-64 and arm64), which is not libc's.
struct KernelAction {
  void (*handler)(int, siginfo_t*, void*);
  unsigned long flags;
  void (*restorer)();
  unsigned long mask;
};
constexpr long kMaskBytes = sizeof(unsigned long);

struct sigaction to_libc(const KernelAction& in) {
  struct sigaction out {};
  out.sa_sigaction = in.handler;
  out.sa_flags = static_cast<int>(in.flags);
  std::memcpy(&out.sa_mask, &in.mask, sizeof in.mask);
  return out;
}

KernelAction to_kernel(const struct sigaction& in) {
  KernelAction out{};
  out.handler = in.sa_sigaction;
  out.flags = static_cast<unsigned>(in.sa_flags);
  out.restorer = in.sa_restorer;
  std::memcpy(&out.mask, &in.sa_mask, sizeof out.mask);
  return out;
}

}  // namespace

bool raw_sigaction(long sig, long action, long old, long mask_bytes, long* result) {
  int done = 0;
  struct sigaction before {};
  if (!intercept_sigaction(static_cast<int>(sig), nullptr, &before, &done)) return false;
  if (mask_bytes != kMaskBytes) {
    errno = EINVAL;
    *result = -1;
    return true;
  }
  // NOLINTBEGIN(performance-no-int-to-ptr)
  if (action != 0) {
    const struct sigaction wanted = to_libc(*reinterpret_cast<const KernelAction*>(action));
    intercept_sigaction(static_cast<int>(sig), &wanted, &before, &done);
  }
  if (old != 0) *reinterpret_cast<KernelAction*>(old) = to_kernel(before);
  // NOLINTEND(performance-no-int-to-ptr)
  *result = done;
  return true;
}

}  // namespace heaptier::preload
