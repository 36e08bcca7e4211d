// The application's disposition of a signal whose real one is ours.
//
// Thread rule: any thread, and inside signal handlers. Reading takes no lock, so a handler may
// interrupt a writer: there are two copies, and a version that is odd while the copy not in force
// is being written. Copy (version / 2) % 2 is in force.
#pragma once

#include <signal.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace heaptier {

class KeptDisposition {
 public:
  constexpr KeptDisposition() = default;
  void read(struct sigaction* out) const;
  // Blocks all signals meanwhile: a handler of this thread that also writes would wait for ever.
  void write(const struct sigaction& in);
  // In a fork's child: whoever was writing is not there to finish; what was in force stays.
  void abandon_write();

 private:
  static constexpr std::size_t kMaskWords = sizeof(sigset_t) / sizeof(unsigned long);

  struct Copy {
    std::atomic<std::uintptr_t> handler{0};
    std::atomic<int> flags{0};
    std::atomic<unsigned long> mask[kMaskWords] = {};

    void read(struct sigaction* out) const;
    void write(const struct sigaction& in);
  };

  std::atomic<std::uint32_t> version_{0};
  Copy copies_[2];
};

}  // namespace heaptier
