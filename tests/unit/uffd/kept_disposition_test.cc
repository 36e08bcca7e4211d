#include "uffd/kept_disposition.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

namespace heaptier {
namespace {

struct sigaction disposition(std::uintptr_t n) {
  struct sigaction a {};
  a.sa_sigaction = reinterpret_cast<void (*)(int, siginfo_t*, void*)>(n);
  a.sa_flags = static_cast<int>(n);
  sigemptyset(&a.sa_mask);
  for (int bit = 0; bit < 20; ++bit) {
    if (((n >> bit) & 1) != 0) sigaddset(&a.sa_mask, bit + 1);
  }
  return a;
}

std::uintptr_t number_of(const struct sigaction& a) {
  return reinterpret_cast<std::uintptr_t>(a.sa_sigaction);
}

TEST(KeptDisposition, GivesBackWhatWasWritten) {
  KeptDisposition kept;
  struct sigaction out;
  kept.read(&out);
  EXPECT_EQ(out.sa_handler, SIG_DFL);
  for (std::uintptr_t n = 1; n < 10; ++n) {
    kept.write(disposition(n));
    kept.read(&out);
    EXPECT_EQ(number_of(out), n);
    EXPECT_EQ(out.sa_flags, static_cast<int>(n));
    const struct sigaction expected = disposition(n);
    for (int sig = 1; sig < 64; ++sig) {
      EXPECT_EQ(sigismember(&out.sa_mask, sig), sigismember(&expected.sa_mask, sig));
    }
  }
}

TEST(KeptDisposition, LeavesTheThreadsMaskAsItWas) {
  sigset_t before;
  sigset_t after;
  pthread_sigmask(SIG_SETMASK, nullptr, &before);
  KeptDisposition kept;
  kept.write(disposition(3));
  pthread_sigmask(SIG_SETMASK, nullptr, &after);
  for (int sig = 1; sig < 64; ++sig) {
    EXPECT_EQ(sigismember(&before, sig), sigismember(&after, sig));
  }
}

TEST(KeptDisposition, ReadersNeverSeeAMixture) {
  KeptDisposition kept;
  kept.write(disposition(1));
  std::atomic<bool> stop{false};
  const auto write = [&](std::uintptr_t first) {
    for (std::uintptr_t n = first; !stop.load(); n = (n + 2) % 0xfffff) kept.write(disposition(n));
  };
  std::thread one(write, 1);
  std::thread two(write, 2);
  for (int i = 0; i < 20000; ++i) {
    struct sigaction out;
    kept.read(&out);
    const std::uintptr_t n = number_of(out);
    ASSERT_EQ(out.sa_flags, static_cast<int>(n));
    for (int bit = 0; bit < 20; ++bit) {
      ASSERT_EQ(sigismember(&out.sa_mask, bit + 1), static_cast<int>((n >> bit) & 1));
    }
  }
  stop.store(true);
  one.join();
  two.join();
}

}  // namespace
}  // namespace heaptier
