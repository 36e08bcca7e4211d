#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/preload/abi/check.h"

namespace abi {

int failures = 0;
const char* program = nullptr;

namespace {
Group* groups = nullptr;
Role* roles = nullptr;
}  // namespace

Group::Group(const char* n, void (*r)()) : name(n), run(r), next(groups) {
  groups = this;
}
Role::Role(const char* n, int (*r)(const char*)) : name(n), run(r), next(roles) {
  roles = this;
}

int run_role(const char* role, const char* argument) {
  char* const arguments[] = {const_cast<char*>(program), const_cast<char*>(role),
                             const_cast<char*>(argument), nullptr};
  pid_t child = 0;
  if (posix_spawn(&child, program, nullptr, nullptr, arguments, environ) != 0) return -1;
  int status = -1;
  waitpid(child, &status, 0);
  return status;
}

}  // namespace abi

int main(int argc, char** argv) {
  abi::program = argv[0];
  if (argc > 2) {
    for (abi::Role* r = abi::roles; r != nullptr; r = r->next) {
      if (std::strcmp(r->name, argv[1]) == 0) return r->run(argv[2]);
    }
    std::fprintf(stderr, "no role %s\n", argv[1]);
    return 2;
  }
  int ran = 0;
  for (abi::Group* g = abi::groups; g != nullptr; g = g->next) {
    if (argc > 1 && std::strcmp(g->name, argv[1]) != 0) continue;
    const int before = abi::failures;
    try {
      g->run();
      std::printf("%-10s %s\n", abi::failures == before ? "ok" : "FAILED", g->name);
    } catch (const abi::Skipped& s) {
      std::printf("%-10s %s: %s\n", "skipped", g->name, s.why);
    }
    std::fflush(stdout);
    ++ran;
  }
  return abi::failures != 0 || ran == 0 ? 1 : 0;
}
