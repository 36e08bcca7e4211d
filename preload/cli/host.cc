#include "preload/cli/host.h"

#include <sys/utsname.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>

#include "preload/cli/locate.h"
#include "runtime/base/lines.h"
#include "runtime/config/options.h"
#include "runtime/os/kernel_events.h"
#include "runtime/os/kernel_files.h"
#include "runtime/os/kernel_memory.h"
#include "runtime/os/process.h"
#include "runtime/sampling/damon.h"
#include "runtime/sampling/perf_sampler.h"

namespace heaptier::cli {
namespace {

std::string file_text(const char* path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The first number in the file, or `otherwise`.
template <class T>
T file_number(const char* path, T otherwise) {
  std::ifstream file(path);
  T number{};
  return file >> number ? number : otherwise;
}

}  // namespace

void parse_release(const std::string& release, HostFacts* out) {
  out->release = release;
  out->kernel_major = out->kernel_minor = 0;
  std::sscanf(release.c_str(), "%u.%u", &out->kernel_major, &out->kernel_minor);
}

std::string chosen_word(const std::string& text) {
  const std::size_t open = text.find('[');
  const std::size_t close = text.find(']', open);
  if (open == std::string::npos || close == std::string::npos) return {};
  return text.substr(open + 1, close - open - 1);
}

void parse_swaps(const std::string& text, HostFacts* out) {
  std::istringstream lines(text);
  std::string line;
  std::getline(lines, line);  // the heading
  while (std::getline(lines, line)) {
    std::istringstream words(line);
    std::string name;
    std::string type;
    std::uint64_t kib = 0;
    if (!(words >> name >> type >> kib)) continue;
    out->swap_bytes += kib << 10;
    out->swap_is_zram |= name.starts_with("/dev/zram");
  }
}

int status_field(const std::string& text, const std::string& key) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    int value = 0;
    if (line.starts_with(key + ":") &&
        std::sscanf(line.c_str() + key.size() + 1, "%d", &value) == 1) {
      return value;
    }
  }
  return -1;
}

// Changes nothing: whether DAMON can look at the memory of processes is told only by trying, or by
// the names of the kernel's functions.
std::string why_no_damon() {
  KernelEvents none;
  Damon damon(kernel_files(), none);
  if (damon.look(os::process_id()).failed()) return damon.why_not();
  bool any = false;
  bool found = false;
  const auto look = [&](std::string_view line) {
    any = true;
    found = found || line.find(" damon_va_") != std::string_view::npos;
  };
  (void)each_line(kernel_files(), "/proc/kallsyms", look);
  if (any && !found) return "it cannot look at the memory of processes (CONFIG_DAMON_VADDR)";
  return "";
}

std::string why_no_perf() {
  KernelThreadEvents events;
  Stats none;
  PerfSampler perf(kernel_files(), events, none);
  AccessEvents what;
  return perf.look(&what).failed() ? perf.why_not() : "";
}

HostFacts read_host() {
  HostFacts facts;
  utsname names{};
  if (uname(&names) == 0) parse_release(names.release, &facts);
  if (const auto library = find_library(&facts.library_problem)) facts.library = *library;

  facts.uffd = probe();
  KernelMemory& kernel = kernel_memory_ops();
  kernel.open_files();
  facts.pagemap_scan = kernel.abilities().pagemap_scan;
  facts.batched_discard = kernel.abilities().batched_discard;
  facts.process_vm_readv = kernel.abilities().process_vm_readv;

  facts.no_damon = why_no_damon();
  facts.no_perf = why_no_perf();
  facts.thp_enabled = chosen_word(file_text("/sys/kernel/mm/transparent_hugepage/enabled"));
  facts.overcommit = file_number("/proc/sys/vm/overcommit_memory", -1);
  facts.numa_balancing = file_number("/proc/sys/kernel/numa_balancing", 0);
  facts.max_map_count = file_number("/proc/sys/vm/max_map_count", std::uint64_t{0});
  facts.address_limit = os::address_limit();
  facts.data_limit = os::data_limit();
  facts.cgroup_limit = os::cgroup_memory().limit;
  facts.physical_bytes = os::physical_bytes();
  facts.available_bytes = os::available_bytes();
  parse_swaps(file_text("/proc/swaps"), &facts);
  facts.seccomp = status_field(file_text("/proc/self/status"), "Seccomp");
  read_topology(kernel_files(), &facts.topology);
  const char* tiers = std::getenv(option_info(OptionId::kTiers).env);
  if (tiers != nullptr) facts.tiers_variable = tiers;
  const char* policy = std::getenv(option_info(OptionId::kPolicy).env);
  if (policy != nullptr) facts.policy_variable = policy;
  return facts;
}

}  // namespace heaptier::cli
