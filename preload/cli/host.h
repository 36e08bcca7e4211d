// What this host is and can do, as plain facts. Gathered here; judged in doctor.cc, which tests
// feed with hosts that they make up.
#pragma once

#include <cstdint>
#include <string>

#include "runtime/topology/topology.h"
#include "uffd/features.h"

namespace heaptier::cli {

struct HostFacts {
  std::string release;  // "6.12.57-amd64"
  unsigned kernel_major = 0;
  unsigned kernel_minor = 0;

  std::string library;          // libheaptier.so, or empty:
  std::string library_problem;  // why not

  ProbeResult uffd;
  bool pagemap_scan = false;
  bool batched_discard = false;
  bool process_vm_readv = false;

  std::string no_damon;  // why DAMON cannot be had; empty: it can
  std::string no_perf;   // the same of samples of memory accesses

  std::string thp_enabled;  // "always", "madvise", "never"; empty: the kernel has no THP
  int overcommit = -1;      // vm.overcommit_memory; -1: unknown
  int numa_balancing = 0;   // kernel.numa_balancing; 0: off, or unknown
  std::uint64_t max_map_count = 0;
  std::uint64_t address_limit = 0;  // RLIMIT_AS, 0: none
  std::uint64_t data_limit = 0;     // RLIMIT_DATA, if it could be felt, 0: none
  std::uint64_t cgroup_limit = 0;   // 0: none
  std::uint64_t physical_bytes = 0;
  std::uint64_t available_bytes = 0;
  std::uint64_t swap_bytes = 0;
  bool swap_is_zram = false;  // some of it
  int seccomp = -1;           // 0 off, 1 strict, 2 filter; -1: unknown
  Topology topology;
  std::string tiers_variable;   // HEAPTIER_TIERS, or empty
  std::string policy_variable;  // HEAPTIER_POLICY, or empty
};

HostFacts read_host();

// The pure parts, for tests.
void parse_release(const std::string& release, HostFacts* out);
// The word in brackets: "always [madvise] never" -> "madvise".
std::string chosen_word(const std::string& text);
// /proc/swaps.
void parse_swaps(const std::string& text, HostFacts* out);
// The number after `key` and a colon in a /proc/self/status, or -1.
int status_field(const std::string& text, const std::string& key);

}  // namespace heaptier::cli
