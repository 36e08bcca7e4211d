// What this host lets a test do. Each answer carries its reason, so that a skipped test says why.
#pragma once

#include <string>

namespace heaptier::test {

// Empty: a full userfaultfd (kernel-mode faults too) that can move pages. Otherwise why not, in one
// line.
std::string why_no_userfaultfd();

// Exit status by which ctest knows a skipped test.
inline constexpr int kSkipped = 77;

}  // namespace heaptier::test
