#include "uffd/kept_disposition.h"

#include <cstring>

#include "uffd/patience.h"
#include "uffd/thread_door.h"

namespace heaptier {

void KeptDisposition::Copy::read(struct sigaction* out) const {
  *out = {};
  // sa_handler and sa_sigaction share their place.
  const std::uintptr_t address = handler.load(std::memory_order_relaxed);
  out->sa_sigaction = reinterpret_cast<void (*)(int, siginfo_t*, void*)>(address);
  out->sa_flags = flags.load(std::memory_order_relaxed);
  unsigned long words[kMaskWords];
  for (std::size_t i = 0; i < kMaskWords; ++i) words[i] = mask[i].load(std::memory_order_relaxed);
  std::memcpy(&out->sa_mask, words, sizeof words);
}

void KeptDisposition::Copy::write(const struct sigaction& in) {
  handler.store(reinterpret_cast<std::uintptr_t>(in.sa_sigaction), std::memory_order_relaxed);
  flags.store(in.sa_flags, std::memory_order_relaxed);
  unsigned long words[kMaskWords];
  std::memcpy(words, &in.sa_mask, sizeof words);
  for (std::size_t i = 0; i < kMaskWords; ++i) mask[i].store(words[i], std::memory_order_relaxed);
}

void KeptDisposition::read(struct sigaction* out) const {
  for (;;) {
    const std::uint32_t before = version_.load(std::memory_order_acquire);
    copies_[(before >> 1) & 1].read(out);
    std::atomic_thread_fence(std::memory_order_acquire);
    const std::uint32_t after = version_.load(std::memory_order_relaxed);
    if (before >> 1 == after >> 1) return;
  }
}

void KeptDisposition::write(const struct sigaction& in) {
  sigset_t before;
  door::block_signals(&before);
  Patience patience;
  std::uint32_t version = version_.load(std::memory_order_relaxed) & ~1u;
  while (!version_.compare_exchange_weak(version, version | 1, std::memory_order_acq_rel)) {
    version &= ~1u;
    patience.pause();
  }
  // A reader that sees any of the stores below must also see that the version moved on.
  std::atomic_thread_fence(std::memory_order_release);
  copies_[((version >> 1) + 1) & 1].write(in);
  version_.store(version + 2, std::memory_order_release);
  door::restore_signals(before);
}

void KeptDisposition::abandon_write() {
  version_.store(version_.load(std::memory_order_relaxed) & ~1u, std::memory_order_relaxed);
}

}  // namespace heaptier
