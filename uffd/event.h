// What a userfaultfd says, decoded. Pure: no system call, no kernel header; uffd/api.cc asserts
// that the layout of RawEvent is that of the kernel's struct uffd_msg.
//
// Event numbers are numbers (0x12..0x16), flags are bits. Two of three pagers of this kind tested
// the number with `&`; hence one function, and a unit test of it.
#pragma once

#include <cstdint>

namespace heaptier {

// One message as read from the file descriptor: 32 bytes, meaning of arg[] by event.
struct RawEvent {
  std::uint8_t event = 0;
  std::uint8_t reserved1 = 0;
  std::uint16_t reserved2 = 0;
  std::uint32_t reserved3 = 0;
  std::uint64_t arg[3] = {};
};
static_assert(sizeof(RawEvent) == 32);

// A thread is asleep (or, in inline mode, interrupted) because it touched a registered page.
struct FaultEvent {
  std::uintptr_t address = 0;  // of the page, page aligned
  bool write = false;          // the access was a write
  bool wp = false;             // the page is present but write-protected; else it is absent
  std::uint32_t tid =
      0;  // who faulted; 0: unknown. May belong to another process (ptrace, process_vm_readv)
  int cpu = -1;         // where that thread ran when the fault was taken up; -1: not known
  bool denied = false;  // the mapping does not allow the access, present or not (SIGSEGV)
};

enum class EventKind : std::uint8_t {
  kFault,       // MISSING or WP: the one kind that is ever asked for
  kMinorFault,  // the rest is never asked for; named so that nothing is mistaken for a fault
  kFork,
  kRemap,
  kRemove,
  kUnmap,
  kUnknown,
};
const char* to_string(EventKind kind);

struct DecodedEvent {
  EventKind kind = EventKind::kUnknown;
  FaultEvent fault;  // only for kFault
};

DecodedEvent decode(const RawEvent& raw);

}  // namespace heaptier
