// `heaptier doctor`: what the facts of a host mean for heaptier, and how to change what can be
// changed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "preload/cli/host.h"
#include "runtime/topology/ranking.h"

namespace heaptier::cli {

enum class Grade : std::uint8_t {
  kOk,       // as good as it gets, or of no influence
  kLimited,  // works, but slower or less of it
  kMissing,  // tiering does not work for this
};
const char* to_string(Grade grade);

struct Finding {
  std::string subject;  // "userfaultfd"
  Grade grade = Grade::kOk;
  std::string meaning;  // one line
  std::string fix;      // the exact command or setting, or empty
};

// Pure. What is missing comes before anything else would be of use, in the order of the checks.
std::vector<Finding> examine(const HostFacts& facts);
// No finding is missing.
bool tiering_works(const std::vector<Finding>& findings);

// What HEAPTIER_TIERS says of nodes, where the machine has them; else what is derived.
Ranking ranking_of(const HostFacts& facts);

std::string doctor_text(const HostFacts& facts, const std::vector<Finding>& findings);
std::string doctor_json(const HostFacts& facts, const std::vector<Finding>& findings);

// Examines this host and prints. Returns the exit code.
int doctor(bool json);

}  // namespace heaptier::cli
