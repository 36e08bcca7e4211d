// Hosts that give no userfaultfd: a clean errno, the right remedy, and no trace left behind.
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <cstddef>

#include "tests/kernel/uffd/fixture.h"
#include "uffd/api.h"

namespace heaptier {
namespace {

using testing::exited_with;
using testing::in_child;

// From now on userfaultfd(2) fails with `error`, as under a container's filter, and so does the
// ioctl of the device.
bool refuse_userfaultfd(unsigned error) {
  constexpr unsigned kIocNew = 0xaa00;
  const sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_userfaultfd, 4, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 2),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[1])),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kIocNew, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
  };
  const sock_fprog program = {sizeof code / sizeof code[0], const_cast<sock_filter*>(code)};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

constexpr int kCannot = 77;

TEST(Refused, ByAFilter) {
  for (int error : {EPERM, ENOSYS}) {
    const int status = in_child([error] {
      if (!refuse_userfaultfd(static_cast<unsigned>(error))) return kCannot;
      Userfaultfd port;
      Source source = Source::kSysctl;
      if (!(port.open(OpenMode::kHandler, &source) == Errno{error})) return 1;
      if (source != Source::kNone || port.is_open()) return 2;
      if (!(port.open(OpenMode::kInline, &source) == Errno{error})) return 3;
      ShardedPort shards;
      if (!(shards.open(OpenMode::kHandler, 4, nullptr) == Errno{error})) return 4;
      const ProbeResult r = probe();
      if (r.source != Source::kNone || r.errno_syscall != error || r.user_mode_only_works) return 5;
      if (r.errno_device == 0) return 6;
      // A kernel without userfaultfd looks the same as a filter that says ENOSYS where there is no
      // device either.
      const bool no_device = r.errno_device == ENOENT || r.errno_device == ENXIO;
      const char* expected = error == ENOSYS && no_device ? "CONFIG_USERFAULTFD" : "seccomp";
      return std::strstr(remedy(r), expected) != nullptr ? 0 : 7;
    });
    if (exited_with(status, kCannot)) GTEST_SKIP() << "no seccomp filters here";
    EXPECT_TRUE(exited_with(status, 0)) << status;
  }
}

TEST(Refused, ToAnOrdinaryUser) {
  const int status = in_child([] {
    if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) return kCannot;
    const ProbeResult r = probe();
    if (r.source != Source::kNone) return kCannot;  // this host lets everybody
    Userfaultfd port;
    Source source = Source::kNone;
    if (!(port.open(OpenMode::kHandler, &source) == Errno{r.errno_syscall})) return 1;
    if (std::strlen(remedy(r)) == 0) return 2;
    if (!r.user_mode_only_works) return 0;
    if (std::strstr(remedy(r), "unprivileged_userfaultfd=1") == nullptr) return 3;
    if (port.open(OpenMode::kInline, &source).failed()) return 4;
    if (source != Source::kUserModeOnly || !port.features().sigbus) return 5;
    return 0;
  });
  if (exited_with(status, kCannot)) GTEST_SKIP() << "everybody may, or nobody to become";
  EXPECT_TRUE(exited_with(status, 0)) << status;
}

TEST(Refused, ForWantOfDescriptors) {
  const int status = in_child([] {
    Userfaultfd enough;
    if (enough.open(OpenMode::kHandler, nullptr).failed()) return kCannot;
    enough.close();
    // Four shards want four: room for two is left, and both come back.
    const rlimit limit{5, 5};
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) return kCannot;
    for (int fd = 3; fd < 1024; ++fd) ::close(fd);
    ShardedPort port;
    if (!(port.open(OpenMode::kHandler, 4, nullptr) == Errno{EMFILE})) return 1;
    if (port.is_open()) return 2;
    if (dup(0) != 3 || dup(0) != 4) return 3;
    const ProbeResult r = probe();
    if (std::strstr(remedy(r), "ulimit -n") == nullptr) return 4;
    return 0;
  });
  if (exited_with(status, kCannot)) GTEST_SKIP() << "no userfaultfd to begin with";
  EXPECT_TRUE(exited_with(status, 0)) << status;
}

}  // namespace
}  // namespace heaptier
