// bench_malloc_suite: what malloc and free cost. The same binary runs with one allocator preloaded
// or another; bench/run_all keeps one process of each and lets them do the same number of
// operations in turn.
//
// Commands:  list                          -> cases=a,b,...
//            state                         -> awake=   1 when a preloaded heaptier is no longer
//            dormant run CASE THREADS OPS          -> wall_ns= cpu_ns=   (all threads together do
//            THREADS * OPS operations)
//
// All cases live in few MiB, so that heaptier stays dormant. An operation is what the case's own
// comment says. Slots and rings live in static memory: nothing but the allocations measured touches
// the heap while the clock runs.
#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <thread>

#include "bench/harness/clock.h"
#include "bench/harness/optional_heaptier.h"
#include "bench/harness/random.h"
#include "bench/harness/session.h"

namespace heaptier::bench {
namespace {

constexpr unsigned kMaxThreads = 2;
constexpr std::size_t kSlots = 2048;

struct alignas(64) ThreadSlots {
  std::array<char*, kSlots> at{};
};
ThreadSlots g_slots[kMaxThreads];

// What a case is told: which of how many threads it is, and how many operations to do.
struct Share {
  unsigned thread;
  unsigned threads;
  std::uint64_t ops;
};

// Keeps the compiler from removing a malloc/free pair, and makes the memory really used.
inline void use(char* p) {
  *p = 1;
  asm volatile("" : : "r"(p) : "memory");
}

char* must(void* p) {
  if (p == nullptr) {
    std::fputs("bench_malloc_suite: out of memory\n", stderr);
    std::_Exit(1);
  }
  return static_cast<char*>(p);
}

void drop_slots(ThreadSlots& slots) {
  for (char*& p : slots.at) {
    std::free(p);
    p = nullptr;
  }
}

// Replaces a random one of `live` live objects: one free and one malloc an operation.
template <typename SizeOf>
void churn(const Share& share, std::size_t live, SizeOf size_of) {
  ThreadSlots& slots = g_slots[share.thread];
  Random random(share.thread + 1);
  for (std::uint64_t i = 0; i < share.ops; ++i) {
    char*& p = slots.at[random.below(static_cast<std::uint32_t>(live))];
    std::free(p);
    p = must(std::malloc(size_of(random)));
    use(p);
  }
  drop_slots(slots);
}

// 16 to 128 bytes, 1024 live objects.
void small_churn(const Share& share) {
  churn(share, 1024, [](Random& random) { return std::size_t{16} + random.below(113); });
}

// 16 bytes to 32 KiB, every power of two equally likely, 2048 live objects.
void mixed_sizes(const Share& share) {
  churn(share, 2048, [](Random& random) {
    const std::size_t floor = std::size_t{16} << random.below(11);
    return floor + random.below(static_cast<std::uint32_t>(floor));
  });
}

// 64 KiB to 1 MiB, 8 live objects, one byte written in every page of the first 64 KiB.
void large(const Share& share) {
  ThreadSlots& slots = g_slots[share.thread];
  Random random(share.thread + 1);
  for (std::uint64_t i = 0; i < share.ops; ++i) {
    char*& p = slots.at[random.below(8)];
    std::free(p);
    p = must(std::malloc(std::size_t{65536} << random.below(5)));
    for (std::size_t at = 0; at < 65536; at += 4096) use(p + at);
  }
  drop_slots(slots);
}

// Sixteen buffers, a random one grown by half its size at a time from 64..127 bytes to 64 KiB and
// then freed, as growing strings would: one realloc an operation. Many buffers and odd sizes,
// because a copy's speed depends on where the two ends happen to lie.
void realloc_growth(const Share& share) {
  ThreadSlots& slots = g_slots[share.thread];
  std::array<std::size_t, 16> sizes{};
  Random random(share.thread + 1);
  for (std::uint64_t i = 0; i < share.ops; ++i) {
    const std::uint32_t which = random.below(static_cast<std::uint32_t>(sizes.size()));
    char*& p = slots.at[which];
    std::size_t& size = sizes[which];
    size = size == 0 ? 64 + random.below(64) : size + size / 2;
    p = must(std::realloc(p, size));
    use(p + size - 1);
    if (size > 65536) {
      std::free(p);
      p = nullptr;
      size = 0;
    }
  }
  drop_slots(slots);
}

// calloc of 64 to 4159 bytes, 256 live objects.
void calloc_churn(const Share& share) {
  ThreadSlots& slots = g_slots[share.thread];
  Random random(share.thread + 1);
  for (std::uint64_t i = 0; i < share.ops; ++i) {
    char*& p = slots.at[random.below(256)];
    std::free(p);
    p = must(std::calloc(1, std::size_t{64} + random.below(4096)));
    use(p);
  }
  drop_slots(slots);
}

// posix_memalign to a cache line, 64 to 1087 bytes, 1024 live objects.
void aligned(const Share& share) {
  ThreadSlots& slots = g_slots[share.thread];
  Random random(share.thread + 1);
  for (std::uint64_t i = 0; i < share.ops; ++i) {
    char*& slot = slots.at[random.below(1024)];
    std::free(slot);
    void* p = nullptr;
    if (posix_memalign(&p, 64, std::size_t{64} + random.below(1024)) != 0) p = nullptr;
    slot = must(p);
    use(slot);
  }
  drop_slots(slots);
}

// A list node made and deleted by operators new and sized delete, 1024 live: one of each an
// operation.
void new_delete(const Share& share) {
  struct Node {
    Node* next = nullptr;
    std::uint64_t payload[5] = {};
  };
  static std::array<Node*, 1024> nodes[kMaxThreads];
  auto& mine = nodes[share.thread];
  Random random(share.thread + 1);
  for (std::uint64_t i = 0; i < share.ops; ++i) {
    Node*& node = mine[random.below(static_cast<std::uint32_t>(mine.size()))];
    delete node;
    node = new Node;
    asm volatile("" : : "r"(node) : "memory");
  }
  for (Node*& node : mine) {
    delete node;
    node = nullptr;
  }
}

// 64 to 511 bytes made by one thread and freed by the other, through a ring of 1024; with one
// thread: made 256 at a time and freed in the same order. One malloc and one free an operation.
void hand_over(const Share& share) {
  Random random(1);
  if (share.threads == 1) {
    auto& slots = g_slots[0].at;
    for (std::uint64_t done = 0; done < share.ops; done += 256) {
      for (std::size_t i = 0; i < 256; ++i) {
        slots[i] = must(std::malloc(std::size_t{64} + random.below(448)));
        use(slots[i]);
      }
      for (std::size_t i = 0; i < 256; ++i) std::free(slots[i]);
    }
    std::fill_n(slots.begin(), 256, nullptr);
    return;
  }
  constexpr std::size_t kRing = 1024;
  static std::array<std::atomic<char*>, kRing> ring;
  const std::uint64_t ops = 2 * share.ops;  // the thread pair together
  for (std::uint64_t i = 0; i < ops; ++i) {
    std::atomic<char*>& cell = ring[i % kRing];
    if (share.thread == 0) {
      char* p = must(std::malloc(std::size_t{64} + random.below(448)));
      use(p);
      for (unsigned spins = 0; cell.load(std::memory_order_acquire) != nullptr; ++spins) {
        if (spins % 64 == 63) std::this_thread::yield();
      }
      cell.store(p, std::memory_order_release);
    } else {
      char* p;
      for (unsigned spins = 0; (p = cell.load(std::memory_order_acquire)) == nullptr; ++spins) {
        if (spins % 64 == 63) std::this_thread::yield();
      }
      cell.store(nullptr, std::memory_order_release);
      std::free(p);
    }
  }
}

struct Case {
  const char* name;
  void (*run)(const Share&);
};
constexpr Case kCases[] = {
    {"small_churn", small_churn},       {"mixed_sizes", mixed_sizes}, {"large", large},
    {"realloc_growth", realloc_growth}, {"calloc", calloc_churn},     {"aligned", aligned},
    {"new_delete", new_delete},         {"hand_over", hand_over},
};

// The second thread lives as long as the program, so that its thread cache is warm as in a real
// server.
class Crew {
 public:
  struct Time {
    std::uint64_t start = 0, end = 0, cpu = 0;
  };

