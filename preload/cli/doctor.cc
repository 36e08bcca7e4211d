#include "preload/cli/doctor.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "preload/cli/exit_codes.h"
#include "preload/cli/tier_report.h"
#include "runtime/base/units.h"
#include "runtime/topology/chain.h"

namespace heaptier::cli {
namespace {

std::string newer_kernel(const char* version) {
  return std::string("boot Linux ") + version +
         " or later (Debian 12: sudo apt install -t bookworm-backports linux-image-amd64)";
}

Finding library(const HostFacts& facts) {
  if (!facts.library.empty()) return {"library", Grade::kOk, facts.library, ""};
  return {"library", Grade::kMissing, facts.library_problem,
          "reinstall heaptier, or set HEAPTIER_LIB to the path of libheaptier.so"};
}

// What is left where pages cannot be parked.
std::string without_parking(const HostFacts& facts) {
  Ranking derived;
  rank_nodes(facts.topology, &derived);
  if (derived.count < 2) return "nothing is tiered";
  const std::string left =
      "nothing is compressed; with a chain of nodes (--tiers) memory is moved when asked, and "
      "placed "
      "with --sampler protnone";
  if (facts.no_damon.empty()) return left + ", or without it by what DAMON tells";
  return facts.no_perf.empty() ? left + ", or without it by what perf tells" : left;
}

Finding fault_source(const HostFacts& facts) {
  const ProbeResult& uffd = facts.uffd;
  if (uffd.source != Source::kNone && uffd.source != Source::kUserModeOnly) {
    return {"userfaultfd", Grade::kOk, std::string("by ") + to_string(uffd.source), ""};
  }
  std::string meaning = std::string("refused (system call: ") + std::strerror(uffd.errno_syscall) +
                        "; /dev/userfaultfd: " + std::strerror(uffd.errno_device) +
                        "): programs run, " + without_parking(facts);
  if (uffd.user_mode_only_works) meaning += "; the restricted kind works, for --fault inline only";
  return {"userfaultfd", Grade::kMissing, meaning, remedy(uffd)};
}

// The features of a kernel that gave no userfaultfd are not known: nothing is said about them.
bool features_known(const HostFacts& facts) {
  return facts.uffd.features.raw != 0;
}

Finding write_protection(const HostFacts& facts) {
  if (facts.uffd.features.wp) {
    return {"write-protect", Grade::kOk, "pages can be copied while the program runs", ""};
  }
  return {"write-protect", Grade::kMissing,
          "pages cannot be copied safely while the program runs: nothing is tiered",
          newer_kernel("5.7 (arm64: 6.10)")};
}

Finding move(const HostFacts& facts) {
  if (facts.uffd.features.move) {
    return {"UFFDIO_MOVE", Grade::kOk, "pages are parked without a copy, huge pages whole", ""};
  }
  return {"UFFDIO_MOVE", Grade::kMissing, "pages cannot be parked: " + without_parking(facts),
          newer_kernel("6.8")};
}

Finding reading(const HostFacts& facts) {
  if (facts.process_vm_readv) {
    return {"read pages", Grade::kOk, "process_vm_readv on oneself works", ""};
  }
  return {"read pages", Grade::kLimited,
          "process_vm_readv is refused: pages are demoted by way of the park only",
          "allow process_vm_readv in the seccomp profile (docker: --security-opt seccomp=PROFILE)"};
}

Finding scanning(const HostFacts& facts) {
  if (facts.pagemap_scan) {
    return {"PAGEMAP_SCAN", Grade::kOk, "present pages of a pageblock are found in one call", ""};
  }
  return {"PAGEMAP_SCAN", Grade::kLimited,
          "present pages are found in a slower way, huge ones by root only", newer_kernel("6.7")};
}

// Ways of finding out what is hot (--sampler).
Finding samplers(const HostFacts& facts) {
  std::string has = "protnone";
  std::string lacks;
  const bool parks = facts.uffd.source != Source::kNone &&
                     facts.uffd.source != Source::kUserModeOnly && facts.uffd.features.move;
  if (parks) has = "park, " + has;
  if (!parks) lacks += "; not park: see userfaultfd";
  const auto tell = [&](const std::string& name, const std::string& why_not) {
    if (why_not.empty()) has += ", " + name;
    if (!why_not.empty()) lacks += "; not " + name + ": " + why_not;
  };
  tell("damon", facts.no_damon);
  tell("perf", facts.no_perf);
  return {"samplers", Grade::kOk, has + lacks, ""};
}

Finding batching(const HostFacts& facts) {
  if (facts.batched_discard) {
    return {"batched discard", Grade::kOk, "one TLB flush for many pages (process_madvise)", ""};
  }
  return {"batched discard", Grade::kLimited,
          "pages leave by one call and one TLB flush a range: eviction costs more CPU",
          newer_kernel("6.13")};
}

Finding huge_pages(const HostFacts& facts) {
  const std::string& mode = facts.thp_enabled;
  if (mode == "always" || mode == "madvise") {
    return {"huge pages", Grade::kOk, "transparent_hugepage is " + mode, ""};
  }
  if (mode.empty()) {
    return {"huge pages", Grade::kLimited, "this kernel has no transparent huge pages",
            "boot a kernel with CONFIG_TRANSPARENT_HUGEPAGE=y"};
  }
  return {"huge pages", Grade::kLimited, "transparent_hugepage is " + mode + ": 4 KiB pages only",
          "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled"};
}

Finding overcommit(const HostFacts& facts) {
  if (facts.overcommit == 2) {
    return {
        "overcommit", Grade::kLimited,
        "vm.overcommit_memory is 2: the heap and its park are charged in full against the limit",
        "sudo sysctl -w vm.overcommit_memory=0"};
  }
  return {"overcommit", Grade::kOk,
          facts.overcommit < 0 ? "vm.overcommit_memory cannot be read"
                               : "vm.overcommit_memory is " + std::to_string(facts.overcommit),
          ""};
}

Finding address_space(const HostFacts& facts) {
  if (facts.address_limit == 0) return {"address space", Grade::kOk, "no limit (RLIMIT_AS)", ""};
  return {"address space", Grade::kLimited,
          "limited to " + size_text(facts.address_limit) +
              " (RLIMIT_AS): the heap is reserved in steps, and its park counts too",
          "ulimit -v unlimited"};
}

Finding data_size(const HostFacts& facts) {
  if (facts.data_limit == 0) {
    return {"data", Grade::kOk, "no limit (RLIMIT_DATA) that could be felt", ""};
  }
  return {"data", Grade::kMissing,
          "limited to " + size_text(facts.data_limit) +
              " (RLIMIT_DATA), which counts heap, park and store alike: tiering leaves it to the "
              "heap",
          "ulimit -d unlimited"};
}

Finding mappings(const HostFacts& facts) {
  // At worst every pageblock is a mapping of its own; the rest of the program has some hundred.
  constexpr std::uint64_t kOthers = 1000;
  const std::uint64_t wanted = facts.physical_bytes / kPageblockSize + kOthers;
  const std::string now = "vm.max_map_count is " + std::to_string(facts.max_map_count);
  if (facts.max_map_count == 0)
    return {"mappings", Grade::kOk, "vm.max_map_count cannot be read", ""};
  if (facts.max_map_count >= wanted) return {"mappings", Grade::kOk, now, ""};
  return {"mappings", Grade::kLimited,
          now + ": a heap as large as this machine's memory may need " + std::to_string(wanted),
          "sudo sysctl -w vm.max_map_count=" +
              std::to_string(std::max<std::uint64_t>(2 * wanted, 262144))};
}

Finding memory(const HostFacts& facts) {
  std::string meaning = size_text(facts.physical_bytes) + ", " + size_text(facts.available_bytes) +
                        " available; cgroup limit ";
  meaning += facts.cgroup_limit == 0
                 ? "none"
                 : size_text(facts.cgroup_limit) + " (--fast auto stays below it)";
  return {"memory", Grade::kOk, meaning, ""};
}

Finding swap(const HostFacts& facts) {
  if (facts.swap_bytes == 0) return {"swap", Grade::kOk, "none, none needed", ""};
  return {"swap", Grade::kOk,
          size_text(facts.swap_bytes) + (facts.swap_is_zram ? " (zram)" : "") +
              ": the kernel may swap what heaptier keeps resident; a budget below the free memory "
              "avoids it",
          ""};
}

Finding numa(const HostFacts& facts) {
  const Topology& topology = facts.topology;
  const unsigned nodes = topology.memory.count();
  const unsigned without_cpus = (topology.memory - topology.cpus).count();
  std::string meaning = std::to_string(nodes) + (nodes == 1 ? " node" : " nodes");
  if (without_cpus != 0) meaning += ", " + std::to_string(without_cpus) + " without CPUs";
  const NodeSet forbidden = topology.memory - topology.allowed;
  if (!forbidden.empty()) meaning += "; the cpuset forbids " + nodes_text(forbidden);
  Ranking derived;
  rank_nodes(topology, &derived);
  if (derived.count > 1) meaning += "; --tiers can make a chain of them, as below";
  if (nodes > 1 && facts.numa_balancing != 0) {
    meaning +=
        "; the kernel balances between them (kernel.numa_balancing), which a chain keeps off "
        "the heap";
  }
  return {"NUMA", Grade::kOk, meaning, ""};
}

// What HEAPTIER_TIERS or HEAPTIER_POLICY asks for and whether it can be had.
struct AskedTiers {
  Options options;
  std::string problem;  // empty: it can
};
AskedTiers asked_tiers(const HostFacts& facts) {
  AskedTiers asked;
  const ParseResult parsed = parse_option(OptionId::kTiers, facts.tiers_variable, &asked.options);
  if (!parsed.ok) {
    asked.problem = parsed.reason != nullptr ? parsed.reason : "no chain of tiers";
  } else {
    asked.problem = check_chain(asked.options.tiers, facts.topology).reason;
  }
  return asked;
}

// On the chain that is in force.
AskedTiers asked_policy(const HostFacts& facts) {
  AskedTiers asked = asked_tiers(facts);
  if (!asked.problem.empty()) asked.options.tiers = TierChain{};
  asked.problem.clear();
  if (facts.policy_variable.empty()) return asked;
  const ParseResult parsed = parse_option(OptionId::kPolicy, facts.policy_variable, &asked.options);
  if (!parsed.ok) {
    asked.problem = parsed.reason != nullptr ? parsed.reason : "no policy";
  } else {
    asked.problem = check_policy(asked.options.policy, asked.options.tiers, facts.topology).reason;
  }
  if (!asked.problem.empty()) asked.options.policy = PolicySpec{};
  return asked;
}

ChosenWeights weights_of(const HostFacts& facts) {
  const AskedTiers asked = asked_policy(facts);
  return choose_weights(asked.options.policy, asked.options.tiers, facts.topology);
}

// Only where the variable is set.
Finding configured(OptionId id, const std::string& given, const AskedTiers& asked) {
  const OptionInfo& option = option_info(id);
  std::string shown = given.substr(0, 200);
  for (char& c : shown) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';  // one line, whatever is in it
  }
  if (asked.problem.empty()) return {option.env, Grade::kOk, shown, ""};
  return {option.env, Grade::kLimited, shown + " is not accepted: " + asked.problem,
          std::string("accepted: ") + option.accepted};
}

Finding seccomp(const HostFacts& facts) {
  if (facts.seccomp <= 0) return {"seccomp", Grade::kOk, "no filter", ""};
  return {"seccomp", Grade::kOk, "a filter is active; what it refuses is shown above", ""};
}

}  // namespace

