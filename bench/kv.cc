// bench_kv: an in-process key-value store under memory pressure. One process holds all data in its
// malloc heap and reads and writes it zipfian; bench/run_all starts it three times (all in DRAM,
// the kernel's swap to zram below it, heaptier preloaded) and lets the three take windows in turn.
//
//   bench_kv [--mib N] [--threads N] [--theta X] [--writes PERCENT] [--layout slabs|objects]
//
// Commands:  warm OPS     -> ops= seconds= corrupt=
//            window MS    -> ops= wall_ns= cpu_ns= p50_ns= p99_ns= p999_ns= max_ns= majflt=
//            corrupt= verify       -> objects= corrupt=        reads every object once data ->
//            lz4_ratio= compress_us= decompress_us=     of the data's pages stats        ->
//            heaptier's statistics as JSON, or {}
//
// Rank r of the zipf distribution is key r * threads + thread; the index puts keys in random slots.
// CPU time is of the whole process: fault handlers and evictors of a preloaded library count, and
// so does direct reclaim.
#include <lz4.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <thread>
#include <vector>

#include "bench/harness/clock.h"
#include "bench/harness/histogram.h"
#include "bench/harness/optional_heaptier.h"
#include "bench/harness/random.h"
#include "bench/harness/session.h"
#include "bench/kv_store.h"

namespace heaptier::bench {
namespace {

struct Options {
  std::uint64_t mib = 1024;
  unsigned threads = 1;
  double theta = 0.99;
  unsigned write_percent = 5;
  Layout layout = Layout::kSlabs;
};

// One application thread's own state, kept from window to window.
struct Worker {
  explicit Worker(unsigned thread) : random(1000 + thread), thread(thread) {}

  Random random;
  Histogram latency;  // in ticks
  std::uint64_t ops = 0;
  std::uint64_t corrupt = 0;
  unsigned thread;
};

class KvBench {
 public:
  explicit KvBench(const Options& options)
      : options_(options),
        store_(static_cast<std::uint32_t>(options.mib * (1u << 20) / sizeof(Object)),
               options.layout),
        zipf_(store_.count() / options.threads, options.theta) {
    for (unsigned i = 0; i < options.threads; ++i) workers_.push_back(std::make_unique<Worker>(i));
  }

  void warm(std::uint64_t ops, Reply& reply) {
    const std::uint64_t start = wall_nanos();
    const std::uint64_t each = ops / options_.threads;
    run([each](const Worker& worker, std::uint64_t) { return worker.ops < each; });
    const std::uint64_t end = wall_nanos();
    reply.add("ops", total_ops()).add("seconds", static_cast<double>(end - start) * 1e-9);
    reply.add("corrupt", total_corrupt());
  }

  void window(std::uint64_t millis, Reply& reply) {
    const std::uint64_t faults = major_faults();
    const std::uint64_t cpu = process_cpu_nanos();
    const std::uint64_t start = wall_nanos();
    const auto length = static_cast<std::uint64_t>(static_cast<double>(millis) * 1e6 * per_nano_);
    const std::uint64_t stop = ticks() + length;
    run([stop](const Worker&, std::uint64_t now) { return now < stop; });
    const std::uint64_t end = wall_nanos();
    const std::uint64_t cpu_end = process_cpu_nanos();
    Histogram all;
    for (const auto& worker : workers_) all.merge(worker->latency);
    reply.add("ops", total_ops()).add("wall_ns", end - start).add("cpu_ns", cpu_end - cpu);
    reply.add("p50_ns", all.percentile(.50) / per_nano_)
        .add("p99_ns", all.percentile(.99) / per_nano_);
    reply.add("p999_ns", all.percentile(.999) / per_nano_);
    reply.add("max_ns", static_cast<double>(all.max()) / per_nano_);
    reply.add("majflt", major_faults() - faults).add("corrupt", total_corrupt());
  }

  void verify(Reply& reply) const {
    std::uint64_t corrupt = 0;
    for (std::uint32_t key = 0; key < store_.count(); ++key) corrupt += !store_.read(key);
    reply.add("objects", static_cast<std::uint64_t>(store_.count())).add("corrupt", corrupt);
  }

