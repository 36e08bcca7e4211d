// bench_zpool: what the compressed tier costs and holds, on seeded pages like those of real heaps.
//
//   bench_zpool [--pages N] [--threads N] [codecs|store|churn|classes ...]     default: all
//
//   codecs   ratio and time of every codec and level, by kind of page
//   store    store, fetch (warm: the same 64 objects; cold: at random over all; with and without a
//            prefetch 16 fetches ahead) and drop through ZPool, and where the memory goes
//   churn    random drops and stores over a full pool, then compaction: memory held for what is
//   used classes  slack of the size classes on the sizes that the mixed pages compress to
//
// Times are CPU nanoseconds a page, of one thread unless said otherwise; those of rounds that leave
// the pool as it was, the best of five.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "bench/harness/clock.h"
#include "runtime/os/kernel_memory.h"
#include "runtime/tiers/zpool.h"
#include "tests/unit/tiers/page_data.h"

namespace heaptier::bench {
namespace {

using heaptier::testing::fill_page;
using heaptier::testing::mixed_kind;
using heaptier::testing::PageKind;
using heaptier::testing::Rng;

struct Options {
  std::size_t pages = 100'000;
  unsigned threads = 2;
};

struct Page {
  alignas(64) unsigned char bytes[kPageSize];
};

std::vector<Page> mixed_pages(std::size_t count) {
  std::vector<Page> pages(count);
  for (std::size_t i = 0; i < count; ++i) fill_page(pages[i].bytes, mixed_kind(i), i);
  return pages;
}

template <class F>
double best_nanos(std::size_t operations, F f, int rounds = 5) {
  std::uint64_t best = UINT64_MAX;
  for (int r = 0; r < rounds; ++r) {
    const std::uint64_t start = thread_cpu_nanos();
    f();
    best = std::min(best, thread_cpu_nanos() - start);
  }
  return static_cast<double>(best) / static_cast<double>(operations);
}

void codec_line(const Codec& codec, int level, const char* kind, const std::vector<Page>& pages) {
  std::vector<unsigned char> memory(codec.state_bytes(level) + 64);
  auto* state =
      reinterpret_cast<void*>(round_up(reinterpret_cast<std::uintptr_t>(memory.data()), 64));
  if (!codec.make_state(state, level)) return;
  constexpr std::size_t kCapacity = kPageSize * 3 / 4;
  std::vector<std::size_t> sizes(pages.size());
  std::vector<Page> out(pages.size());
  std::size_t total = 0;
  std::size_t refused = 0;
  const double compress = best_nanos(pages.size(), [&] {
    total = refused = 0;
    for (std::size_t i = 0; i < pages.size(); ++i) {
      sizes[i] = codec.compress(state, pages[i].bytes, out[i].bytes, kCapacity);
      refused += sizes[i] == 0;
      total += sizes[i] == 0 ? kPageSize : sizes[i];
    }
  });
  Page back;
  const std::size_t kept = pages.size() - refused;
  const double decompress = kept == 0 ? 0 : best_nanos(kept, [&] {
    for (std::size_t i = 0; i < pages.size(); ++i) {
      if (sizes[i] != 0 && !codec.decompress(state, out[i].bytes, sizes[i], back.bytes))
        std::abort();
    }
  });
  std::printf("%-5s %4d  %-9s ratio %6.2f  refused %5.1f %%  compress %6.0f  decompress %6.0f\n",
              codec.name(), level, kind,
              static_cast<double>(pages.size() * kPageSize) / static_cast<double>(total),
              100.0 * static_cast<double>(refused) / static_cast<double>(pages.size()), compress,
              decompress);
}

void run_codecs() {
  constexpr std::size_t kPages = 1000;
  for (int k = -1; k < heaptier::testing::kPageKinds; ++k) {
    std::vector<Page> pages(kPages);
    for (std::size_t i = 0; i < kPages; ++i) {
      fill_page(pages[i].bytes, k < 0 ? mixed_kind(i) : static_cast<PageKind>(k), i);
    }
    const char* kind = k < 0 ? "mixed" : heaptier::testing::kPageKindNames[k];
    for (const int level : {0, -2, -4, -8}) codec_line(lz4_codec(), level, kind, pages);
    for (const int level : {-1, 1, 3}) codec_line(zstd_codec(), level, kind, pages);
  }
  const std::vector<Page> few = mixed_pages(8);
  std::uint32_t sum = 0;
  const double checksum = best_nanos(10'000, [&] {
    for (std::size_t i = 0; i < 10'000; ++i) sum += page_checksum(few[i % 8].bytes);
  });
  std::vector<Page> zero(8);
  std::uint32_t pattern = 0;
  const double same = best_nanos(10'000, [&] {
    for (std::size_t i = 0; i < 10'000; ++i) sum += same_filled(zero[i % 8].bytes, &pattern);
  });
  std::printf("checksum %.0f  same_filled (a zero page) %.0f  (%08x)\n", checksum, same, sum);
}

// Stores every page that compresses; slots[i] is 0 for the others.
void store_all(ZPool& pool, StoreWorkspace* ws, const std::vector<Page>& pages,
               std::vector<SlotId>& slots) {
  for (std::size_t i = 0; i < pages.size(); ++i) {
    slots[i] = {};
    (void)pool.store(ws, pages[i].bytes, {static_cast<std::uint32_t>(i)}, &slots[i]);
  }
}

void report_memory(const char* when, const ZPool& pool) {
  const StoreUsage u = pool.usage();
  const ZPoolFragmentation f = pool.fragmentation();
  std::printf(
      "%-22s %7zu pages, %6.1f MiB payload, %6.1f MiB resident: overhead %4.1f %%; places %6.1f of "
      "%6.1f MiB "
      "held, unusable %.2f\n",
      when, u.slots, static_cast<double>(u.payload_bytes) / 1048576,
      static_cast<double>(u.resident_bytes) / 1048576,
      100.0 * static_cast<double>(u.resident_bytes - u.payload_bytes) /
          static_cast<double>(u.payload_bytes),
      static_cast<double>(f.used) / 1048576, static_cast<double>(f.held) / 1048576, f.unusable);
}

void run_store(const Options& options, CodecKind kind) {
  static ZPool pools[2];
  ZPool& pool = pools[static_cast<int>(kind)];
  if (pool.init(kernel_memory_ops(), {.capacity_bytes = std::size_t{8} << 30, .codec = kind})
          .failed()) {
    return;
  }
  StoreWorkspace* ws = pool.make_workspace();
  const std::vector<Page> pages = mixed_pages(options.pages);
  std::vector<SlotId> slots(pages.size());
  const std::uint64_t start = thread_cpu_nanos();
  store_all(pool, ws, pages, slots);
  const double fresh =
      static_cast<double>(thread_cpu_nanos() - start) / static_cast<double>(pages.size());
  std::printf("-- %s, %zu mixed pages\n", pool.codec_name(), pages.size());
  report_memory("full", pool);

  std::vector<SlotId> kept;
  std::copy_if(slots.begin(), slots.end(), std::back_inserter(kept),
               [](SlotId s) { return s.v != 0; });
  Page out;
  std::size_t corrupt = 0;
  const auto fetch = [&](SlotId s) {
    corrupt += pool.fetch(ws, s, out.bytes) != FetchOutcome::kFetched;
  };
  const double warm = best_nanos(64 * 100, [&] {
    for (int r = 0; r < 100; ++r) {
      for (std::size_t i = 0; i < 64; ++i) fetch(kept[i]);
    }
  });
  Rng rng(7);
  std::vector<SlotId> order = kept;
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[rng.below(i)]);
  const std::size_t n = std::min<std::size_t>(order.size(), 50'000);
  const double cold = best_nanos(n, [&] {
    for (std::size_t i = 0; i < n; ++i) fetch(order[i]);
  });
  const double ahead = best_nanos(n, [&] {
    for (std::size_t i = 0; i < n; ++i) {
      pool.prefetch(order[(i + 16) % order.size()]);
      fetch(order[i]);
    }
  });

  std::atomic<std::uint64_t> spent{0};
  std::vector<std::thread> threads;
  const std::uint64_t begin = wall_nanos();
  for (unsigned t = 0; t < options.threads; ++t) {
    threads.emplace_back([&, t] {
      StoreWorkspace* own = pool.make_workspace();
      const std::uint64_t cpu = thread_cpu_nanos();
      for (std::size_t i = t; i < pages.size(); i += options.threads) {
        if (slots[i].v == 0) continue;
        pool.drop(slots[i]);
        slots[i] = {};
        (void)pool.store(own, pages[i].bytes, {static_cast<std::uint32_t>(i)}, &slots[i]);
      }
      spent += thread_cpu_nanos() - cpu;
    });
  }
  for (std::thread& t : threads) t.join();
  const double wall = static_cast<double>(wall_nanos() - begin) / static_cast<double>(kept.size());
  const double restore = static_cast<double>(spent.load()) / static_cast<double>(kept.size());

  const std::uint64_t drop_start = thread_cpu_nanos();
  for (const SlotId s : slots) {
    if (s.v != 0) pool.drop(s);
  }
  const double drop =
      static_cast<double>(thread_cpu_nanos() - drop_start) / static_cast<double>(kept.size());
  std::printf(
      "store into fresh memory %.0f   fetch warm %.0f  cold %.0f  cold, prefetched %.0f   drop "
      "%.0f\n"
      "drop + store by %u threads: %.0f CPU, %.0f wall   corrupt %zu\n",
      fresh, warm, cold, ahead, drop, options.threads, restore, wall, corrupt);
  report_memory("empty", pool);
  pool.release_workspace(ws);
}

// Owns the slots of all pages, as the page words do in the engine.
class VectorMover final : public SlotMover {
 public:
  explicit VectorMover(std::vector<SlotId>& slots) : slots_(slots) {}
  bool relocate(PageIndex owner, SlotId from, SlotId to) override {
    if (slots_[owner.v] != from) return false;
    slots_[owner.v] = to;
    ++moved_;
    return true;
  }
  std::size_t moved() const { return moved_; }

