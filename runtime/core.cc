#include "runtime/core.h"

#include "policies/refault.h"
#include "runtime/os/advice.h"
#include "runtime/os/thread.h"

namespace heaptier {
namespace {

// Bases of home and park agree modulo this, so that equal offsets fall into the same shard of
// userfaultfds (uffd/shard.h: up to 16 strips of 32 MiB).
constexpr std::size_t kParkAlign = std::size_t{1} << 30;

}  // namespace

std::uint32_t Core::stamp_now() const {
  return refault_stamp(discards.load(std::memory_order_relaxed),
                       stamp_shift.load(std::memory_order_relaxed));
}

std::size_t Core::read_pages(const std::uintptr_t* from, std::size_t count, void* to) {
  std::size_t done = 0;
  reading_tid.store(os::thread_id(), std::memory_order_release);
  if (ops.copy_pages(from, count, to, &done).failed()) stats.errors_read_pages.add();
  reading_tid.store(0, std::memory_order_release);
  return done;
}

Errno Core::choose_park(bool piecewise) {
  if (park_base != 0) return kOk;
  const std::size_t bytes = space.bytes();
  const std::uintptr_t beside =
      round_up(space.base() + bytes, kParkAlign) + (space.base() & (kParkAlign - 1));
  if (piecewise) {
    park_base = beside;
    return kOk;
  }
  std::uintptr_t at = 0;
  Errno e = ops.map_private(bytes + kParkAlign, "heaptier-park", &at);
  if (e.failed()) {
    // Strict overcommit refuses so large a writable mapping: claim it piece by piece.
    park_base = beside;
    return kOk;
  }
  park_base = round_up(at, kParkAlign) + (space.base() & (kParkAlign - 1));
  if (park_base + bytes > at + bytes + kParkAlign) park_base -= kParkAlign;
  (void)ops.advise(park_base, bytes, os::kAdviceDontDump);
  park_mapped = true;
  return kOk;
}

Errno Core::ensure_park(BlockIndex b) {
  if (park_mapped) return kOk;
  const std::uintptr_t at = park(first_page(b));
  std::uintptr_t got = 0;
  if (Errno e = ops.reserve(at, kPageblockSize, &got); e.failed() && e.code != EEXIST) return e;
  return ops.commit(at, kPageblockSize);
}

}  // namespace heaptier
