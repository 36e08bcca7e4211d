// bench_nodes_load: a heap of which a small part is hot, on a machine with fast and slow memory
// nodes. Nine of ten accesses go to the hot set, which lies scattered in the second half of the
// heap: the half that found the fast node full. Half-way it moves to other places. What counts is
// the share of accesses that the fast node serves.
//
// Pages may be elsewhere for a moment (unmapped, parked) when one asks for their node from outside.
// So it is asked of one access in some hundred right after the access: then its page is there.
//
//   bench_nodes_load --unit 2M|4K --pages huge|small [options]; prints one JSON object a line:
//   {"half": ..} for each interval (hints: until then), and {"start": ..}, {"filled": ..},
//   {"half_begins": ..}, {"end": ..} with the kernel's counters. Exit status 1: a word was not what
//   had been written.
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <string_view>

#include "bench/harness/clock.h"
#include "bench/harness/optional_heaptier.h"
#include "bench/nodes_heap.h"

namespace heaptier::bench {
namespace {

constexpr std::uint64_t kAskEvery = 256;  // accesses: often enough for a share within 0.01
constexpr int kInterleave = 3;            // MPOL_INTERLEAVE

struct Options {
  std::size_t heap_mib = 800;
  std::size_t hot_mib = 100;
  std::size_t unit = 0;
  int huge = -1;
  int fast_node = 0;
  double seconds = 20;           // of each half
  std::uint64_t accesses = 0;    // of each half; instead of seconds
  std::uint64_t interval = 500;  // ms
  bool interleave = false;
  const char* gate = nullptr;
};

bool parse(int argc, char** argv, Options* to) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view name = argv[i];
    if (name == "--interleave") {
      to->interleave = true;
      continue;
    }
    if (++i == argc) return false;
    const std::string_view value = argv[i];
    const unsigned long number = std::strtoul(argv[i], nullptr, 10);
    if (name == "--heap" && number >= 16) {
      to->heap_mib = number / 8 * 8;
    } else if (name == "--hot" && number >= 2) {
      to->hot_mib = number;
    } else if (name == "--unit" && (value == "2M" || value == "4K")) {
      to->unit = value == "2M" ? NodesHeap::kHugePage : NodesHeap::kPage;
    } else if (name == "--pages" && (value == "huge" || value == "small")) {
      to->huge = value == "huge";
    } else if (name == "--fast-node") {
      to->fast_node = static_cast<int>(number);
    } else if (name == "--seconds") {
      to->seconds = std::strtod(argv[i], nullptr);
    } else if (name == "--accesses" && number > 0) {
      to->accesses = number;
    } else if (name == "--gate") {
      to->gate = argv[i];
    } else if (name == "--interval-ms" && number > 0) {
      to->interval = number;
    } else {
      return false;
    }
  }
  // Twice the hot set has to fit into half of the heap.
  return to->unit != 0 && to->huge >= 0 && to->hot_mib * 5 <= to->heap_mib;
}

// The node a page is on; below 0: -ENOENT and such.
int node_of(void* page) {
  int status = -1;
  return syscall(SYS_move_pages, 0, 1ul, &page, nullptr, &status, 0) == 0 ? status : -1;
}

// "key value" lines of a file of the kernel, of those whose key starts with one of the words.
template <std::size_t N>
void print_facts(const char* path, const std::array<std::string_view, N>& words) {
  std::FILE* file = std::fopen(path, "r");
  char key[128];
  unsigned long long value = 0;
  const char* comma = "";
  for (char line[256]; file != nullptr && std::fgets(line, sizeof line, file) != nullptr;) {
    if (std::sscanf(line, "%127[^: ]%*[: ]%llu", key, &value) != 2) continue;
    if (std::none_of(words.begin(), words.end(),
                     [&key](auto word) { return std::string_view(key).starts_with(word); })) {
      continue;
    }
    std::printf("%s\"%s\": %llu", comma, key, value);
    comma = ", ";
  }
  if (file != nullptr) std::fclose(file);
}

void print_machine() {
  constexpr std::array<std::string_view, 6> kCounters = {
      "pgmigrate_", "thp_migration_", "pgpromote_", "pgdemote_", "numa_hint_", "thp_split_page"};
  constexpr std::array<std::string_view, 1> kHuge = {"AnonHugePages"};
  std::fputs("\"vmstat\": {", stdout);
  print_facts("/proc/vmstat", kCounters);
  std::fputs("}, \"kib\": {", stdout);
  print_facts("/proc/self/smaps_rollup", kHuge);
  std::fputs("}", stdout);
}

// The number after the key in a text.
std::uint64_t number_after(std::string_view text, std::string_view key) {
  const std::size_t at = text.find(key);
  if (at == std::string_view::npos) return 0;
  return std::strtoull(std::string(text.substr(at + key.size(), 24)).c_str(), nullptr, 10);
}

// Hint faults until now: the machine's of the kernel's doing, and heaptier's of this process.
std::uint64_t hint_faults() {
  const std::uint64_t ours = number_after(stats_line(), "\"faults_hint\":");
  static char text[65536];
  std::size_t n = 0;
  if (std::FILE* file = std::fopen("/proc/vmstat", "r"); file != nullptr) {
    n = std::fread(text, 1, sizeof text, file);
    std::fclose(file);
  }
  return ours + number_after({text, n}, "numa_hint_faults ");
}

