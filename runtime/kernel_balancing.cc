#include "runtime/kernel_balancing.h"

#include "runtime/base/first_line.h"
#include "runtime/os/futex.h"

namespace heaptier {

void KernelBalancing::keep_off(const TierChain& chain, AddressRange heap) {
  std::uint64_t mode = 0;
  if (!read_number(files_, "/proc/sys/kernel/numa_balancing", &mode) || mode == 0) return;
  if (!sandbox_.allows(chain)) return;
  heap_ = heap;
  kept_off_.store(1, std::memory_order_release);
  policy_.keep_local(true);
  (void)policy_.apply(heap_);
}

void KernelBalancing::lift(Nanos now, LoopHost& host) {
  constexpr Nanos kAgain = seconds(1);
  if (!kept_off() || now < next_) return;
  next_ = now + kAgain;
  policy_.keep_local(false);
  // In a sandbox nothing is asked of the kernel, and nobody waits for it.
  if (!sandbox_.changed() && policy_.apply(heap_, &host).failed()) return;
  kept_off_.store(0, std::memory_order_release);
  os::futex_wake_all(kept_off_);
}

void KernelBalancing::await_lifted(Nanos longest) {
  if (kept_off()) os::futex_wait(kept_off_, 1, longest);
}

}  // namespace heaptier
