#include "uffd/features.h"

#include <cerrno>

namespace heaptier {

Features features_from_bits(std::uint64_t raw) {
  const auto has = [raw](std::uint64_t bit) { return (raw & bit) != 0; };
  Features f;
  f.wp = has(feature_bit::kWp);
  f.thread_id = has(feature_bit::kThreadId);
  f.move = has(feature_bit::kMove);
  f.poison = has(feature_bit::kPoison);
  f.sigbus = has(feature_bit::kSigbus);
  f.wp_async = has(feature_bit::kWpAsync);
  f.event_fork = has(feature_bit::kEventFork);
  f.raw = raw;
  return f;
}

const char* to_string(Source source) {
  switch (source) {
    case Source::kSyscallPrivileged:
      return "system call (CAP_SYS_PTRACE)";
    case Source::kSysctl:
      return "system call (vm.unprivileged_userfaultfd=1)";
    case Source::kDevice:
      return "/dev/userfaultfd";
    case Source::kUserModeOnly:
      return "system call (user-mode faults only)";
    case Source::kNone:
      return "none";
  }
  return "?";
}

// setcap on the application is never the answer here: the loader ignores LD_PRELOAD for such
// programs.
const char* remedy(const ProbeResult& r) {
  if (r.source != Source::kNone) {
    if (!r.features.wp) {
      return "this kernel cannot write-protect anonymous memory by userfaultfd: boot Linux 5.7 or "
             "later (arm64: 6.10 or later)";
    }
    if (!r.features.move) {
      return "this kernel is too old for UFFDIO_MOVE: boot Linux 6.8 or later (Debian 12: sudo apt "
             "install -t bookworm-backports linux-image-amd64)";
    }
    return "";
  }
  if (r.errno_syscall == EMFILE || r.errno_syscall == ENFILE || r.errno_syscall == ENOMEM) {
    return "no file descriptor is left for a userfaultfd: raise the limit, e.g. ulimit -n 4096";
  }
  if (r.errno_syscall == ENOSYS && (r.errno_device == ENOENT || r.errno_device == ENXIO)) {
    return "this kernel has no userfaultfd: boot one built with CONFIG_USERFAULTFD=y (Debian's and "
           "Ubuntu's are)";
  }
  // Nobody is refused the user-mode-only kind by the kernel itself: whoever is, is so by a filter.
  if (!r.user_mode_only_works &&
      (r.errno_syscall == EPERM || r.errno_syscall == EACCES || r.errno_syscall == ENOSYS)) {
    return "a seccomp filter refuses userfaultfd: docker run --device /dev/userfaultfd, or "
           "--security-opt seccomp=PROFILE with a profile that allows userfaultfd (=unconfined to "
           "try); systemd: SystemCallFilter=userfaultfd";
  }
  if (r.errno_device == EACCES || r.errno_device == EPERM) {
    return "sudo sysctl -w vm.unprivileged_userfaultfd=1   (or, for one user: sudo setfacl -m "
           "u:$USER:rw /dev/userfaultfd; to stay: echo 'KERNEL==\"userfaultfd\", GROUP=\"users\", "
           "MODE=\"0660\"' | sudo tee /etc/udev/rules.d/60-userfaultfd.rules)";
  }
  return "sudo sysctl -w vm.unprivileged_userfaultfd=1   (to stay: echo "
         "vm.unprivileged_userfaultfd=1 | sudo tee /etc/sysctl.d/60-userfaultfd.conf)";
}

}  // namespace heaptier
