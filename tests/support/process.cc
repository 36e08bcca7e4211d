#include "tests/support/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

extern char** environ;

namespace heaptier::test {
namespace {

constexpr int kRoles = 32;
struct {
  const char* name;
  RoleMain main;
} g_roles[kRoles];
int g_role_count = 0;

using Clock = std::chrono::steady_clock;
int ms_until(Clock::time_point limit) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(limit - Clock::now());
  return left.count() < 0 ? 0 : static_cast<int>(left.count());
}
Clock::time_point after(double seconds) {
  return Clock::now() + std::chrono::milliseconds(static_cast<long>(seconds * 1000));
}

std::vector<std::string> changed_environment(const Changes& changes) {
  std::vector<std::string> result;
  const auto name_of = [](const std::string& entry) { return entry.substr(0, entry.find('=')); };
  for (char** e = environ; *e != nullptr; ++e) {
    bool dropped = false;
    for (const auto& change : changes) dropped = dropped || name_of(change) == name_of(*e);
    if (!dropped) result.emplace_back(*e);
  }
  for (const auto& change : changes) {
    if (change.find('=') != std::string::npos) result.push_back(change);
  }
  return result;
}

std::vector<char*> pointers(const std::vector<std::string>& strings) {
  std::vector<char*> result;
  for (const auto& s : strings) result.push_back(const_cast<char*>(s.c_str()));
  result.push_back(nullptr);
  return result;
}

// -1: not started. posix_spawn, not fork: what is tested must not carry the test.
pid_t spawn(const std::vector<std::string>& argv, const Changes& changes, int in, int out,
            int err) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  if (in >= 0) posix_spawn_file_actions_adddup2(&actions, in, 0);
  if (out >= 0) posix_spawn_file_actions_adddup2(&actions, out, 1);
  if (err >= 0) posix_spawn_file_actions_adddup2(&actions, err, 2);
  const auto environment = changed_environment(changes);
  pid_t pid = -1;
  const int error = posix_spawnp(&pid, argv[0].c_str(), &actions, nullptr, pointers(argv).data(),
                                 pointers(environment).data());
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    std::fprintf(stderr, "cannot start %s: %s\n", argv[0].c_str(), std::strerror(error));
    return -1;
  }
  return pid;
}

void close_all(const int* fds, int n) {
  for (int i = 0; i < n; ++i) close(fds[i]);
}

std::vector<std::string> role_argv(const char* role, const std::vector<std::string>& args) {
  std::vector<std::string> argv{"/proc/self/exe", std::string("--role=") + role};
  argv.insert(argv.end(), args.begin(), args.end());
  return argv;
}

}  // namespace

Role::Role(const char* name, RoleMain main) {
  if (g_role_count < kRoles) g_roles[g_role_count++] = {name, main};
}

bool run_named_role(int argc, char** argv, int* status) {
  if (argc < 2 || std::strncmp(argv[1], "--role=", 7) != 0) return false;
  for (int i = 0; i < g_role_count; ++i) {
    if (std::strcmp(g_roles[i].name, argv[1] + 7) == 0) {
      *status = g_roles[i].main(argc - 1, argv + 1);
      return true;
    }
  }
  std::fprintf(stderr, "no role named %s\n", argv[1] + 7);
  *status = 2;
  return true;
}

testing::AssertionResult exited(const Ended& ended, int code) {
  if (!ended.timed_out && WIFEXITED(ended.status) && WEXITSTATUS(ended.status) == code) {
    return testing::AssertionSuccess();
  }
  auto failure = testing::AssertionFailure();
  if (ended.timed_out) {
    failure << "hung, and was killed";
  } else if (WIFSIGNALED(ended.status)) {
    failure << "killed by signal " << WTERMSIG(ended.status) << " ("
            << strsignal(WTERMSIG(ended.status)) << ")";
  } else {
    failure << "exit status " << WEXITSTATUS(ended.status) << ", not " << code;
  }
  return failure << "\nstdout: " << ended.out.substr(0, 2000)
                 << "\nstderr: " << ended.err.substr(0, 4000);
}