class NodesLoad {
 public:
  explicit NodesLoad(const Options& options)
      : options_(options), heap_(options.heap_mib, options.huge != 0) {}

  void fill() {
    begin("start");
    end();
    heap_.fill();
    const std::uint32_t fast = fast_pages();
    begin("filled");
    std::printf(", \"pages\": %u, \"fast_pages\": %u", heap_.pages(), fast);
    end();
  }

  // Says by a file that the heap is filled, and waits until somebody takes it away.
  void pass_gate() const {
    if (options_.gate == nullptr) return;
    std::FILE* file = std::fopen(options_.gate, "w");
    if (file != nullptr) std::fclose(file);
    while (access(options_.gate, F_OK) == 0) usleep(10000);
  }

  void run_half(int half) {
    heap_.choose_hot(options_.hot_mib, options_.unit, random_);
    begin("half_begins");
    std::printf(", \"hot_pages\": %u, \"hints\": %lu", heap_.hot_pages(), hint_faults());
    end();
    const std::uint64_t began = wall_nanos();
    std::uint64_t interval_ends = began + options_.interval * 1'000'000;
    accesses_ = fast_ = slow_ = absent_ = 0;
    for (bool done = false; !done;) {
      // The clock is looked at now and then: it is no part of the load.
      for (int i = 0; i < 16; ++i) some_accesses();
      const std::uint64_t now = wall_nanos();
      const double seconds = static_cast<double>(now - began) * 1e-9;
      done = options_.accesses != 0 ? accesses_ >= options_.accesses : seconds >= options_.seconds;
      if (now < interval_ends && !done) continue;
      std::printf(
          "{\"half\": %d, \"accesses\": %lu, \"seconds\": %.2f, \"fast\": %u, \"slow\": %u, "
          "\"absent\": %u, \"hints\": %lu}\n",
          half, accesses_, seconds, fast_, slow_, absent_, hint_faults());
      std::fflush(stdout);
      fast_ = slow_ = absent_ = 0;
      interval_ends = now + options_.interval * 1'000'000;
    }
  }

  int finish() {
    begin("end");  // before all of the heap is read
    const std::uint32_t wrong_pages = heap_.wrong_pages();
    std::printf(", \"wrong_accesses\": %lu, \"wrong_pages\": %u", wrong_, wrong_pages);
    end();
    return wrong_ + wrong_pages != 0;
  }

 private:
  void begin(const char* what) {
    std::printf("{\"%s\": true, ", what);
    print_machine();
  }
  static void end() {
    std::puts("}");
    std::fflush(stdout);
  }

  std::uint32_t fast_pages() const {
    std::array<void*, 1024> pages;
    std::array<int, 1024> nodes;
    std::uint32_t fast = 0;
    for (std::uint32_t page = 0; page < heap_.pages();) {
      unsigned long n = 0;
      for (; n < pages.size() && page < heap_.pages(); ++n) pages[n] = heap_.address(page++);
      if (syscall(SYS_move_pages, 0, n, pages.data(), nullptr, nodes.data(), 0) != 0) continue;
      fast += static_cast<std::uint32_t>(std::count(&nodes[0], &nodes[0] + n, options_.fast_node));
    }
    return fast;
  }

  // kAskEvery of them; where the last one's page is, is asked.
  void some_accesses() {
    std::uint32_t page = 0;
    for (std::uint64_t i = 0; i < kAskEvery; ++i) {
      page = random_.below(10) != 0 ? heap_.draw_hot(random_) : heap_.draw_other(random_);
      wrong_ += !heap_.access(page, random_.below(16) == 0);
    }
    accesses_ += kAskEvery;
    const int node = node_of(heap_.address(page));
    ++(node == options_.fast_node ? fast_ : node >= 0 ? slow_ : absent_);
  }

  Options options_;
  NodesHeap heap_;
  Random random_{5};
  std::uint64_t accesses_ = 0;
  std::uint64_t wrong_ = 0;
  unsigned fast_ = 0, slow_ = 0, absent_ = 0;  // of the accesses asked for in this interval
};

bool prepare(const Options& options) {
  // For all systems alike, whatever they ask for.
  if (options.huge == 0 && prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0) {
    std::perror("bench_nodes_load: PR_SET_THP_DISABLE");
    return false;
  }
  // As numactl --interleave=all does; nodes without memory are left out by the kernel.
  const unsigned long nodes = ~0ul;
  if (options.interleave && syscall(SYS_set_mempolicy, kInterleave, &nodes, 64ul) != 0) {
    std::perror("bench_nodes_load: set_mempolicy");
    return false;
  }
  return true;
}

int run(const Options& options) {
  NodesLoad load(options);
  load.fill();
  load.pass_gate();
  load.run_half(1);
  load.run_half(2);
  return load.finish();
}

}  // namespace
}  // namespace heaptier::bench

int main(int argc, char** argv) {
  heaptier::bench::Options options;
  if (!heaptier::bench::parse(argc, argv, &options)) {
    std::fputs(
        "usage: bench_nodes_load --unit 2M|4K --pages huge|small [--heap MIB] [--hot MIB]\n"
        "         [--seconds S | --accesses N] [--interval-ms MS] [--fast-node N] [--interleave] "
        "[--gate FILE]\n"
        "  a heap with a hot set (at most a fifth of it) that moves half-way; S and N are of each "
        "half\n",
        stderr);
    return 2;
  }
  return heaptier::bench::prepare(options) ? heaptier::bench::run(options) : 1;
}
