// What the doctor says of hosts that the tests make up.
#include <gtest/gtest.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <string>

#include "preload/cli/doctor.h"

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
  facts.nodes = 1;
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
  facts.nodes = 3;
  facts.nodes_without_cpu = 1;
  const auto findings = examine(facts);
  EXPECT_TRUE(tiering_works(findings));
  for (const char* subject :
       {"huge pages", "overcommit", "address space", "mappings", "read pages"}) {
    EXPECT_EQ(about(findings, subject).grade, Grade::kLimited) << subject;
    EXPECT_FALSE(about(findings, subject).fix.empty()) << subject;
  }
  EXPECT_EQ(about(findings, "mappings").fix, "sudo sysctl -w vm.max_map_count=262144");
  EXPECT_NE(about(findings, "memory").meaning.find("512 MiB"), std::string::npos);
  EXPECT_NE(about(findings, "NUMA").meaning.find("3 nodes, 1 without CPUs"), std::string::npos);
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
  EXPECT_GE(facts.nodes, 1u);
  EXPECT_EQ(examine(facts).empty(), false);
}

}  // namespace
}  // namespace heaptier::cli
