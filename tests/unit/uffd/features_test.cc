#include "uffd/features.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <string>

namespace heaptier {
namespace {

TEST(Features, EachBitIsItsOwnAbility) {
  EXPECT_TRUE(features_from_bits(1u << 0).wp);
  EXPECT_TRUE(features_from_bits(1u << 7).sigbus);
  EXPECT_TRUE(features_from_bits(1u << 8).thread_id);
  EXPECT_TRUE(features_from_bits(1u << 14).poison);
  EXPECT_TRUE(features_from_bits(1u << 15).wp_async);
  EXPECT_TRUE(features_from_bits(1u << 16).move);
  const Features old = features_from_bits(0x1fff);  // Linux 6.1
  EXPECT_TRUE(old.wp && old.thread_id && old.sigbus && old.event_fork);
  EXPECT_FALSE(old.move || old.poison || old.wp_async);
  EXPECT_EQ(old.raw, 0x1fffu);
}

std::string remedy_for(int by_syscall, int by_device, bool user_mode_only) {
  ProbeResult r;
  r.errno_syscall = by_syscall;
  r.errno_device = by_device;
  r.user_mode_only_works = user_mode_only;
  return remedy(r);
}

bool names(const std::string& text, const char* word) {
  return text.find(word) != std::string::npos;
}

TEST(Remedy, NamesTheSysctlWhereTheKernelRefuses) {
  const std::string with_device = remedy_for(EPERM, EACCES, true);
  EXPECT_TRUE(names(with_device, "sysctl -w vm.unprivileged_userfaultfd=1"));
  EXPECT_TRUE(names(with_device, "/dev/userfaultfd"));
  const std::string without = remedy_for(EPERM, ENOENT, true);
  EXPECT_TRUE(names(without, "sysctl -w vm.unprivileged_userfaultfd=1"));
  EXPECT_FALSE(names(without, "/dev/userfaultfd"));
}

TEST(Remedy, NamesSeccompWhereEvenTheHarmlessKindIsRefused) {
  EXPECT_TRUE(names(remedy_for(EPERM, EACCES, false), "seccomp"));
  EXPECT_TRUE(names(remedy_for(ENOSYS, EACCES, false), "seccomp"));
}

TEST(Remedy, NamesTheKernelOptionAndTheDescriptorLimit) {
  EXPECT_TRUE(names(remedy_for(ENOSYS, ENOENT, false), "CONFIG_USERFAULTFD"));
  EXPECT_TRUE(names(remedy_for(EMFILE, EMFILE, false), "ulimit -n"));
}

TEST(Remedy, AsksForANewerKernelOnlyWhereOneIsNeeded) {
  ProbeResult r;
  r.source = Source::kSysctl;
  r.features = features_from_bits(0x1fff);
  EXPECT_TRUE(names(remedy(r), "6.8"));
  r.features = features_from_bits(0x1ffff);
  EXPECT_STREQ(remedy(r), "");
  r.features = features_from_bits(0x1fffe);
  EXPECT_TRUE(names(remedy(r), "5.7"));
}

// It ends up in one line of a report.
TEST(Remedy, IsAlwaysOneLine) {
  for (int s : {0, EPERM, EACCES, ENOSYS, EMFILE, EINVAL}) {
    for (int d : {0, EPERM, EACCES, ENOENT, ENXIO, EINVAL}) {
      for (bool u : {false, true}) {
        const std::string text = remedy_for(s, d, u);
        EXPECT_FALSE(text.empty());
        EXPECT_FALSE(names(text, "\n"));
      }
    }
  }
}

}  // namespace
}  // namespace heaptier
