// What this host's userfaultfd can do, where it can be had from, and what would have to change for
// more. Asked once at start from the kernel (UFFDIO_API), never guessed from the headers of the
// build machine.
#pragma once

#include <cstdint>

namespace heaptier {

// Abilities of the running kernel, or of one open userfaultfd.
struct Features {
  bool wp = false;          // write protection of anonymous memory (5.7; arm64 6.10)
  bool thread_id = false;   // messages carry the faulting thread's id
  bool move = false;        // UFFDIO_MOVE (6.8)
  bool poison = false;      // UFFDIO_POISON (6.6)
  bool sigbus = false;      // faults as SIGBUS in the faulting thread (inline mode)
  bool wp_async = false;    // write tracking without messages (6.7)
  bool event_fork = false;  // needs CAP_SYS_PTRACE to be used
  std::uint64_t raw = 0;    // the kernel's feature bits
};

// The kernel's feature bits that matter here (UFFD_FEATURE_*; uffd/api.cc asserts that they agree).
namespace feature_bit {
inline constexpr std::uint64_t kWp = 1u << 0;
inline constexpr std::uint64_t kEventFork = 1u << 1;
inline constexpr std::uint64_t kSigbus = 1u << 7;
inline constexpr std::uint64_t kThreadId = 1u << 8;
inline constexpr std::uint64_t kPoison = 1u << 14;
inline constexpr std::uint64_t kWpAsync = 1u << 15;
inline constexpr std::uint64_t kMove = 1u << 16;
}  // namespace feature_bit

// Decodes the kernel's feature bits. Pure.
Features features_from_bits(std::uint64_t raw);

// Where a userfaultfd came from.
enum class Source : std::uint8_t {
  kSyscallPrivileged,  // the system call, by CAP_SYS_PTRACE
  kSysctl,             // the system call, by vm.unprivileged_userfaultfd=1
  kDevice,             // /dev/userfaultfd
  kUserModeOnly,       // the system call with UFFD_USER_MODE_ONLY: inline mode only
  kNone,
};
const char* to_string(Source source);

struct ProbeResult {
  Source source = Source::kNone;  // the first that gives a full userfaultfd
  Features features;      // of the kernel, also when only the user-mode-only kind can be had
  int errno_syscall = 0;  // why not by the system call; 0: it works
  int errno_device = 0;   // why not by /dev/userfaultfd; 0: it works
  bool user_mode_only_works = false;
};

// Opens and closes a userfaultfd in every way. A few tens of microseconds; any thread.
ProbeResult probe();

// The exact command or setting that would enable what is missing, as one line; "" when nothing is.
// Pure; static storage.
const char* remedy(const ProbeResult& result);

}  // namespace heaptier