const char* to_string(Grade grade) {
  switch (grade) {
    case Grade::kOk:
      return "ok";
    case Grade::kLimited:
      return "limited";
    case Grade::kMissing:
      return "missing";
  }
  return "?";
}

std::vector<Finding> examine(const HostFacts& facts) {
  std::vector<Finding> findings = {library(facts), fault_source(facts)};
  if (features_known(facts)) {
    findings.push_back(write_protection(facts));
    findings.push_back(move(facts));
  }
  for (const auto check : {reading, scanning, samplers, batching, huge_pages, overcommit,
                           address_space, data_size, mappings, memory, swap, numa, seccomp}) {
    findings.push_back(check(facts));
  }
  if (!facts.tiers_variable.empty()) {
    findings.push_back(configured(OptionId::kTiers, facts.tiers_variable, asked_tiers(facts)));
  }
  if (!facts.policy_variable.empty()) {
    findings.push_back(configured(OptionId::kPolicy, facts.policy_variable, asked_policy(facts)));
  }
  return findings;
}

Ranking ranking_of(const HostFacts& facts) {
  Ranking ranking;
  const AskedTiers asked = asked_tiers(facts);
  const bool possible = check_chain(asked.options.tiers, facts.topology).ok();
  if (asked.options.tiers.names_nodes() && possible) {
    rank_as_configured(asked.options.tiers, facts.topology, &ranking);
  } else {
    rank_nodes(facts.topology, &ranking);
  }
  return ranking;
}

