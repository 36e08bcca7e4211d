// What the doctor says of hosts that the tests make up.
#include <gtest/gtest.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <string>

#include "preload/cli/doctor.h"
#include "tests/unit/topology/machines.h"

namespace heaptier::cli {
namespace {

HostFacts good_host() {
  HostFacts facts;
  parse_release("6.18.3-amd64", &facts);
  facts.library = "/usr/lib/libheaptier.so";
  facts.uffd.source = Source::kDevice;
  facts.uffd.features.raw = 0xffff;
  facts.uffd.features.wp = facts.uffd.features.move = facts.uffd.features.thread_id = true;
  facts.pagemap_scan = facts.batched_discard = facts.process_vm_readv = true;
  facts.thp_enabled = "madvise";
  facts.overcommit = 0;
  facts.max_map_count = 65530;
  facts.physical_bytes = 16ull << 30;
  facts.available_bytes = 8ull << 30;
  facts.seccomp = 0;
  facts.topology = *topology_of(machine({{0, "0-3", 1024, "10"}}, "0", "0", "0"));
  return facts;
}

const Finding& about(const std::vector<Finding>& findings, const std::string& subject) {
  for (const Finding& f : findings) {
    if (f.subject == subject) return f;
  }
  static const Finding kAbsent{"absent", Grade::kMissing, "", ""};
  ADD_FAILURE() << "nothing about " << subject;
  return kAbsent;
}

TEST(Doctor, GoodHostHasNothingToFix) {
  const auto findings = examine(good_host());
  EXPECT_TRUE(tiering_works(findings));
  for (const Finding& f : findings) {
    EXPECT_EQ(f.grade, Grade::kOk) << f.subject;
    EXPECT_EQ(f.fix, "") << f.subject;
    EXPECT_FALSE(f.meaning.empty()) << f.subject;
  }
  EXPECT_NE(doctor_text(good_host(), findings).find("\nTiering works on this host.\n"),
            std::string::npos);
}

TEST(Doctor, WithoutUserfaultfdTieringDoesNotWorkAndTheFixIsTheProbesRemedy) {
  HostFacts facts = good_host();
  facts.uffd = {};
  facts.uffd.errno_syscall = EPERM;
  facts.uffd.errno_device = EACCES;
  facts.uffd.user_mode_only_works = true;
  const auto findings = examine(facts);
  EXPECT_FALSE(tiering_works(findings));
  const Finding& f = about(findings, "userfaultfd");
  EXPECT_EQ(f.grade, Grade::kMissing);
  EXPECT_EQ(f.fix, remedy(facts.uffd));
  EXPECT_FALSE(f.fix.empty());
  EXPECT_NE(f.meaning.find("Operation not permitted"), std::string::npos);
  EXPECT_NE(f.meaning.find("--fault inline"), std::string::npos);
  // What it would be able to do is not known, and not claimed.
  for (const Finding& other : findings) EXPECT_NE(other.subject, "UFFDIO_MOVE");
  EXPECT_NE(doctor_text(facts, findings).find("does not work on this host: missing userfaultfd.\n"),
            std::string::npos);
}

TEST(Doctor, SaysWhichSamplersThereAreAndWhyNot) {
  HostFacts facts = good_host();
  EXPECT_EQ(about(examine(facts), "samplers").meaning, "park, protnone, damon, perf");
  facts.no_perf = "perf_event_open is refused";
  EXPECT_EQ(about(examine(facts), "samplers").meaning,
            "park, protnone, damon; not perf: perf_event_open is refused");
  facts.no_perf.clear();
  facts.no_damon = "DAMON is for root";
  EXPECT_EQ(about(examine(facts), "samplers").meaning,
            "park, protnone, perf; not damon: DAMON is for root");
  facts.uffd.features.move = false;
  EXPECT_EQ(about(examine(facts), "samplers").meaning,
            "protnone, perf; not park: see userfaultfd; not damon: DAMON is for root");
  EXPECT_TRUE(about(examine(facts), "samplers").fix.empty()) << "none of them is needed";
}

TEST(Doctor, OldKernel) {
  HostFacts facts = good_host();
  facts.uffd.features.move = false;
  facts.pagemap_scan = facts.batched_discard = false;
  const auto findings = examine(facts);
  EXPECT_FALSE(tiering_works(findings));
  EXPECT_NE(about(findings, "UFFDIO_MOVE").fix.find("Linux 6.8"), std::string::npos);
  EXPECT_EQ(about(findings, "PAGEMAP_SCAN").grade, Grade::kLimited);
  EXPECT_NE(about(findings, "PAGEMAP_SCAN").fix.find("6.7"), std::string::npos);
  EXPECT_NE(about(findings, "batched discard").fix.find("6.13"), std::string::npos);
}

TEST(Doctor, LimitsAreNoObstacle) {
  HostFacts facts = good_host();
  facts.thp_enabled = "never";
  facts.overcommit = 2;
  facts.address_limit = 1ull << 30;
  facts.max_map_count = 100;
  facts.process_vm_readv = false;
  facts.cgroup_limit = 512ull << 20;
  facts.swap_bytes = 1ull << 30;
  facts.topology = *topology_of(four_nodes());
  const auto findings = examine(facts);
  EXPECT_TRUE(tiering_works(findings));
  for (const char* subject :
       {"huge pages", "overcommit", "address space", "mappings", "read pages"}) {
    EXPECT_EQ(about(findings, subject).grade, Grade::kLimited) << subject;
    EXPECT_FALSE(about(findings, subject).fix.empty()) << subject;
  }
  EXPECT_EQ(about(findings, "mappings").fix, "sudo sysctl -w vm.max_map_count=262144");
  EXPECT_NE(about(findings, "memory").meaning.find("512 MiB"), std::string::npos);
  EXPECT_NE(about(findings, "NUMA").meaning.find("4 nodes, 2 without CPUs"), std::string::npos);
  EXPECT_EQ(about(findings, "NUMA").meaning.find("balance"), std::string::npos);
  HostFacts balanced = facts;
  balanced.numa_balancing = 1;
  EXPECT_NE(about(examine(balanced), "NUMA").meaning.find("the kernel balances between them"),
            std::string::npos);
}

TEST(Doctor, ALimitOnDataLeavesNothingForTiering) {
  HostFacts facts = good_host();
  EXPECT_EQ(about(examine(facts), "data").grade, Grade::kOk);
  facts.data_limit = 400ull << 20;
  const auto findings = examine(facts);
  EXPECT_FALSE(tiering_works(findings));
  EXPECT_NE(about(findings, "data").meaning.find("400 MiB"), std::string::npos);
  EXPECT_EQ(about(findings, "data").fix, "ulimit -d unlimited");
}

TEST(Doctor, WithoutTheLibraryNothingWorks) {
  HostFacts facts = good_host();
  facts.library.clear();
  facts.library_problem = "libheaptier.so is nowhere";
  EXPECT_FALSE(tiering_works(examine(facts)));
  EXPECT_EQ(about(examine(facts), "library").meaning, "libheaptier.so is nowhere");
}

TEST(Doctor, JsonHasEveryFinding) {
  HostFacts facts = good_host();
  facts.library = "/opt/\xff\"x";  // no UTF-8, and a quote
  facts.thp_enabled = "never";
  const auto findings = examine(facts);
  const auto json = nlohmann::json::parse(doctor_json(facts, findings));
  EXPECT_EQ(json["tiering"], true);
  EXPECT_EQ(json["kernel"], "6.18.3-amd64");
  ASSERT_EQ(json["findings"].size(), findings.size());
  for (std::size_t i = 0; i < findings.size(); ++i) {
    EXPECT_EQ(json["findings"][i]["subject"], findings[i].subject);
    EXPECT_EQ(json["findings"][i]["grade"], to_string(findings[i].grade));
    EXPECT_EQ(json["findings"][i]["fix"], findings[i].fix);
  }
}

HostFacts tiered_host() {
  HostFacts facts = good_host();
  FakeFileTree tree = four_nodes_with_hmat();
  kernel_tiers(&tree);
  facts.topology = *topology_of(tree);
  return facts;
}

TEST(Tiers, AreToldWithTheReason) {
  const HostFacts facts = tiered_host();
  const auto findings = examine(facts);
  EXPECT_EQ(about(findings, "NUMA").meaning,
            "4 nodes, 2 without CPUs; --tiers can make a chain of them, as below");
  const std::string text = doctor_text(facts, findings);
  EXPECT_NE(
      text.find("Tiers of memory nodes, fastest first (free: above the watermarks)\n"
                "  dram nodes 0-1: 1536 MiB, 384 MiB free; by the kernel's memory tiers\n"
                "       node 0: 1024 MiB, 256 MiB free, 2 CPUs; memory_tier4; 100 ns, 204800 "
                "MB/s; next node 2 at distance 24\n"
                "       node 1: 512 MiB, 128 MiB free, 2 CPUs; memory_tier4; 100 ns, 204800 "
                "MB/s; next node 2 at distance 24\n"
                "  cxl  node 2: 512 MiB, 128 MiB free; by the kernel's memory tiers\n"
                "       node 2: 512 MiB, 128 MiB free, no CPUs; memory_tier67; 300 ns, 40960 "
                "MB/s; next node 3 at distance 38\n"
                "  pmem node 3: 384 MiB, 96 MiB free; by the kernel's memory tiers\n"
                "       node 3: 384 MiB, 96 MiB free, no CPUs, an NVDIMM; memory_tier225; 500 "
                "ns, 20480 MB/s\n"),
      std::string::npos)
      << text;
}

TEST(Tiers, OneNodeIsOneTier) {
  const HostFacts facts = good_host();
  EXPECT_EQ(about(examine(facts), "NUMA").meaning, "1 node");
  EXPECT_NE(doctor_text(facts, examine(facts))
                .find("  dram node 0: 1024 MiB, 256 MiB free; nothing sets its nodes apart\n"),
            std::string::npos);
}

TEST(Tiers, WhatIsLeftOutIsSaid) {
  HostFacts facts = tiered_host();
  facts.topology.allowed = NodeSet::of(0) | NodeSet::of(2);
  facts.topology.possible = NodeSet::all();  // as hypervisors announce; no news
  facts.topology.nodes_beyond = 6;
  const auto findings = examine(facts);
  EXPECT_NE(about(findings, "NUMA").meaning.find("the cpuset forbids nodes 1,3"),
            std::string::npos);
  const std::string text = doctor_text(facts, findings);
  EXPECT_NE(text.find("  left out: nodes 1,3, outside of this process' cpuset\n"
                      "  left out: 6 more, numbered 64 or higher\n"),
            std::string::npos)
      << text;
}

TEST(Tiers, TheVariableOverridesTheRanking) {
  HostFacts facts = tiered_host();
  facts.tiers_variable = "dram=node:1;cxl=node:2-3";
  EXPECT_EQ(picture(ranking_of(facts)), "dram 1 > cxl 2,3");
  EXPECT_EQ(about(examine(facts), "HEAPTIER_TIERS").grade, Grade::kOk);
  EXPECT_NE(
      doctor_text(facts, examine(facts)).find("  left out: node 0, in no tier of HEAPTIER_TIERS\n"),
      std::string::npos);
  facts.tiers_variable = "dram=node:0;cxl=node:8";
  EXPECT_EQ(picture(ranking_of(facts)), "dram 0,1 > cxl 2 > pmem 3");
  EXPECT_NE(about(examine(facts), "HEAPTIER_TIERS").meaning.find("there is no node 8"),
            std::string::npos);
  facts.tiers_variable = "dram,zpool:1G";
  EXPECT_EQ(about(examine(facts), "HEAPTIER_TIERS").grade, Grade::kOk);
  EXPECT_EQ(picture(ranking_of(facts)), "dram 0,1 > cxl 2 > pmem 3");
}

TEST(Tiers, SizesAreShownBesideWhatTheNodesHave) {
  HostFacts facts = tiered_host();
  facts.tiers_variable = "dram=node:0-1;cxl=node:2:64M;pmem=node:3:4G";
  const std::string text = doctor_text(facts, examine(facts));
  for (const char* line : {"  dram nodes 0-1: 1536 MiB, 384 MiB free; as configured\n",
                           "  cxl  node 2: 64 MiB of 512 MiB, 64 MiB free; as configured\n",
                           "  pmem node 3: 384 MiB, 96 MiB free; as configured\n"}) {
    EXPECT_NE(text.find(line), std::string::npos) << line << text;
  }
  const auto json = nlohmann::json::parse(doctor_json(facts, examine(facts)));
  EXPECT_EQ(json["tiers"][1]["capacity_bytes"], 64u << 20);
  EXPECT_EQ(json["nodes"][2]["capacity_bytes"], 512u << 20);
}

TEST(Tiers, AreInTheJson) {
  const HostFacts facts = tiered_host();
  const auto json = nlohmann::json::parse(doctor_json(facts, examine(facts)));
  ASSERT_EQ(json["tiers"].size(), 3u);
  EXPECT_EQ(json["tiers"][0]["nodes"], (nlohmann::json{0, 1}));
  EXPECT_EQ(json["tiers"][2]["kind"], "pmem");
  EXPECT_EQ(json["tiers"][1]["capacity_bytes"], 512u << 20);
  EXPECT_EQ(json["tiers"][1]["reason"], to_string(RankReason::kKernelTier));
  ASSERT_EQ(json["nodes"].size(), 4u);
  EXPECT_EQ(json["nodes"][2]["tier"], 1);
  EXPECT_EQ(json["nodes"][2]["read_latency_ns"], 300);
  EXPECT_EQ(json["nodes"][2]["distances"]["3"], 38);
  EXPECT_EQ(json["nodes"][2]["next"], nlohmann::json::array({3}));
  EXPECT_EQ(json["nodes_beyond"], 0);
  // What is not known is not there.
  const HostFacts plain = good_host();
  const auto little = nlohmann::json::parse(doctor_json(plain, examine(plain)));
  EXPECT_FALSE(little["nodes"][0].contains("kernel_tier"));
  EXPECT_FALSE(little["nodes"][0].contains("read_latency_ns"));
}

TEST(Weights, OfInterleavingAreShown) {
  HostFacts facts = tiered_host();
  EXPECT_NE(doctor_text(facts, examine(facts))
                .find("  --policy interleave: weights 0=13,1=13,2=2,3=1 (by bandwidth)\n"),
            std::string::npos)
      << doctor_text(facts, examine(facts));
  facts.tiers_variable = "dram=node:0;cxl=node:2";
  auto json = nlohmann::json::parse(doctor_json(facts, examine(facts)));
  EXPECT_EQ(json["interleave"]["weights"], (nlohmann::json{{"0", 26}, {"2", 5}}));
  facts.policy_variable = "interleave:0=3,2=1";
  EXPECT_EQ(about(examine(facts), "HEAPTIER_POLICY").grade, Grade::kOk);
  EXPECT_NE(doctor_text(facts, examine(facts))
                .find("  --policy interleave: weights 0=3,2=1 (as given)\n"),
            std::string::npos);
  facts.policy_variable = "interleave:0=3,1=1";
  EXPECT_NE(about(examine(facts), "HEAPTIER_POLICY").meaning.find("node 1 is of no tier"),
            std::string::npos);
  json = nlohmann::json::parse(doctor_json(facts, examine(facts)));
  EXPECT_EQ(json["interleave"]["weights"], (nlohmann::json{{"0", 26}, {"2", 5}}));
  facts = good_host();
  EXPECT_EQ(doctor_text(facts, examine(facts)).find("--policy interleave"), std::string::npos);
}

TEST(Host, Parsers) {
  HostFacts facts;
  parse_release("6.1.0-18-amd64", &facts);
  EXPECT_EQ(facts.kernel_major, 6u);
  EXPECT_EQ(facts.kernel_minor, 1u);
  parse_release("nonsense", &facts);
  EXPECT_EQ(facts.kernel_major, 0u);
  EXPECT_EQ(chosen_word("always [madvise] never\n"), "madvise");
  EXPECT_EQ(chosen_word(""), "");
  EXPECT_EQ(chosen_word("]["), "");
  parse_swaps(
      "Filename Type Size Used Priority\n/dev/zram0 partition 1024 0 100\n/swap file 1024 0 -2\n",
      &facts);
  EXPECT_EQ(facts.swap_bytes, 2u << 20);
  EXPECT_TRUE(facts.swap_is_zram);
  EXPECT_EQ(status_field("Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n", "Seccomp"), 2);
  EXPECT_EQ(status_field("Name:\tx\n", "Seccomp"), -1);
}

TEST(Host, ThisOne) {
  const HostFacts facts = read_host();
  EXPECT_GE(facts.kernel_major, 4u);
  EXPECT_GT(facts.physical_bytes, 0u);
  EXPECT_FALSE(facts.topology.usable().empty());
  EXPECT_GE(ranking_of(facts).count, 1u);
  EXPECT_EQ(examine(facts).empty(), false);
}

}  // namespace
}  // namespace heaptier::cli
