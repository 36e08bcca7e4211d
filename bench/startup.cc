// bench_startup: what a preloaded library adds to the shortest program there is. Starts /bin/true
// (or another command) some hundred times in each of two environments, A B B A, and prints wall
// time and peak memory of both.
//
//   bench_startup ROUNDS [--a NAME=VALUE]... [--b NAME=VALUE]... [-- command [arguments]]
//
// Linked statically: a child's ru_maxrss is never below the size its parent had at exec, so the
// parent must be smaller than the smallest child.
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "bench/harness/clock.h"

namespace heaptier::bench {
namespace {

struct Variant {
  std::vector<char*> environment;
  std::vector<double> wall_us;
  std::vector<double> rss_kib;
};

char g_path[] = "PATH=/usr/bin:/bin";

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// One start to exit. False when the command cannot be started or fails.
bool start_once(char** command, Variant& variant) {
  pid_t pid = 0;
  rusage usage{};
  int status = 0;
  const std::uint64_t start = wall_nanos();
  if (posix_spawn(&pid, command[0], nullptr, nullptr, command, variant.environment.data()) != 0) {
    return false;
  }
  if (wait4(pid, &status, 0, &usage) != pid) return false;
  const std::uint64_t end = wall_nanos();
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) return false;
  variant.wall_us.push_back(static_cast<double>(end - start) / 1000);
  variant.rss_kib.push_back(static_cast<double>(usage.ru_maxrss));
  return true;
}

int run(int argc, char** argv) {
  char true_command[] = "/bin/true";
  char* default_command[] = {true_command, nullptr};
  char** command = default_command;
  Variant a;
  Variant b;
  for (Variant* v : {&a, &b}) v->environment.push_back(g_path);
  const long rounds = argc > 1 ? std::strtol(argv[1], nullptr, 10) : 0;
  for (int i = 2; i < argc; ++i) {
    if (std::strcmp(argv[i], "--") == 0) {
      command = argv + i + 1;
      break;
    }
    Variant* v = std::strcmp(argv[i], "--a") == 0   ? &a
                 : std::strcmp(argv[i], "--b") == 0 ? &b
                                                    : nullptr;
    if (v == nullptr || i + 1 == argc) {
      std::fprintf(stderr, "bench_startup: cannot use '%s'\n", argv[i]);
      return 2;
    }
    v->environment.push_back(argv[++i]);
  }
  if (rounds < 1 || command[0] == nullptr) {
    std::fputs("usage: bench_startup ROUNDS [--a NAME=VALUE] [--b NAME=VALUE] [-- command]\n",
               stderr);
    return 2;
  }
  for (Variant* v : {&a, &b}) v->environment.push_back(nullptr);

  std::vector<double> extra_us;
  for (long i = -3; i < rounds; ++i) {  // three rounds bring the files into the page cache
    Variant& first = i % 2 == 0 ? a : b;
    Variant& second = i % 2 == 0 ? b : a;
    if (!start_once(command, first) || !start_once(command, second)) {
      std::fprintf(stderr, "bench_startup: %s did not run\n", command[0]);
      return 1;
    }
    if (i < 0) {
      for (Variant* v : {&a, &b}) {
        v->wall_us.clear();
        v->rss_kib.clear();
      }
      continue;
    }
    extra_us.push_back(b.wall_us.back() - a.wall_us.back());
  }
  std::sort(extra_us.begin(), extra_us.end());
  const std::size_t n = extra_us.size();
  std::printf(
      "a_us=%.1f b_us=%.1f extra_us=%.1f extra_low_us=%.1f extra_high_us=%.1f a_kib=%.0f "
      "b_kib=%.0f\n",
      median(a.wall_us), median(b.wall_us), extra_us[n / 2], extra_us[n / 4], extra_us[n * 3 / 4],
      median(a.rss_kib), median(b.rss_kib));
  return 0;
}

}  // namespace
}  // namespace heaptier::bench

int main(int argc, char** argv) {
  return heaptier::bench::run(argc, argv);
}
