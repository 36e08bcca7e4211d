#include "uffd/event.h"

#include "runtime/base/units.h"

namespace heaptier {
namespace {

// struct uffd_msg's event numbers and fault flags; uffd/api.cc asserts that they agree with the
// kernel's.
constexpr std::uint8_t kEventPagefault = 0x12;
constexpr std::uint8_t kEventFork = 0x13;
constexpr std::uint8_t kEventRemap = 0x14;
constexpr std::uint8_t kEventRemove = 0x15;
constexpr std::uint8_t kEventUnmap = 0x16;

constexpr std::uint64_t kFlagWrite = 1;
constexpr std::uint64_t kFlagWp = 2;
constexpr std::uint64_t kFlagMinor = 4;

DecodedEvent decode_fault(const RawEvent& raw) {
  const std::uint64_t flags = raw.arg[0];
  if ((flags & kFlagMinor) != 0) return {EventKind::kMinorFault, {}};
  FaultEvent fault;
  fault.address = round_down(static_cast<std::uintptr_t>(raw.arg[1]), kPageSize);
  fault.write = (flags & kFlagWrite) != 0;
  fault.wp = (flags & kFlagWp) != 0;
  fault.tid = static_cast<std::uint32_t>(raw.arg[2]);
  return {EventKind::kFault, fault};
}

}  // namespace

const char* to_string(EventKind kind) {
  switch (kind) {
    case EventKind::kFault:
      return "fault";
    case EventKind::kMinorFault:
      return "minor fault";
    case EventKind::kFork:
      return "fork";
    case EventKind::kRemap:
      return "remap";
    case EventKind::kRemove:
      return "remove";
    case EventKind::kUnmap:
      return "unmap";
    case EventKind::kUnknown:
      return "unknown";
  }
  return "?";
}

DecodedEvent decode(const RawEvent& raw) {
  switch (raw.event) {
    case kEventPagefault:
      return decode_fault(raw);
    case kEventFork:
      return {EventKind::kFork, {}};
    case kEventRemap:
      return {EventKind::kRemap, {}};
    case kEventRemove:
      return {EventKind::kRemove, {}};
    case kEventUnmap:
      return {EventKind::kUnmap, {}};
    default:
      return {EventKind::kUnknown, {}};
  }
}

}  // namespace heaptier
