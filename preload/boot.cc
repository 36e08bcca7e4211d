#include <sys/auxv.h>

#include <string_view>

#include "preload/call_gate.h"
#include "preload/fork_guard.h"
#include "preload/libc_callers.h"
#include "preload/process.h"
#include "preload/signal_abi.h"
#include "preload/thread_watch.h"
#include "runtime/base/errno.h"
#include "runtime/base/spinlock.h"
#include "runtime/engine.h"
#include "runtime/heap/gates.h"
#include "runtime/heap/jemalloc_heap.h"
#include "runtime/heap/mimalloc_heap.h"
#include "runtime/os/advice.h"
#include "runtime/os/kernel_files.h"
#include "runtime/os/kernel_memory.h"
#include "runtime/os/process.h"
#include "runtime/topology/chain.h"
#include "runtime/topology/weights.h"

extern "C" {
// The dynamic linker's: where the program's stack began, at its argument count.
extern void* __libc_stack_end;
extern char** environ;
// There when a sanitizer is; it has a heap of its own that checks more than ours serves.
[[gnu::weak]] void __asan_init();
[[gnu::weak]] void __tsan_init();
[[gnu::weak]] void __msan_init();
[[gnu::weak]] void __hwasan_init();
}

namespace heaptier::preload {
namespace {

constinit Process the_process;
constinit std::atomic<int> stage{0};  // 0: not begun; 1: under way; 2: done
constinit std::atomic<const void*> booting_thread{nullptr};
constinit Diagnostics diagnostics;

// The environment as the kernel laid it out, for calls that come before libc has looked.
const char* const* environment() {
  if (environ != nullptr) return environ;
  const auto* words = static_cast<const std::uintptr_t*>(__libc_stack_end);
  constexpr std::uintptr_t kMostArguments = 1u << 22;
  if (words == nullptr || words[0] > kMostArguments) return nullptr;
  const std::uintptr_t* behind_arguments = words + 1 + words[0];
  if (*behind_arguments != 0) return nullptr;
  return reinterpret_cast<const char* const*>(behind_arguments + 1);
}

std::string_view variable(const char* const* envp, std::string_view name) {
  for (; envp != nullptr && *envp != nullptr; ++envp) {
    const std::string_view entry(*envp);
    if (entry.size() > name.size() && entry[name.size()] == '=' && entry.starts_with(name)) {
      return {*envp + name.size() + 1};
    }
  }
  return {};
}

// Why heaptier must not be the heap of this process; nullptr: it may.
const char* reason_to_stand_aside(const char* const* envp) {
  if (__asan_init || __tsan_init || __msan_init || __hwasan_init) return "a sanitizer is linked in";
  if (variable(envp, "LD_PRELOAD").find("vgpreload") != std::string_view::npos) {
    return "valgrind is running";
  }
  return nullptr;
}

Errno make_space() {
  SpaceConfig config;
  config.address_limit = os::address_limit();
  if (config.address_limit != 0) gates.short_of_memory();
  config.data_limited = os::data_limit() != 0;
  if (config.data_limited) gates.short_of_memory();
  config.physical_bytes = os::physical_bytes();
  config.seed = os::startup_random();
  if (the_process.options.huge == HugeMode::kAlways) config.huge_advice = os::kAdviceHuge;
  if (the_process.options.huge == HugeMode::kNever) config.huge_advice = os::kAdviceNoHuge;
  return the_process.space.init(kernel_memory_ops(), config);
}

Mode decide() {
  const char* const* envp = environment();
  if (getauxval(AT_SECURE) != 0) {
    the_process.stands_aside = "the program runs with raised privileges";
    return Mode::kNext;  // and its environment is not heeded
  }
  parse_environment(envp, &the_process.options, &diagnostics);
  if (the_process.options.disable || the_process.options.heap == HeapKind::kNone) {
    return Mode::kNext;
  }
  the_process.stands_aside = reason_to_stand_aside(envp);
  if (the_process.stands_aside != nullptr) return Mode::kNext;
  settle_tiers(kernel_files(), variable(envp, option_info(OptionId::kTiers).env),
               &the_process.options, &diagnostics);
  settle_policy(kernel_files(), variable(envp, option_info(OptionId::kPolicy).env),
                &the_process.options, &diagnostics);
  if (make_space().failed()) {
    the_process.stands_aside = "no address space could be had";
    return Mode::kNext;
  }
  if (engine()
          .init(kernel_memory_ops(), the_process.space, the_process.options, the_process.stats)
          .failed()) {
    the_process.stands_aside = "the engine could not be made";
    return Mode::kNext;
  }
  jemalloc::init(the_process.space, content_sink(), kernel_memory_ops());
  return Mode::kJemalloc;
}

// Set by the constructor. Loading a library needs a libc that knows its environment, which it does
// not before its own constructor, and ours comes first.
constinit std::atomic<bool> other_heap_wanted{false};

void tell_effective() {
  if (the_process.stands_aside != nullptr) {
    os::write_text("heaptier: stands aside: ");
    os::write_text(the_process.stands_aside);
    os::write_text("\n");
  }
  char text[4096];
  const std::size_t length = format_effective(the_process.options, text, sizeof(text));
  (void)os::write_all(2, text, length < sizeof(text) ? length : sizeof(text) - 1);
}

// Whoever asked for a report is told at the start why there will be none. With HEAPTIER_DISABLE=1
// nothing is said.
void tell_of_no_report() {
  const Options& options = the_process.options;
  if (options.disable || !options.reports(static_cast<std::uint32_t>(os::process_id()))) return;
  const char* why = the_process.stands_aside;
  if (why == nullptr) why = "HEAPTIER_HEAP=none leaves malloc to the C library";
  os::write_text("heaptier: HEAPTIER_STATS: there will be no report: ");
  os::write_text(why);
  os::write_text("\n");
}

// Runs before the constructors of all other libraries (the library is marked so), or after the
// first malloc.
[[gnu::constructor]] void construct() {
  boot();
  if (!diagnostics.empty()) {
    const std::string_view text = diagnostics.text();
    (void)os::write_all(2, text.data(), text.size());
    diagnostics.clear();
  }
  if (the_process.options.verbose) tell_effective();
  if (mode() == Mode::kNext) {
    tell_of_no_report();
    return;
  }
  learn_libc_callers();
  watch_threads();
  open_signals();
  allow_waking();
  if (the_process.options.heap == HeapKind::kMimalloc) {
    other_heap_wanted.store(
        true, std::memory_order_release);  // and the call gate stays closed until then
  } else {
    open_call_gate();
  }
}

// Nothing is torn down: what runs after this still has its heap.
[[gnu::destructor]] void destruct() {
  if (mode() != Mode::kNext) engine().report_at_exit();
}

}  // namespace

Process& process() {
  return the_process;
}

void start_other_heap(std::uintptr_t caller) {
  if (!other_heap_wanted.load(std::memory_order_relaxed) || environ == nullptr ||
      is_system_caller(caller) || !other_heap_wanted.exchange(false)) {
    return;
  }
  ErrnoKeeper keep;
  if (mimalloc::load(the_process.space, content_sink())) {
    the_process.mode.store(Mode::kMimalloc, std::memory_order_release);
  } else {
    os::write_text(
        "heaptier: HEAPTIER_HEAP=mimalloc: libmimalloc.so.2 could not be loaded; jemalloc "
        "serves\n");
  }
  open_call_gate();
}

bool boot() {
  int seen = stage.load(std::memory_order_acquire);
  if (seen == 2) return true;
  const void* self = __builtin_thread_pointer();
  if (seen == 0 && stage.compare_exchange_strong(seen, 1)) {
    booting_thread.store(self, std::memory_order_relaxed);
    const Mode decided = decide();
    if (decided != Mode::kNext) guard_forks();
    the_process.mode.store(decided, std::memory_order_release);
    stage.store(2, std::memory_order_release);
    // Open for good once libc's code is known; until then nobody is libc. Another heap comes later.
    if (decided == Mode::kJemalloc && the_process.options.heap == HeapKind::kJemalloc &&
        !gates.memory_is_short.load(std::memory_order_relaxed)) {
      gates.call_bytes.store(0, std::memory_order_relaxed);
    }
    return true;
  }
  if (booting_thread.load(std::memory_order_relaxed) == self) return false;
  for (Backoff backoff; stage.load(std::memory_order_acquire) != 2;) backoff.pause();
  return true;
}

}  // namespace heaptier::preload
