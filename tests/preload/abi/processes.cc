// fork in its forms, threads that allocate while it happens, and signals.
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "tests/preload/abi/check.h"

namespace {

// What a child does: uses the heap of every size, checks what it inherited, allocates from threads.
int child_work(const std::vector<std::string>& inherited) {
  for (const std::string& s : inherited) {
    if (s.find_first_not_of('i') != std::string::npos) return 1;
  }
  std::vector<std::string> own;
  for (int i = 0; i < 2000; ++i) own.emplace_back(static_cast<std::size_t>(i) * 20, 'o');
  std::thread([&] { own.emplace_back(1000000, 't'); }).join();
  void* p = std::malloc(10 << 20);
  if (p == nullptr) return 2;
  std::free(p);
  return 0;
}

int status_of(pid_t child) {
  int status = -1;
  waitpid(child, &status, 0);
  return status;
}

// Threads that allocate and free for as long as it lives.
class Churn {
 public:
  explicit Churn(int threads) {
    for (int t = 0; t < threads; ++t) {
      threads_.emplace_back([this, t] {
        std::vector<std::string> kept;
        for (unsigned i = 0; !stop_; ++i) {
          kept.emplace_back((i * 37 + static_cast<unsigned>(t)) % 60000, 'k');
          if (kept.size() > 100) kept.clear();
          if (i % 50 == 0) std::free(std::malloc(4 << 20));
        }
      });
    }
  }
  ~Churn() {
    stop_ = true;
    for (std::thread& t : threads_) t.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

std::atomic<int> signals_seen{0};
void count_signal(int) {
  ++signals_seen;
}
void count_with_info(int, siginfo_t*, void*) {
  ++signals_seen;
}

int prepare_order = 0;
int child_order = 0;

}  // namespace

GROUP(fork_while_threads_allocate) {
  const std::vector<std::string> inherited(500, std::string(3000, 'i'));
  Churn churn(3);
  for (int i = 0; i < 60; ++i) {
    const pid_t child = fork();
    if (child == 0) _exit(child_work(inherited));
    CHECK(status_of(child) == 0);
  }
}

GROUP(grandchildren) {
  const std::vector<std::string> inherited(500, std::string(3000, 'i'));
  const pid_t child = fork();
  if (child == 0) {
    for (int depth = 0; depth < 8; ++depth) {
      const pid_t next = fork();
      if (next == 0) continue;
      const int status = status_of(next);
      _exit(status == 0 ? child_work(inherited) : 3);
    }
    _exit(child_work(inherited));
  }
  CHECK(status_of(child) == 0);
}

GROUP(underscore_fork) {
  const std::vector<std::string> inherited(500, std::string(3000, 'i'));
  auto* fork_without_handlers = reinterpret_cast<pid_t (*)()>(dlsym(RTLD_DEFAULT, "_Fork"));
  if (fork_without_handlers == nullptr) throw abi::Skipped{"this libc has no _Fork"};
  const pid_t child = fork_without_handlers();
  if (child == 0) _exit(child_work(inherited));
  CHECK(status_of(child) == 0);
}

GROUP(handlers_of_the_application_may_allocate) {
  pthread_atfork(
      [] {
        prepare_order = 1;
        std::free(std::malloc(100000));
      },
      [] { std::free(std::malloc(100000)); },
      [] {
        child_order = 1;
        std::free(std::malloc(100000));
      });
  for (int i = 0; i < 10; ++i) {
    const pid_t child = fork();
    if (child == 0) _exit(child_order == 1 ? 0 : 1);
    CHECK(status_of(child) == 0 && prepare_order == 1);
  }
}

GROUP(other_ways_to_a_process) {
  const pid_t child = vfork();
  if (child == 0) {
    execl("/bin/true", "/bin/true", nullptr);
    _exit(1);
  }
  CHECK(status_of(child) == 0);
  CHECK(system("true") == 0);
  FILE* p = popen("echo hello", "r");
  char line[20] = {};
  CHECK(p != nullptr && std::fgets(line, sizeof(line), p) != nullptr);
  CHECK(std::strcmp(line, "hello\n") == 0 && pclose(p) == 0);
  char* const arguments[] = {const_cast<char*>("true"), nullptr};
  pid_t spawned = 0;
  CHECK(posix_spawnp(&spawned, "true", nullptr, nullptr, arguments, environ) == 0);
  CHECK(status_of(spawned) == 0);
}

GROUP(objects_change_threads) {
  Churn churn(1);
  constexpr int kThreads = 4;
  std::atomic<std::string*> ring[256] = {};
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      unsigned random = static_cast<unsigned>(t) + 1;
      for (int i = 0; i < 20000; ++i) {
        random = random * 1664525 + 1013904223;
        auto* mine = new std::string(random % 3000 + 1, static_cast<char>('a' + t));
        std::string* theirs = ring[random >> 24].exchange(mine);
        if (theirs == nullptr) continue;
        if (theirs->find_first_not_of(theirs->front()) != std::string::npos) ++wrong;
        delete theirs;
      }
    });
  }
  for (std::thread& t : threads) t.join();
  for (auto& cell : ring) delete cell.load();
  CHECK(wrong == 0);
}

GROUP(signals) {
  for (int sig : {SIGUSR1, SIGBUS, SIGSEGV, SIGTERM}) {
    signals_seen = 0;
    struct sigaction action = {};
    struct sigaction old = {};
    struct sigaction now = {};
    action.sa_handler = count_signal;
    CHECK(sigaction(sig, &action, &old) == 0);
    CHECK(sigaction(sig, nullptr, &now) == 0 && now.sa_handler == count_signal);
    raise(sig);
    CHECK(signals_seen == 1);
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = count_with_info;
    CHECK(sigaction(sig, &action, nullptr) == 0);
    raise(sig);
    CHECK(signals_seen == 2);
    CHECK(signal(sig, count_signal) != SIG_ERR);
    raise(sig);
    raise(sig);
    CHECK(signals_seen == 4);
    CHECK(signal(sig, SIG_DFL) == count_signal);
    CHECK(sigaction(sig, &old, nullptr) == 0);
  }
  CHECK(signal(SIGKILL, count_signal) == SIG_ERR);
}
