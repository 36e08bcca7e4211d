// Which event tells of memory accesses, by the files of processors of many kinds; and what its
// samples say.
#include "runtime/sampling/access_events.h"

#include <gtest/gtest.h>

#include <string>

#include "runtime/sampling/access_sample.h"
#include "tests/fakes/fake_file_tree.h"

namespace heaptier {
namespace {

const std::string kDevices = "/sys/bus/event_source/devices/";

class Machine : public testing::Test {
 protected:
  // With what every kernel has.
  Machine() {
    add("software", "type", "1\n");
    add("breakpoint", "type", "5\n");
  }
  void add(const std::string& device, const std::string& file, const std::string& text) {
    files_.files[kDevices + device + "/" + file] = text;
  }
  void add_intel(const std::string& device, const std::string& type) {
    add(device, "type", type);
    add(device, "format/event", "config:0-7\n");
    add(device, "format/umask", "config:8-15\n");
    add(device, "format/ldlat", "config1:0-15\n");
    add(device, "events/cpu-cycles", "event=0x3c\n");
  }
  void add_amd() {
    add("cpu", "type", "4\n");
    add("cpu", "format/event", "config:0-7,32-35\n");
    add("cpu", "events/cpu-cycles", "event=0x76\n");
    add("ibs_fetch", "type", "10\n");
    add("ibs_op", "type", "11\n");
  }
  bool find() { return find_access_events(files_, &found_, &why_not_).ok(); }

