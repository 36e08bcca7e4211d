// main() of the programs in tests/kernel. Plain, they are ordinary tests of the C library and the
// kernel; with TEST_MODE=tiered in the environment (ctest sets it together with LD_PRELOAD)
// they refuse to pass unless heaptier is there, awake and has stored pages: a test of eviction
// without eviction proves nothing. TEST_MODE=hidden: the same where pages are hidden and not
// parked, which needs no userfaultfd.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/support/host.h"
#include "tests/support/managed.h"
#include "tests/support/process.h"

int main(int argc, char** argv) {
  using namespace heaptier::test;
  int status = 0;
  if (run_named_role(argc, argv, &status)) return status;
  setvbuf(stdout, nullptr, _IOLBF, 0);  // a test that hangs shall at least be named
  testing::InitGoogleTest(&argc, argv);
  const char* mode = std::getenv("TEST_MODE");
  const bool hidden = mode != nullptr && std::strcmp(mode, "hidden") == 0;
  const bool must_tier = hidden || (mode != nullptr && std::strcmp(mode, "tiered") == 0);
  if (must_tier) {
    const std::string why = hidden ? std::string() : why_no_userfaultfd();
    if (!why.empty()) {
      std::printf("skipped: %s\n", why.c_str());
      return kSkipped;
    }
    if (!preloaded()) {
      std::fprintf(stderr, "TEST_MODE=%s, but libheaptier is not in this process\n", mode);
      return 1;
    }
    const int woken = wake();
    if (woken != 0 || !tiered()) {
      std::fprintf(stderr, "heaptier does not wake: %s\n", std::strerror(-woken));
      return 1;
    }
  }
  status = RUN_ALL_TESTS();
  const auto* const unit = testing::UnitTest::GetInstance();
  if (must_tier && status == 0 && unit->test_to_run_count() > unit->skipped_test_count() &&
      put_away_count() == 0) {
    std::fprintf(stderr, "no page was ever away: this run proved nothing\n");
    return 1;
  }
  if (status == 0 && unit->test_to_run_count() == unit->skipped_test_count()) return kSkipped;
  return status;
}
