// Drives the real policy objects and judge_refault with synthetic page traces in simulated time,
// and says what they miss, against exact LRU and the LFU-optimum with all of the budget. The
// figures depend on the options and the seed alone. The constants in policies/ were chosen with it;
// their comments say how.
#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "bench/simulated_memory.h"
#include "bench/simulated_trace.h"
#include "policies/hotset.h"

namespace {

using namespace heaptier;
using namespace heaptier::simulation;

struct Options {
  Config config;
  std::uint64_t accesses = 24'000'000;
  std::uint32_t write_percent = 5;
  std::uint64_t seed = 1;
  std::vector<std::string> traces;
};

void print_heading(const Options& o) {
  std::printf("%u pageblocks, budget %u %%, tick %" PRId64 " us, %" PRIu64
              " accesses, seed %" PRIu64 "\n\n",
              o.config.blocks, o.config.budget_percent, o.config.tick_us, o.accesses, o.seed);
  std::printf(
      "                  misses per access    |        CPU   | hints  promo compr inl.  write  |"
      " used / fast above | blocks\n"
      "trace             hotset lru    lfu    | kops/s ns/acc| /acc.  /miss /miss /miss faults |"
      " mean  most  high  | parked split  stored swept  unparked\n");
}

void print_row(const std::string& name, const Counts& c, Nanos time, double lru, double lfu,
               std::uint64_t capacity) {
  const auto part = [](auto x, auto of) {
    return of == 0 ? 0.0 : static_cast<double>(x) / static_cast<double>(of);
  };
  std::printf(
      "%-17s %6.4f %6.4f %6.4f | %6.0f %5.0f | %6.4f %5.3f %5.3f %5.3f %6.4f |"
      " %5.3f %5.3f %5.3f | %6" PRIu64 " %6" PRIu64 " %6" PRIu64 " %6" PRIu64 " %6" PRIu64 "\n",
      name.c_str(), part(c.fetches, c.accesses), lru, lfu, part(c.accesses, time.v) * 1e6,
      part(time.v + c.background_ns, c.accesses), part(c.hints, c.accesses),
      part(c.promotions, c.fetches), part(c.compressions, c.fetches),
      part(c.inline_discards, c.fetches), part(c.write_faults, c.accesses),
      part(c.used_sum, c.accesses * capacity), part(c.used_most, capacity),
      part(c.over_high, c.accesses), c.parks, c.splits, c.stores, c.sweeps, c.unparks);
  std::fflush(stdout);
}

// Fills all pages in order, then four quarters of accesses; the trace changes in the middle.
void run(const std::string& name, const Trace& trace, const Options& o) {
  Config config = o.config;
  config.huge = trace.huge;
  HotsetPolicy policy;
  Memory memory(config, policy);
  const auto pages = static_cast<std::uint32_t>(memory.pages());
  const std::uint64_t capacity = memory.budget().fast_bytes / kPageSize;
  const Draw draw[2] = {Draw(trace.first), Draw(trace.second)};
  Lru lru(pages, static_cast<std::uint32_t>(capacity));
  std::mt19937_64 random(o.seed);
  for (std::uint32_t p = 0; p < pages; ++p) {
    lru.access(p);
    memory.access(p, true);
  }
  print_row(name + " load", memory.counts, memory.now(), NAN, NAN, capacity);

  std::uint32_t scan = 0;
  for (int quarter = 0; quarter < 4; ++quarter) {
    memory.counts = Counts{};
    const Nanos started = memory.now();
    std::uint64_t lru_misses = 0;
    for (std::uint64_t i = 0; i < o.accesses / 4; ++i) {
      const std::uint64_t r = random();
      const std::uint32_t page =
          r % 100 < trace.scan_percent ? scan++ % pages : draw[quarter / 2](random);
      lru_misses += lru.access(page) ? 1 : 0;
      memory.access(page, (r >> 32) % 100 < o.write_percent);
    }
    const double lfu = trace.scan_percent != 0
                           ? NAN  // popularity is not static
                           : lfu_optimal(quarter < 2 ? trace.first : trace.second, capacity);
    print_row(name + " " + std::to_string(quarter + 1) + "/4", memory.counts,
              memory.now() - started,
              static_cast<double>(lru_misses) / static_cast<double>(o.accesses / 4), lfu, capacity);
  }
}

int usage(const std::string& wrong) {
  std::fprintf(stderr,
               "simulate: %s\n"
               "usage: simulate [--blocks N] [--accesses N] [--budget PERCENT] [--writes PERCENT]\n"
               "                [--tick US] [--seed N] [--theta PERCENT] [--keep QUARTERS]\n"
               "                [--credits N] [TRACE]...\n"
               "traces:",
               wrong.c_str());
  for (const std::string& name : trace_names()) std::fprintf(stderr, " %s", name.c_str());
  std::fprintf(stderr, "\n");
  return 2;
}

// Sets the option; false if there is none of that name.
bool set_option(Options& o, const std::string& name, std::uint64_t value) {
  const auto at_most = [value](std::uint64_t most) {
    return static_cast<std::uint32_t>(std::min(value, most));
  };
  if (name == "--blocks") {
    o.config.blocks = std::max(at_most(1 << 16), 2U);
  } else if (name == "--accesses") {
    o.accesses = std::max<std::uint64_t>(value, 4);
  } else if (name == "--budget") {
    o.config.budget_percent = std::max(at_most(100), 1U);
  } else if (name == "--writes") {
    o.write_percent = at_most(100);
  } else if (name == "--tick") {
    o.config.tick_us = std::max(at_most(10'000'000), 1U);
  } else if (name == "--seed") {
    o.seed = value;
  } else if (name == "--theta") {
    o.config.tuning.theta_percent = at_most(1000);
  } else if (name == "--keep") {
    o.config.tuning.keep_quarters = at_most(4);
  } else if (name == "--credits") {
    o.config.tuning.max_credits = at_most(7);
  } else {
    return false;
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (!word.starts_with("--")) {
      const auto& known = trace_names();
      if (std::find(known.begin(), known.end(), word) == known.end()) {
        return usage("no trace " + word);
      }
      o.traces.push_back(word);
      continue;
    }
    char* end = nullptr;
    const char* text = i + 1 < argc ? argv[++i] : "";
    const std::uint64_t value = std::strtoull(text, &end, 10);
    if (end == text || *end != '\0') return usage(word + " wants a number, not '" + text + "'");
    if (!set_option(o, word, value)) return usage("no option " + word);
  }
  if (o.traces.empty()) o.traces = trace_names();
  print_heading(o);
  const auto pages = o.config.blocks * static_cast<std::uint32_t>(kPagesPerBlock);
  for (const std::string& name : o.traces) run(name, make_trace(name, pages, o.seed), o);
  return 0;
}
