// How long one 4 KiB fault on a stored page takes for the thread that takes it: served by the
// handler threads of uffd/fault_loop.h, against resolved in the faulting thread (inline SIGBUS),
// the fastest there is. Both decompress (lz4), verify the checksum and fill the page by
// UFFDIO_COPY; with --copy-only they fill it from memory at hand, so that only the way there and
// back is measured.
//
// One thread faults on its own pages in random order and works a little between faults, first on a
// machine that is otherwise quiet, then with a busy loop on every CPU. Windows of the variants are
// interleaved, A B C A B C; a ratio is taken within each round, and the table gives the medians of
// those ratios. --json prints every window instead, for bench/run_all.
#include <lz4.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "bench/harness/cpus.h"
#include "uffd/fault_loop.h"
#include "uffd/inline_faults.h"
#include "uffd/thread_cpu.h"
#include "uffd/thread_door.h"

namespace heaptier {
namespace {

constexpr std::size_t kPages = 512;
constexpr std::size_t kStackBytes = 256 * 1024;

struct Options {
  int rounds = 15;
  int faults = 3000;  // a window
  int work_ns = 2000;
  bool floating = false;  // also the handler that does not follow
  bool copy_only = false;
  bool json = false;
};

char* map(std::size_t bytes) {
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) std::abort();
  madvise(p, bytes, MADV_NOHUGEPAGE);
  return static_cast<char*>(p);
}

// A page as the compressed tier keeps it: half of every 32 bytes is noise, lz4 makes less than half
// of it.
class StoredPage {
 public:
  StoredPage() {
    std::mt19937 random(11);
    alignas(8) char page[kPageSize];
    for (std::size_t i = 0; i < kPageSize; ++i) {
      page[i] = i % 32 < 4 ? static_cast<char>(random()) : static_cast<char>('a' + i % 7);
    }
    checksum_ = XXH3_64bits(page, kPageSize);
    bytes_ = LZ4_compress_default(page, compressed_, kPageSize, sizeof compressed_);
    if (bytes_ <= 0) std::abort();
  }
  void fetch(char* out) const {
    if (LZ4_decompress_safe(compressed_, out, bytes_, kPageSize) != int{kPageSize} ||
        XXH3_64bits(out, kPageSize) != checksum_) {
      std::abort();
    }
  }
  double ratio() const { return static_cast<double>(kPageSize) / bytes_; }

 private:
  char compressed_[2 * kPageSize];
  int bytes_ = 0;
  XXH64_hash_t checksum_ = 0;
};

class CopySink final : public FaultSink {
 public:
  // `wake_follows`: the loop wakes; inline nobody is asleep.
  CopySink(FaultPort& port, const StoredPage* stored, bool wake_follows)
      : port_(port), stored_(stored), wake_follows_(wake_follows), page_(map(kPageSize)) {
    std::memset(page_, 1, kPageSize);
  }
  FaultReply on_fault(const FaultEvent& e, unsigned) override {
    if (stored_ != nullptr) stored_->fetch(page_);
    // EEXIST cannot be: one thread faults on these pages.
    if (port_.copy(e.address, page_, kPageSize, false, !wake_follows_).error.failed()) std::abort();
    return {FaultVerdict::kWake, e.address, kPageSize};
  }

 private:
  FaultPort& port_;
  const StoredPage* stored_;
  bool wake_follows_;
  char* page_;
};

struct Window {
  double mean_ns = 0;
  double p50_ns = 0;
  double p99_ns = 0;
  double p999_ns = 0;
};

// One way to serve faults, with its own memory and its own userfaultfd; all exist side by side.
class Variant {
 public:
  // `key` for programs, `name` for people.
  Variant(std::string key, std::string name)
      : key_(std::move(key)), name_(std::move(name)), memory_(map(kPages * kPageSize)) {}
  virtual ~Variant() = default;
  const std::string& key() const { return key_; }
  const std::string& name() const { return name_; }
  virtual bool start() = 0;
  virtual void supervise() {}
  virtual std::string report() { return ""; }

  Window measure(const Options& options, std::mt19937& random) {
    std::vector<std::int64_t> times;
    times.reserve(static_cast<std::size_t>(options.faults));
    std::vector<std::size_t> order(kPages);
    for (std::size_t i = 0; i < kPages; ++i) order[i] = i;
    while (times.size() < static_cast<std::size_t>(options.faults)) {
      madvise(memory_, kPages * kPageSize, MADV_DONTNEED);
      std::shuffle(order.begin(), order.end(), random);
      for (std::size_t page : order) {
        work(options.work_ns);
        const Nanos before = door::now();
        *static_cast<volatile char*>(memory_ + page * kPageSize) = 2;
        times.push_back((door::now() - before).v);
      }
    }
    std::sort(times.begin(), times.end());
    Window w;
    for (std::int64_t t : times) w.mean_ns += static_cast<double>(t);
    w.mean_ns /= static_cast<double>(times.size());
    const auto at = [&times](double part) {
      return static_cast<double>(
          times[static_cast<std::size_t>(part * static_cast<double>(times.size() - 1))]);
    };
    w.p50_ns = at(0.5);
    w.p99_ns = at(0.99);
    w.p999_ns = at(0.999);
    return w;
  }

