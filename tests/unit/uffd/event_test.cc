#include "uffd/event.h"

#include <gtest/gtest.h>

namespace heaptier {
namespace {

RawEvent pagefault(std::uint64_t flags, std::uint64_t address, std::uint32_t tid) {
  RawEvent raw;
  raw.event = 0x12;
  raw.arg[0] = flags;
  raw.arg[1] = address;
  raw.arg[2] = tid;
  return raw;
}

TEST(Event, ReadsTheFlagsOfAFaultOneByOne) {
  struct {
    std::uint64_t flags;
    bool write, wp;
  } const cases[] = {{0, false, false}, {1, true, false}, {2, false, true}, {3, true, true}};
  for (const auto& c : cases) {
    const DecodedEvent e = decode(pagefault(c.flags, 0x7f0000001000, 42));
    ASSERT_EQ(e.kind, EventKind::kFault);
    EXPECT_EQ(e.fault.write, c.write) << c.flags;
    EXPECT_EQ(e.fault.wp, c.wp) << c.flags;
    EXPECT_EQ(e.fault.tid, 42u);
  }
}

TEST(Event, AlignsTheAddressToItsPage) {
  EXPECT_EQ(decode(pagefault(0, 0x7f0000001fff, 1)).fault.address, 0x7f0000001000u);
  EXPECT_EQ(decode(pagefault(0, 0x7f0000002000, 1)).fault.address, 0x7f0000002000u);
}

TEST(Event, TakesOnlyTheThreadIdOfItsWord) {
  RawEvent raw = pagefault(0, 0x1000, 7);
  raw.arg[2] |= 0xabcd000000000000;
  EXPECT_EQ(decode(raw).fault.tid, 7u);
}

TEST(Event, AMinorFaultIsNotAMissingOne) {
  EXPECT_EQ(decode(pagefault(4, 0x1000, 1)).kind, EventKind::kMinorFault);
  EXPECT_EQ(decode(pagefault(5, 0x1000, 1)).kind, EventKind::kMinorFault);
}

// 0x13 & 0x12 is not zero: a bit test would take all of these for faults.
TEST(Event, EveryNumberHasExactlyOneKind) {
  for (unsigned number = 0; number < 256; ++number) {
    RawEvent raw;
    raw.event = static_cast<std::uint8_t>(number);
    EventKind expected = EventKind::kUnknown;
    if (number == 0x12) expected = EventKind::kFault;
    if (number == 0x13) expected = EventKind::kFork;
    if (number == 0x14) expected = EventKind::kRemap;
    if (number == 0x15) expected = EventKind::kRemove;
    if (number == 0x16) expected = EventKind::kUnmap;
    EXPECT_EQ(decode(raw).kind, expected) << number;
    EXPECT_STRNE(to_string(decode(raw).kind), "?");
  }
}

}  // namespace
}  // namespace heaptier