testing::AssertionResult killed(const Ended& ended, int signal) {
  if (!ended.timed_out && WIFSIGNALED(ended.status) && WTERMSIG(ended.status) == signal) {
    return testing::AssertionSuccess();
  }
  auto failure = testing::AssertionFailure();
  if (ended.timed_out) {
    failure << "hung, and was killed";
  } else if (WIFSIGNALED(ended.status)) {
    failure << "killed by signal " << WTERMSIG(ended.status) << ", not " << signal;
  } else {
    failure << "exit status " << WEXITSTATUS(ended.status) << " instead of signal " << signal;
  }
  return failure << "\nstderr: " << ended.err.substr(0, 4000);
}

Ended wait_for(pid_t child, double seconds) {
  Ended ended;
  const auto limit = after(seconds);
  const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, child, 0));
  for (;;) {
    const pid_t got = waitpid(child, &ended.status, WNOHANG);
    if (got == child) break;
    if (got < 0 && errno != EINTR) {
      ended.status = 0xff00;
      ended.err = std::string("waitpid: ") + std::strerror(errno);
      break;
    }
    const int left = ms_until(limit);
    if (left == 0) {
      ended.timed_out = true;
      kill(child, SIGKILL);
      while (waitpid(child, &ended.status, 0) < 0 && errno == EINTR) {
      }
      break;
    }
    pollfd waiting{pidfd, POLLIN, 0};
    if (pidfd < 0) {
      usleep(2000);
    } else {
      poll(&waiting, 1, left);
    }
  }
  if (pidfd >= 0) close(pidfd);
  return ended;
}

Ended in_child(const std::function<int()>& body, double seconds) {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) _exit(body());
  if (child < 0) {
    Ended ended;
    ended.status = 0xff00;
    ended.err = std::string("fork: ") + std::strerror(errno);
    return ended;
  }
  return wait_for(child, seconds);
}

Beside::Beside(const char* role, const std::vector<std::string>& args, const Changes& changes) {
  int in[2];
  int out[2];
  if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) return;
  pid_ = spawn(role_argv(role, args), changes, in[0], out[1], -1);
  close(in[0]);
  close(out[1]);
  to_ = in[1];
  from_ = out[0];
}

Beside::~Beside() {
  if (pid_ > 0) end(0);
  close(to_);
  close(from_);
}

bool Beside::tell(const std::string& line) {
  const std::string text = line + "\n";
  return write(to_, text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

std::string Beside::hear() {
  std::string line;
  const auto limit = after(60);
  for (;;) {
    pollfd waiting{from_, POLLIN, 0};
    if (poll(&waiting, 1, ms_until(limit)) <= 0) return {};
    char c;
    if (read(from_, &c, 1) != 1) return {};
    if (c == '\n') return line;
    line += c;
  }
}

Ended Beside::end(double seconds) {
  const Ended ended = wait_for(pid_, seconds);
  pid_ = -1;
  return ended;
}

Ended run_command(const std::vector<std::string>& argv, const Changes& changes, double seconds) {
  Ended ended;
  int out[2];
  int err[2];
  if (pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0) return ended;
  const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
  const pid_t child = spawn(argv, changes, null, out[1], err[1]);
  const int spent[] = {null, out[1], err[1]};
  close_all(spent, 3);
  const auto limit = after(seconds);
  pollfd from[2] = {{out[0], POLLIN, 0}, {err[0], POLLIN, 0}};
  while (child > 0 && (from[0].fd >= 0 || from[1].fd >= 0)) {
    if (poll(from, 2, ms_until(limit)) == 0) {
      kill(child, SIGKILL);
      ended.timed_out = true;
      break;
    }
    for (int i = 0; i < 2; ++i) {
      if (from[i].fd < 0 || from[i].revents == 0) continue;
      char text[4096];
      const ssize_t n = read(from[i].fd, text, sizeof text);
      if (n <= 0) {
        from[i].fd = -1;
      } else {
        (i == 0 ? ended.out : ended.err).append(text, static_cast<std::size_t>(n));
      }
    }
  }
  close(out[0]);
  close(err[0]);
  if (child > 0) {
    const Ended waited = wait_for(child, ended.timed_out ? 5 : ms_until(limit) / 1000.0);
    ended.status = waited.status;
    ended.timed_out = ended.timed_out || waited.timed_out;
  } else {
    ended.status = 127 << 8;
  }
  return ended;
}

Ended run_role(const char* role, const std::vector<std::string>& args, const Changes& changes,
               double seconds) {
  return run_command(role_argv(role, args), changes, seconds);
}

}  // namespace heaptier::test