 private:
  std::vector<SlotId>& slots_;
  std::size_t moved_ = 0;
};

void run_churn(const Options& options) {
  static ZPool pool;
  if (pool.init(kernel_memory_ops(), {.capacity_bytes = std::size_t{8} << 30}).failed()) return;
  StoreWorkspace* ws = pool.make_workspace();
  const std::vector<Page> pages = mixed_pages(options.pages);
  std::vector<SlotId> slots(pages.size());
  store_all(pool, ws, pages, slots);
  std::printf("-- churn, lz4\n");
  report_memory("full", pool);
  Rng rng(11);
  // A third is out at any time; what comes and goes is chosen at random.
  for (std::size_t i = 0; i < pages.size() / 3; ++i) {
    const std::size_t p = rng.below(pages.size());
    if (slots[p].v != 0) pool.drop(slots[p]);
    slots[p] = {};
  }
  for (std::size_t i = 0; i < 2 * pages.size(); ++i) {
    const std::size_t p = rng.below(pages.size());
    if (slots[p].v != 0 && rng.below(3) == 0) {
      pool.drop(slots[p]);
      slots[p] = {};
    } else if (slots[p].v == 0 && rng.below(3) != 0) {
      (void)pool.store(ws, pages[p].bytes, {static_cast<std::uint32_t>(p)}, &slots[p]);
    }
  }
  report_memory("churned", pool);
  for (std::size_t p = 0; p < pages.size(); ++p) {
    if (slots[p].v == 0 || rng.below(3) == 0) continue;
    pool.drop(slots[p]);
    slots[p] = {};
  }
  report_memory("two thirds dropped", pool);
  VectorMover mover(slots);
  const std::uint64_t start = thread_cpu_nanos();
  const std::size_t freed = pool.compact(mover);
  const double nanos = static_cast<double>(thread_cpu_nanos() - start);
  report_memory("compacted", pool);
  std::printf("compaction freed %.1f MiB, moved %zu objects in %.0f us: %.0f ns each\n",
              static_cast<double>(freed) / 1048576, mover.moved(), nanos / 1000,
              nanos / static_cast<double>(std::max<std::size_t>(mover.moved(), 1)));
  Page out;
  std::size_t wrong = 0;
  for (std::size_t p = 0; p < pages.size(); ++p) {
    if (slots[p].v == 0) continue;
    wrong += pool.fetch(ws, slots[p], out.bytes) != FetchOutcome::kFetched ||
             std::memcmp(out.bytes, pages[p].bytes, kPageSize) != 0;
  }
  std::printf("pages that came back wrong: %zu\n", wrong);
}

void run_classes() {
  const std::vector<Page> pages = mixed_pages(4000);
  for (const CodecKind kind : {CodecKind::kLz4, CodecKind::kZstd}) {
    const Codec& c = codec(kind);
    std::vector<unsigned char> memory(c.state_bytes(0) + 64);
    auto* state =
        reinterpret_cast<void*>(round_up(reinterpret_cast<std::uintptr_t>(memory.data()), 64));
    if (!c.make_state(state, 0)) return;
    Page out;
    double payload = 0;
    double places = 0;
    double spans = 0;
    std::size_t count = 0;
    std::vector<bool> used(kSizeClasses);
    for (const Page& page : pages) {
      const std::size_t n = c.compress(state, page.bytes, out.bytes, kPageSize * 3 / 4);
      if (n == 0) continue;
      const unsigned size_class = size_class_for(n + kObjectHeaderBytes);
      used[size_class] = true;
      ++count;
      payload += static_cast<double>(n);
      places += kSizeClassInfo[size_class].bytes;
      spans += static_cast<double>(kSpanBytes) / kSizeClassInfo[size_class].objects;
    }
    const double headers = static_cast<double>(count * kObjectHeaderBytes);
    std::printf("-- classes, %s: %u, %td in use; headers %.2f %%, slack %.2f %%, tails %.2f %%\n",
                c.name(), kSizeClasses, std::count(used.begin(), used.end(), true),
                100 * headers / spans, 100 * (places - payload - headers) / spans,
                100 * (spans - places) / spans);
  }
}

int run(int argc, char** argv) {
  Options options;
  std::vector<std::string> parts;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg == "--pages" && i + 1 < argc) {
      options.pages = std::strtoull(argv[++i], nullptr, 10);
    } else if (arg == "--threads" && i + 1 < argc) {
      options.threads = static_cast<unsigned>(std::strtoul(argv[++i], nullptr, 10));
    } else if (arg == "codecs" || arg == "store" || arg == "churn" || arg == "classes") {
      parts.push_back(arg);
    } else {
      std::fprintf(
          stderr,
          "usage: bench_zpool [--pages N] [--threads N] [codecs|store|churn|classes ...]\n");
      return 2;
    }
  }
  if (options.pages < 64 || options.threads == 0) {
    std::fprintf(stderr, "bench_zpool: --pages is at least 64, --threads at least 1\n");
    return 2;
  }
  const auto wanted = [&parts](const char* part) {
    return parts.empty() || std::find(parts.begin(), parts.end(), part) != parts.end();
  };
  if (wanted("codecs")) run_codecs();
  if (wanted("classes")) run_classes();
  if (wanted("store")) {
    run_store(options, CodecKind::kLz4);
    run_store({options.pages / 4 < 64 ? 64 : options.pages / 4, options.threads}, CodecKind::kZstd);
  }
  if (wanted("churn")) run_churn(options);
  return 0;
}

}  // namespace
}  // namespace heaptier::bench

int main(int argc, char** argv) {
  return heaptier::bench::run(argc, argv);
}