  Crew() : second_([this] { serve(); }) {}
  ~Crew() {
    {
      const std::lock_guard lock(mutex_);
      job_ = nullptr;
      ++round_;
    }
    wake_.notify_all();
    second_.join();
  }

  // Runs the case on `threads` threads; wall is from the first start to the last end.
  void run(const Case& job, unsigned threads, std::uint64_t ops, Reply& reply) {
    waiting_.store(threads);
    if (threads == 2) {
      const std::lock_guard lock(mutex_);
      job_ = &job;
      ops_ = ops;
      done_ = false;
      ++round_;
      wake_.notify_all();
    }
    const Time first = timed(job, {0, threads, ops});
    Time all = first;
    if (threads == 2) {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return done_; });
      all.start = std::min(first.start, second_time_.start);
      all.end = std::max(first.end, second_time_.end);
      all.cpu += second_time_.cpu;
    }
    reply.add("wall_ns", all.end - all.start).add("cpu_ns", all.cpu);
  }

 private:
  Time timed(const Case& job, const Share& share) {
    waiting_.fetch_sub(1);
    while (waiting_.load() != 0) std::this_thread::yield();
    Time time;
    time.start = wall_nanos();
    const std::uint64_t cpu = thread_cpu_nanos();
    job.run(share);
    time.cpu = thread_cpu_nanos() - cpu;
    time.end = wall_nanos();
    return time;
  }

