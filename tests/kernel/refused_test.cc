// The kernel says no: to userfaultfd altogether (a container's seccomp filter, dropped privileges),
// or to one of the later calls (an older kernel than announced). Refused at the start: one line
// with the remedy, no tiering, and the application runs. Refused later: less tiering, and never a
// wrong byte.
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <sstream>

#include "tests/support/managed.h"
#include "tests/support/process.h"

namespace heaptier::test {
namespace {

constexpr unsigned kAny = 0;
constexpr unsigned kNewUserfaultfd = 0xAA00;  // ioctl of /dev/userfaultfd
constexpr unsigned kMove = 0xc028aa05;        // UFFDIO_MOVE, which Debian 12's headers lack

// From now on `call` (with `second` as its second argument, unless kAny) is answered so, in this
// thread.
bool answer(unsigned call, unsigned second, unsigned with) {
  const auto at = [](std::size_t offset) {
    return sock_filter BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<unsigned>(offset));
  };
  const unsigned char skip_argument = second == kAny ? 2 : 0;
  sock_filter program[] = {
      at(offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 4),
      BPF_STMT(BPF_JMP | BPF_JA, skip_argument),
      at(offsetof(seccomp_data, args) + 8),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, second, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, with),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter{sizeof program / sizeof *program, program};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

bool refuse(unsigned call, unsigned second, unsigned error) {
  return answer(call, second, SECCOMP_RET_ERRNO | (error & SECCOMP_RET_DATA));
}

// The application: more than the budget, checked twice. 0: every byte was right.
HEAPTIER_ROLE(application) {
  std::vector<std::unique_ptr<Area>> areas;
  for (std::uint64_t i = 0; i < 12; ++i) areas.push_back(std::make_unique<Area>(kPageblock, i));
  for (int round = 0; round < 3; ++round) {
    for (const auto& area : areas) {
      if (!area->holds()) return 21;
      shove(area->data(), area->size());
    }
    usleep(20000);
  }
  const bool wanted = argc > 1 && std::strcmp(argv[1], "off") == 0;
  if (wanted && tiered()) return 22;  // it was to be refused
  return 0;
}

int become_application(const char* expectation) {
  char name[] = "application";
  char role[] = "--role=application";
  char* argv[] = {name, role, const_cast<char*>(expectation), nullptr};
  execv("/proc/self/exe", argv);
  return 91;
}

// Filters outlive exec: the application starts in a world that says no.
HEAPTIER_ROLE(without_userfaultfd) {
  const auto error = static_cast<unsigned>(std::atoi(argv[1]));
  if (!refuse(SYS_userfaultfd, kAny, error) || !refuse(SYS_ioctl, kNewUserfaultfd, error))
    return 90;
  return become_application("off");
}
HEAPTIER_ROLE(without_proc) {
  const int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
      mount("none", "/proc", "tmpfs", 0, nullptr) != 0) {
    return 77;
  }
  char name[] = "application";
  char role[] = "--role=application";
  char off[] = "off";
  char* words[] = {name, role, off, nullptr};
  syscall(SYS_execveat, self, "", words, environ, AT_EMPTY_PATH);
  return 91;
}
HEAPTIER_ROLE(as_nobody) {
  if (setgid(65534) != 0 || setuid(65534) != 0) return 90;
  return become_application("off");
}
HEAPTIER_ROLE(without_call) {
  if (!refuse(static_cast<unsigned>(std::atoi(argv[1])), static_cast<unsigned>(std::atol(argv[2])),
              static_cast<unsigned>(std::atoi(argv[3])))) {
    return 90;
  }
  return become_application("any");
}

// The thread that forks is in a sandbox that kills for what serving faults takes.
HEAPTIER_ROLE(forks_in_a_sandbox) {
  Area area;
  if (wake() != 0 || !area.put_at(Place::kStored)) return 22;
  if (!answer(SYS_ioctl, kAny, SECCOMP_RET_KILL_PROCESS)) return 90;
  const pid_t child = fork();
  if (child == 0) _exit(area.holds() ? 0 : 21);
  int status = -1;
  if (waitpid(child, &status, 0) != child || status != 0) return 23;
  return area.holds() ? 0 : 21;
}

// Lines of heaptier's on standard error; anything else there is a mistake.
std::vector<std::string> said(const Ended& ended) {
  std::vector<std::string> lines;
  std::istringstream text(ended.err);
  for (std::string line; std::getline(text, line);) {
    EXPECT_EQ(line.rfind("heaptier", 0), 0u) << line;
    lines.push_back(line);
  }
  return lines;
}

void expect_one_line_with_a_remedy(const Ended& ended,
                                   std::initializer_list<const char*> remedies) {
  EXPECT_TRUE(exited(ended, 0));
  const auto lines = said(ended);
  if (!preloaded()) {
    EXPECT_TRUE(lines.empty());
    return;
  }
  ASSERT_EQ(lines.size(), 1u) << ended.err;
  EXPECT_NE(lines[0].find("tiering is off"), std::string::npos) << lines[0];
  bool found = false;
  for (const char* remedy : remedies) found = found || lines[0].find(remedy) != std::string::npos;
  EXPECT_TRUE(found) << "no remedy in: " << lines[0];
}

TEST(Refused, BySeccomp) {
  note_away(preloaded());  // nothing moves here, and that is the point
  expect_one_line_with_a_remedy(run_role("without_userfaultfd", {std::to_string(EPERM)}),
                                {"seccomp", "vm.unprivileged_userfaultfd"});
}

TEST(Refused, ByAKernelWithoutIt) {
  expect_one_line_with_a_remedy(run_role("without_userfaultfd", {std::to_string(ENOSYS)}),
                                {"CONFIG_USERFAULTFD", "kernel", "seccomp"});
}

TEST(Refused, ByDroppedPrivileges) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can drop privileges";
  std::string sysctl = "0";
  if (FILE* const file = std::fopen("/proc/sys/vm/unprivileged_userfaultfd", "r");
      file != nullptr) {
    char value[8] = "";
    if (std::fgets(value, sizeof value, file) != nullptr) sysctl = value;
    std::fclose(file);
  }
  if (sysctl[0] == '1') GTEST_SKIP() << "vm.unprivileged_userfaultfd is 1: nobody may, too";
  if (access("/dev/userfaultfd", F_OK) == 0) {
    struct Probe {
      static int run() {
        if (setgid(65534) != 0 || setuid(65534) != 0) return 2;
        return open("/dev/userfaultfd", O_RDWR | O_CLOEXEC) >= 0 ? 1 : 0;
      }
    };
    if (!exited(in_child(Probe::run), 0)) GTEST_SKIP() << "/dev/userfaultfd is open to everybody";
  }
  expect_one_line_with_a_remedy(run_role("as_nobody", {}),
                                {"vm.unprivileged_userfaultfd", "/dev/userfaultfd"});
}