  void data(Reply& reply) const {
    constexpr std::size_t kPages = 256;
    constexpr int kPage = 4096;
    std::vector<char> packed(static_cast<std::size_t>(LZ4_compressBound(kPage)));
    std::vector<char> unpacked(kPage);
    std::uint64_t bytes = 0;
    std::uint64_t compress_ns = 0;
    std::uint64_t decompress_ns = 0;
    for (std::size_t i = 0; i < kPages; ++i) {
      const char* page =
          reinterpret_cast<const char*>(store_.page(i * (store_.count() / 8 / kPages)));
      std::memcpy(unpacked.data(), page, kPage);  // the page is here before the clock starts
      const std::uint64_t a = wall_nanos();
      const int n = LZ4_compress_default(unpacked.data(), packed.data(), kPage,
                                         static_cast<int>(packed.size()));
      const std::uint64_t b = wall_nanos();
      (void)LZ4_decompress_safe(packed.data(), unpacked.data(), n, kPage);
      decompress_ns += wall_nanos() - b;
      compress_ns += b - a;
      bytes += static_cast<std::uint64_t>(n);
    }
    reply.add("lz4_ratio", static_cast<double>(kPages * kPage) / static_cast<double>(bytes));
    reply.add("compress_us", static_cast<double>(compress_ns) / 1000 / kPages);
    reply.add("decompress_us", static_cast<double>(decompress_ns) / 1000 / kPages);
  }

 private:
  // All threads do operations while `more(worker, now in ticks)` says so.
  template <typename More>
  void run(More more) {
    std::vector<std::thread> threads;
    for (unsigned i = 1; i < options_.threads; ++i) {
      threads.emplace_back([this, i, more] { work(*workers_[i], more); });
    }
    work(*workers_[0], more);
    for (std::thread& thread : threads) thread.join();
  }

  template <typename More>
  void work(Worker& worker, More more) {
    worker.latency = {};
    worker.ops = worker.corrupt = 0;
    std::uint64_t now = ticks();
    while (more(worker, now)) {
      const auto rank = static_cast<std::uint32_t>(zipf_.next(worker.random));
      const std::uint32_t key = rank * options_.threads + worker.thread;
      const bool write = worker.random.below(100) < options_.write_percent;
      const std::uint64_t start = ticks();
      if (write) {
        store_.write(key);
      } else {
        worker.corrupt += !store_.read(key);
      }
      now = ticks();
      worker.latency.add(now - start);
      ++worker.ops;
    }
  }

  std::uint64_t total_ops() const {
    std::uint64_t ops = 0;
    for (const auto& worker : workers_) ops += worker->ops;
    return ops;
  }
  std::uint64_t total_corrupt() const {
    std::uint64_t corrupt = 0;
    for (const auto& worker : workers_) corrupt += worker->corrupt;
    return corrupt;
  }

  static std::uint64_t major_faults() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return static_cast<std::uint64_t>(usage.ru_majflt);
  }

  Options options_;
  double per_nano_ = ticks_per_nano();
  KvStore store_;
  Zipf zipf_;
  std::vector<std::unique_ptr<Worker>> workers_;
};

bool parse(int argc, char** argv, Options& options) {
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    const std::string value = argv[i + 1];
    if (name == "--mib") {
      options.mib = std::strtoull(value.c_str(), nullptr, 10);
    } else if (name == "--threads") {
      options.threads = static_cast<unsigned>(std::strtoul(value.c_str(), nullptr, 10));
    } else if (name == "--theta") {
      options.theta = std::strtod(value.c_str(), nullptr);
    } else if (name == "--writes") {
      options.write_percent = static_cast<unsigned>(std::strtoul(value.c_str(), nullptr, 10));
    } else if (name == "--layout" && (value == "slabs" || value == "objects")) {
      options.layout = value == "slabs" ? Layout::kSlabs : Layout::kObjects;
    } else {
      return false;
    }
  }
  return argc % 2 == 1 && options.mib >= 1 && options.mib <= 8192 && options.threads >= 1 &&
         options.threads <= 64 && options.theta > 0 && options.theta < 1 &&
         options.write_percent <= 100;
}

int serve(const Options& options) {
  KvBench bench(options);
  Reply().add("ready", std::uint64_t{1});
  for (std::string line; next_command(line);) {
    const Command command(line);
    if (command.empty()) continue;
    Reply reply;
    if (command.verb() == "warm") {
      bench.warm(command.number(1, 1'000'000), reply);
    } else if (command.verb() == "window") {
      bench.window(command.number(1, 2500), reply);
    } else if (command.verb() == "verify") {
      bench.verify(reply);
    } else if (command.verb() == "data" && options.layout == Layout::kSlabs) {
      bench.data(reply);
    } else if (command.verb() == "stats") {
      reply.raw(stats_line());
    } else {
      reply.add("error", std::string("unknown_command"));
    }
  }
  return 0;
}

}  // namespace
}  // namespace heaptier::bench

int main(int argc, char** argv) {
  heaptier::bench::Options options;
  if (!heaptier::bench::parse(argc, argv, options)) {
    std::fputs(
        "usage: bench_kv [--mib 1..8192] [--threads 1..64] [--theta 0..1] [--writes PERCENT]\n"
        "                [--layout slabs|objects]\n",
        stderr);
    return 2;
  }
  return heaptier::bench::serve(options);
}