 protected:
  static void work(int nanos) {
    const Nanos until = door::now() + Nanos{nanos};
    while (door::now() < until) {
    }
  }
  std::uintptr_t address() const { return reinterpret_cast<std::uintptr_t>(memory_); }

 private:
  std::string key_;
  std::string name_;
  char* memory_;
};

class InlineVariant final : public Variant {
 public:
  explicit InlineVariant(const StoredPage* stored)
      : Variant("inline", "inline SIGBUS"), sink_(port_, stored, false) {}
  bool start() override {
    const Errno e = port_.open(OpenMode::kInline, nullptr);
    return e.ok() && start_inline_faults(sink_, {}).ok() &&
           add_inline_range(address(), kPages * kPageSize).ok() &&
           port_.register_range(address(), kPages * kPageSize).ok();
  }

 private:
  Userfaultfd port_;
  CopySink sink_;
};

class HandlerVariant final : public Variant {
 public:
  HandlerVariant(std::string key, std::string name, const StoredPage* stored, bool follow,
                 bool adaptive, HandlerClass c)
      : Variant(std::move(key), std::move(name)), sink_(port_, stored, true) {
    config_.follow = follow;
    config_.adaptive_class = adaptive;
    config_.fixed_class = c;
  }
  bool start() override {
    config_.stack_base = map(2 * kStackBytes);
    config_.stack_bytes = kStackBytes;
    return port_.open(OpenMode::kHandler, 1, nullptr).ok() &&
           port_.register_range(address(), kPages * kPageSize).ok() &&
           loop_->start(port_, sink_, config_).ok();
  }
  void supervise() override { loop_->supervise(door::now()); }
  std::string report() override {
    const LoopStats s = loop_->stats();
    char line[200];
    std::snprintf(line, sizeof line,
                  "%lu faults, %lu re-pins, %lu class switches, now %s, service p50 %.1f us, "
                  "handler CPU %.1f us a fault",
                  s.faults, s.repins, s.class_switches, to_string(s.handler_class),
                  static_cast<double>(s.service.percentile(50)) / 1e3,
                  s.faults == 0
                      ? 0.0
                      : static_cast<double>(s.cpu_time.v) / 1e3 / static_cast<double>(s.faults));
    return line;
  }