  FakeFileTree files_;
  AccessEvents found_;
  const char* why_not_ = "";
};

TEST_F(Machine, IntelLoadsAndStores) {
  add_intel("cpu", "4\n");
  add("cpu", "events/mem-loads", "event=0xcd,umask=0x1,ldlat=3\n");
  add("cpu", "events/mem-stores", "event=0xd0,umask=0x82\n");
  ASSERT_TRUE(find());
  ASSERT_EQ(found_.count, 2U);
  const AccessEvent& loads = found_.of[0];
  EXPECT_EQ(loads.type, 4U);
  EXPECT_EQ(loads.config[0], 0x1cdU);
  EXPECT_EQ(loads.config[1], kLeastLatency) << "the threshold is ours, not the file's";
  EXPECT_EQ(loads.config[2], 0U);
  EXPECT_FALSE(loads.tells_source) << "would need a group with mem-loads-aux where there is one";
  EXPECT_FALSE(loads.counts_kernel);
  EXPECT_NE(loads.precise, 0U) << "no addresses without";
  const AccessEvent& stores = found_.of[1];
  EXPECT_EQ(stores.type, 4U);
  EXPECT_EQ(stores.config[0], 0x82d0U);
  EXPECT_EQ(stores.config[1], 0U);
  EXPECT_TRUE(stores.tells_source) << "all stores: those that stay in the near caches are left out";
}

TEST_F(Machine, SapphireRapids) {
  add_intel("cpu", "4\n");
  add("cpu", "events/mem-loads-aux", "event=0x03,umask=0x82\n");
  add("cpu", "events/mem-loads", "event=0xcd,umask=0x1,ldlat=3\n");
  add("cpu", "events/mem-stores", "event=0xcd,umask=0x2\n");
  ASSERT_TRUE(find());
  EXPECT_EQ(found_.count, 2U);
  EXPECT_FALSE(found_.of[0].tells_source);
  EXPECT_EQ(found_.of[1].config[0], 0x2cdU);
}

TEST_F(Machine, OfMixedCoresTheFastOnes) {
  add_intel("cpu_atom", "10\n");
  add("cpu_atom", "events/mem-loads", "event=0xd0,umask=0x5,ldlat=3\n");
  add_intel("cpu_core", "4\n");
  add("cpu_core", "events/mem-loads-aux", "event=0x03,umask=0x82\n");
  add("cpu_core", "events/mem-loads", "event=0xcd,umask=0x1,ldlat=3\n");
  ASSERT_TRUE(find());
  ASSERT_EQ(found_.count, 1U) << "loads alone, where there are no stores";
  EXPECT_EQ(found_.of[0].type, 4U);
  EXPECT_EQ(found_.of[0].config[0], 0x1cdU);
}

TEST_F(Machine, AmdWithAFilter) {
  add_amd();
  add("ibs_op", "format/cnt_ctl", "config:19\n");
  add("ibs_op", "format/swfilt", "config2:0\n");
  ASSERT_TRUE(find());
  ASSERT_EQ(found_.count, 1U);
  const AccessEvent& all = found_.of[0];
  EXPECT_EQ(all.type, 11U);
  EXPECT_EQ(all.config[0], std::uint64_t{1} << 19);
  EXPECT_EQ(all.config[2], 1U);
  EXPECT_FALSE(all.counts_kernel);
  EXPECT_EQ(all.precise, 0U);
  EXPECT_TRUE(all.tells_source);
}

TEST_F(Machine, AmdThatLeavesOutWhatCachesServe) {
  add_amd();
  add("ibs_op", "format/cnt_ctl", "config:19\n");
  add("ibs_op", "format/l3missonly", "config:16\n");
  ASSERT_TRUE(find());
  EXPECT_EQ(found_.of[0].config[0], (std::uint64_t{1} << 19) | (std::uint64_t{1} << 16));
}

TEST_F(Machine, AmdWithoutAFilterCountsTheKernel) {
  add_amd();
  ASSERT_TRUE(find());
  EXPECT_EQ(found_.of[0].config[0], 0U) << "by cycles";
  EXPECT_EQ(found_.of[0].config[2], 0U);
  EXPECT_TRUE(found_.of[0].counts_kernel);
}

TEST_F(Machine, ArmIsNotUnderstoodAndOthersTellNothing) {
  EXPECT_FALSE(find());
  EXPECT_NE(std::string(why_not_).find("virtual machine"), std::string::npos) << why_not_;
  add("armv8_pmuv3_0", "type", "8\n");
  add("arm_spe_0", "type", "9\n");
  add("arm_spe_0", "format/load_filter", "config:33\n");
  EXPECT_FALSE(find());
  EXPECT_NE(std::string(why_not_).find("SPE"), std::string::npos) << why_not_;
  files_.files.clear();
  EXPECT_FALSE(find()) << "no /sys";
}

TEST_F(Machine, WhatMakesNoSenseIsNotOpened) {
  add_intel("cpu", "4\n");
  for (const char* event : {"event=0xcd,umask=0x1,unknown=3\n", "event=zz\n", "event=0x1ff\n",
                            ",\n", "event=0xcd,,\n", "=1\n"}) {
    add("cpu", "events/mem-loads", event);
    EXPECT_FALSE(find()) << event;
  }
  add("cpu", "events/mem-loads", "event=0xcd\n");
  EXPECT_TRUE(find());
  add("cpu", "type", "four\n");
  EXPECT_FALSE(find());
}

TEST(Field, GoesWhereTheFormatSays) {
  AccessEvent e;
  EXPECT_TRUE(put_field("config:0-7,32-35", 0xabc, &e));
  EXPECT_EQ(e.config[0], 0xa000000bcU);
  EXPECT_TRUE(put_field("config:0-7,32-35", 0x1, &e)) << "in place of what was there";
  EXPECT_EQ(e.config[0], 1U);
  EXPECT_TRUE(put_field("config1:63", 1, &e));
  EXPECT_EQ(e.config[1], std::uint64_t{1} << 63);
  EXPECT_TRUE(put_field("config2:0-63", ~std::uint64_t{0}, &e));
  EXPECT_EQ(e.config[2], ~std::uint64_t{0});
  for (const char* wrong : {"config3:0-7", "config:8-64", "config:7-0", "conf:1",
                            "config:", "config:x", "", "config12:1", "config:1-"}) {
    AccessEvent none;
    const bool put = put_field(wrong, 2, &none);
    EXPECT_FALSE(put) << wrong;
  }
}

TEST(Sample, SaysWhereAndHowMany) {
  const std::uint64_t body[] = {0x1000, 77, 0};
  AccessSample s;
  ASSERT_TRUE(
      decode_access({kRecordSample, reinterpret_cast<const unsigned char*>(body), 16}, false, &s));
  EXPECT_EQ(s.address, 0x1000U);
  EXPECT_EQ(s.accesses, 77U);
  EXPECT_FALSE(s.near);
  EXPECT_FALSE(
      decode_access({kRecordSample, reinterpret_cast<const unsigned char*>(body), 16}, true, &s))
      << "shorter than it has to be";
  const std::uint64_t nowhere[] = {0, 77};
  EXPECT_FALSE(decode_access({kRecordSample, reinterpret_cast<const unsigned char*>(nowhere), 16},
                             false, &s));
}

TEST(Sample, KnowsWhatTheNearCachesServed) {
  // PERF_MEM_LVL_*, from bit 5 on.
  constexpr std::uint64_t kHit = 0x02 << 5;
  constexpr std::uint64_t kMiss = 0x04 << 5;
  constexpr std::uint64_t kL1 = 0x08 << 5;
  constexpr std::uint64_t kFillBuffer = 0x10 << 5;
  constexpr std::uint64_t kL2 = 0x20 << 5;
  constexpr std::uint64_t kL3 = 0x40 << 5;
  constexpr std::uint64_t kRam = 0x80 << 5;
  EXPECT_TRUE(served_near(kL1 | kHit));
  EXPECT_TRUE(served_near(kL2 | kHit));
  for (const std::uint64_t far : {kL1 | kMiss, kL3 | kHit, kRam | kHit, kFillBuffer | kHit,
                                  std::uint64_t{0x01 << 5}, std::uint64_t{0}}) {
    EXPECT_FALSE(served_near(far)) << far;
  }
}

}  // namespace
}  // namespace heaptier
