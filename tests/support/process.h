// Other processes for tests: this program again in a named role, a forked child with a time limit,
// any command. A process that does not end in time is killed and reported as such: a hang is a
// result, not a stuck test.
#pragma once

#include <gtest/gtest.h>
#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

namespace heaptier::test {

struct Ended {
  bool timed_out = false;
  int status = 0;  // as of waitpid
  std::string out;
  std::string err;
};
testing::AssertionResult exited(const Ended& ended, int code);
testing::AssertionResult killed(const Ended& ended, int signal);

// Waits for a child of ours; after `seconds` it is killed.
Ended wait_for(pid_t child, double seconds);

// fork()s; the child's exit status (by _exit) is what `body` returns. The child must not use
// gtest's assertions.
Ended in_child(const std::function<int()>& body, double seconds = 20);

// A role is a second main() of a test program: `program --role=NAME ARG...`. The program starts
// itself again for it, so that the role runs with its own heaptier from the very start.
using RoleMain = int (*)(int argc, char** argv);
struct Role {
  Role(const char* name, RoleMain main);
};
#define HEAPTIER_ROLE(name)                                              \
  int role_##name(int, char**);                                          \
  const ::heaptier::test::Role register_role_##name{#name, role_##name}; \
  int role_##name([[maybe_unused]] int argc, [[maybe_unused]] char** argv)

// Environment changes: "NAME=value" sets, "NAME" removes.
using Changes = std::vector<std::string>;

// A role that runs beside the test, with pipes to its standard input and from its standard output;
// its standard error is ours.
class Beside {
 public:
  Beside(const char* role, const std::vector<std::string>& args, const Changes& changes = {});
  ~Beside();  // kills it if it still runs
  Beside(const Beside&) = delete;
  Beside& operator=(const Beside&) = delete;
  pid_t pid() const { return pid_; }
  bool tell(const std::string& line);
  // The next line without its newline; empty when the role is gone or says nothing for 20 s.
  std::string hear();
  Ended end(double seconds = 20);

 private:
  pid_t pid_ = -1;
  int to_ = -1;
  int from_ = -1;
};

Ended run_role(const char* role, const std::vector<std::string>& args, const Changes& changes = {},
               double seconds = 30);
Ended run_command(const std::vector<std::string>& argv, const Changes& changes = {},
                  double seconds = 30);

// Runs the role that argv names, if it names one: for main() only. Returns false when it does not.
bool run_named_role(int argc, char** argv, int* status);

}  // namespace heaptier::test