 private:
  LoopConfig config_;
  ShardedPort port_;
  CopySink sink_;
  std::unique_ptr<FaultLoop> loop_ = std::make_unique<FaultLoop>();
};

class Hogs {
 public:
  explicit Hogs(unsigned count) {
    for (unsigned i = 0; i < count; ++i) {
      threads_.emplace_back([this] {
        while (!stop_.load(std::memory_order_relaxed)) {
        }
      });
    }
  }
  ~Hogs() {
    stop_.store(true);
    for (std::thread& t : threads_) t.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

using Windows = std::vector<Window>;  // of one variant, by round
using Variants = std::vector<std::unique_ptr<Variant>>;

std::vector<Windows> measure(const Options& options, const Variants& variants, unsigned hogs) {
  std::mt19937 random(7);
  std::vector<Windows> windows(variants.size());
  const Hogs noise(hogs);
  for (int round = 0; round < options.rounds; ++round) {
    for (std::size_t i = 0; i < variants.size(); ++i) {
      windows[i].push_back(variants[i]->measure(options, random));
    }
  }
  return windows;
}

// The median over the rounds of `what`, or of its ratio to the same round of `base`.
double median_of(const Windows& windows, double Window::*what, const Windows* base = nullptr) {
  std::vector<double> values;
  for (std::size_t r = 0; r < windows.size(); ++r) {
    values.push_back(windows[r].*what / (base != nullptr ? (*base)[r].*what : 1e3));
  }
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void print_table(const char* title, const Options& options, const Variants& variants,
                 const std::vector<Windows>& windows) {
  std::printf("\n%s: %d rounds of %d faults a variant, us (medians of the rounds)\n", title,
              options.rounds, options.faults);
  std::printf("%-28s %8s %8s %8s %9s | ratio to inline: %6s %6s\n", "", "mean", "p50", "p99",
              "p99.9", "mean", "p99");
  for (std::size_t i = 0; i < variants.size(); ++i) {
    const Windows& w = windows[i];
    std::printf("%-28s %8.2f %8.2f %8.2f %9.2f | %23.2f %6.2f\n", variants[i]->name().c_str(),
                median_of(w, &Window::mean_ns), median_of(w, &Window::p50_ns),
                median_of(w, &Window::p99_ns), median_of(w, &Window::p999_ns),
                median_of(w, &Window::mean_ns, &windows[0]),
                median_of(w, &Window::p99_ns, &windows[0]));
  }
  for (const auto& v : variants) {
    const std::string report = v->report();
    if (!report.empty()) std::printf("  %s: %s\n", v->name().c_str(), report.c_str());
  }
}

// {"scene":"quiet","inline":{"mean_ns":[...],"p99_ns":[...]},...}: one line a scene.
void print_json(const char* scene, const Variants& variants, const std::vector<Windows>& windows) {
  const auto list = [](const char* name, const Windows& all, double Window::*what) {
    std::printf("\"%s\":[", name);
    for (std::size_t r = 0; r < all.size(); ++r) {
      std::printf("%s%.1f", r == 0 ? "" : ",", all[r].*what);
    }
    std::printf("]");
  };
  std::printf("{\"scene\":\"%s\"", scene);
  for (std::size_t i = 0; i < variants.size(); ++i) {
    std::printf(",\"%s\":{", variants[i]->key().c_str());
    list("mean_ns", windows[i], &Window::mean_ns);
    std::printf(",");
    list("p99_ns", windows[i], &Window::p99_ns);
    std::printf("}");
  }
  std::printf("}\n");
}

void print_machine() {
  utsname u{};
  uname(&u);
  std::ifstream cpuinfo("/proc/cpuinfo");
  std::string line;
  std::string model = "unknown CPU";
  while (std::getline(cpuinfo, line)) {
    if (line.rfind("model name", 0) == 0) {
      model = line.substr(line.find(':') + 2);
      break;
    }
  }
  const double busy = bench::busy_share();
  std::printf("machine: %s, %u CPUs, Linux %s, %.0f %% of the CPUs busy before%s\n", model.c_str(),
              std::thread::hardware_concurrency(), u.release, 100 * busy,
              busy > 0.25 ? " (CONTENDED: other work is running)" : "");
}

int run_all(const Options& options) {
  if (!options.json) print_machine();
  note_thread_start();
  const StoredPage page;
  const StoredPage* stored = options.copy_only ? nullptr : &page;
  if (!options.json) {
    if (stored != nullptr) {
      std::printf("a fault: lz4 (ratio %.1f), checksum, UFFDIO_COPY\n", page.ratio());
    } else {
      std::printf("a fault: UFFDIO_COPY\n");
    }
  }
  Variants variants;
  const auto add = [&](const char* key, const char* name, bool follow, bool adaptive,
                       HandlerClass c) {
    variants.push_back(std::make_unique<HandlerVariant>(key, name, stored, follow, adaptive, c));
  };
  variants.push_back(std::make_unique<InlineVariant>(stored));
  add("handler", "handler (adaptive class)", true, true, HandlerClass::kIdle);
  add("idle", "handler, always idle class", true, false, HandlerClass::kIdle);
  add("normal", "handler, always normal", true, false, HandlerClass::kNormal);
  if (options.floating) {
    add("floating", "not following, normal", false, false, HandlerClass::kNormal);
  }
  for (const auto& v : variants) {
    if (!v->start()) {
      std::fprintf(stderr, "skipped: %s cannot start here: %s\n", v->name().c_str(),
                   remedy(probe()));
      return 77;
    }
  }
  // What the background thread does while faults arrive.
  std::atomic<bool> stop{false};
  std::thread supervisor([&] {
    while (!stop.load()) {
      usleep(1000);
      for (const auto& v : variants) v->supervise();
    }
  });
  const struct {
    const char* key;
    const char* title;
    unsigned hogs;
  } scenes[] = {{"quiet", "quiet machine", 0},
                {"busy", "all CPUs busy", std::thread::hardware_concurrency()}};
  for (const auto& scene : scenes) {
    const std::vector<Windows> windows = measure(options, variants, scene.hogs);
    if (options.json) {
      print_json(scene.key, variants, windows);
    } else {
      print_table(scene.title, options, variants, windows);
    }
  }
  stop.store(true);
  supervisor.join();
  return 0;
}

}  // namespace
}  // namespace heaptier

int main(int argc, char** argv) {
  heaptier::Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string a = argv[i];
    if (a == "--float") {
      options.floating = true;
    } else if (a == "--copy-only") {
      options.copy_only = true;
    } else if (a == "--json") {
      options.json = true;
    } else if (a == "--rounds" && i + 1 < argc) {
      options.rounds = std::atoi(argv[++i]);
    } else if (a == "--faults" && i + 1 < argc) {
      options.faults = std::atoi(argv[++i]);
    } else if (a == "--work-ns" && i + 1 < argc) {
      options.work_ns = std::atoi(argv[++i]);
    } else {
      std::fprintf(stderr, "usage: %s [--rounds N] [--faults N] [--work-ns N] [--float]\n",
                   argv[0]);
      return 2;
    }
  }
  if (options.rounds < 1 || options.faults < 100 || options.work_ns < 0) {
    std::fprintf(stderr, "--rounds at least 1, --faults at least 100\n");
    return 2;
  }
  const int status = heaptier::run_all(options);
  std::fflush(stdout);
  _exit(status);  // the handler threads serve until the end; nobody joins them
}