bool tiering_works(const std::vector<Finding>& findings) {
  return std::none_of(findings.begin(), findings.end(),
                      [](const Finding& f) { return f.grade == Grade::kMissing; });
}

std::string doctor_text(const HostFacts& facts, const std::vector<Finding>& findings) {
  std::string text = "Linux " + facts.release + "\n";
  std::string missing;
  for (const Finding& f : findings) {
    char head[64];
    std::snprintf(head, sizeof head, "  %-8s %-16s ", to_string(f.grade), f.subject.c_str());
    text += head + f.meaning + "\n";
    if (!f.fix.empty()) text += std::string(27, ' ') + "fix: " + f.fix + "\n";
    if (f.grade == Grade::kMissing) missing += (missing.empty() ? "" : ", ") + f.subject;
  }
  text += tiers_text(facts.topology, ranking_of(facts));
  text += weights_text(weights_of(facts));
  return text + (missing.empty()
                     ? "Tiering works on this host.\n"
                     : "Tiering does not work on this host: missing " + missing + ".\n");
}

std::string doctor_json(const HostFacts& facts, const std::vector<Finding>& findings) {
  nlohmann::ordered_json json;
  json["schema"] = 1;
  json["tiering"] = tiering_works(findings);
  json["kernel"] = facts.release;
  json["findings"] = nlohmann::ordered_json::array();
  for (const Finding& f : findings) {
    json["findings"].push_back({{"subject", f.subject},
                                {"grade", to_string(f.grade)},
                                {"meaning", f.meaning},
                                {"fix", f.fix}});
  }
  add_tiers(facts.topology, ranking_of(facts), &json);
  add_weights(weights_of(facts), &json);
  // Paths may hold bytes that are no UTF-8: replaced, never thrown at.
  return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

int doctor(bool json) {
  const HostFacts facts = read_host();
  const std::vector<Finding> findings = examine(facts);
  std::fputs((json ? doctor_json(facts, findings) : doctor_text(facts, findings)).c_str(), stdout);
  return tiering_works(findings) ? kSuccess : kFailure;
}

}  // namespace heaptier::cli