  void serve() {
    std::unique_lock lock(mutex_);
    for (std::uint64_t seen = 0;;) {
      wake_.wait(lock, [&] { return round_ != seen; });
      seen = round_;
      if (job_ == nullptr) return;
      const Case& job = *job_;
      const Share share{1, 2, ops_};
      lock.unlock();
      const Time time = timed(job, share);
      lock.lock();
      second_time_ = time;
      done_ = true;
      wake_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::uint64_t round_ = 0;  // guarded by mutex_, as the next four
  const Case* job_ = nullptr;
  std::uint64_t ops_ = 0;
  bool done_ = false;
  Time second_time_;
  std::atomic<unsigned> waiting_{0};  // threads that have not reached the start line
  std::thread second_;
};

int serve() {
  Crew crew;
  Reply().add("ready", std::uint64_t{1});
  for (std::string line; next_command(line);) {
    const Command command(line);
    if (command.empty()) continue;
    Reply reply;
    if (command.verb() == "list") {
      std::string names;
      for (const Case& c : kCases) names += (names.empty() ? "" : ",") + std::string(c.name);
      reply.add("cases", names);
      continue;
    }
    if (command.verb() == "state") {
      reply.add("awake", std::uint64_t{under_heaptier() && heaptier_state() > 0});
      continue;
    }
    const auto* job = std::find_if(std::begin(kCases), std::end(kCases), [&](const Case& c) {
      return command.verb() == "run" && command.text(1) == c.name;
    });
    const std::uint64_t threads = command.number(2, 1);
    if (job == std::end(kCases) || threads < 1 || threads > kMaxThreads) {
      reply.add("error", std::string("unknown_command"));
      continue;
    }
    crew.run(*job, static_cast<unsigned>(threads), command.number(3, 100'000), reply);
  }
  return 0;
}

}  // namespace
}  // namespace heaptier::bench

int main() {
  return heaptier::bench::serve();
}