TEST(Refused, WithoutProc) {
  note_away(preloaded());
  const Ended ended = run_role("without_proc", {});
  if (exited(ended, 77)) GTEST_SKIP() << "no mount namespace of one's own here";
  expect_one_line_with_a_remedy(ended, {"mount /proc"});
}

TEST(Refused, ToAForkedChildByAFilterThatKills) {
  note_away(preloaded());
  const Ended ended = run_role("forks_in_a_sandbox", {});
  EXPECT_TRUE(exited(ended, 0));
  EXPECT_EQ(said(ended).size(), preloaded() ? 1U : 0U) << ended.err;
}

struct Call {
  const char* name;
  long call;
  unsigned second;
  int error;
};
class RefusedLater : public testing::TestWithParam<Call> {};

TEST_P(RefusedLater, LosesNothing) {
  const Call& call = GetParam();
  const Ended ended = run_role(
      "without_call",
      {std::to_string(call.call), std::to_string(call.second), std::to_string(call.error)});
  EXPECT_TRUE(exited(ended, 0));
  EXPECT_LE(said(ended).size(), 3u) << "a refused call is said once, not for every page:\n"
                                    << ended.err;
}

INSTANTIATE_TEST_SUITE_P(
    Of, RefusedLater,
    testing::Values(Call{"move_einval", SYS_ioctl, kMove, EINVAL},
                    Call{"move_ebusy", SYS_ioctl, kMove, EBUSY},
                    Call{"move_enomem", SYS_ioctl, kMove, ENOMEM},
                    Call{"register_enomem", SYS_ioctl, static_cast<unsigned>(UFFDIO_REGISTER),
                         ENOMEM},
                    Call{"process_madvise_enosys", SYS_process_madvise, kAny, ENOSYS},
                    Call{"process_madvise_eperm", SYS_process_madvise, kAny, EPERM},
                    Call{"pidfd_open_eperm", SYS_pidfd_open, kAny, EPERM},
                    Call{"affinity_eperm", SYS_sched_setaffinity, kAny, EPERM},
                    Call{"scheduler_eperm", SYS_sched_setscheduler, kAny, EPERM},
                    Call{"collapse_einval", SYS_madvise, kAny, EINVAL}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace heaptier::test
