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

void Core::queue_clean(Probation& queue, PageIndex p) {
  // What was fetched waits for no time, only for its turn.
  if (queue.push(p, &queue == &fetched ? Nanos{} : ops.now())) return;
  PageWord was;
  if (!table.try_lock(p, &was)) return;  // whoever has it changes or queues it
  if (was.state() != PageState::kClean) return table.unlock(p, was);
  store->drop(SlotId{was.slot()});
  settle(p, was, was.with_state(PageState::kResident).with_slot(0), stats.pages_recalled);
}

RunResult Core::take_away(PageIndex first, std::uint32_t pages, bool whole) {
  const std::size_t bytes = std::size_t{pages} * kPageSize;
  if (protection == nullptr) return port->move(park(first), home(first), bytes, false);
  const Errno e = protection->hide(first, pages, whole);
  if (e.code == ENOSPC) stats.hints_over_mappings.add();
  return {e, e.ok() ? bytes : 0};
}

RunResult Core::bring_home(PageIndex first, std::uint32_t pages, bool wake) {
  const std::size_t bytes = std::size_t{pages} * kPageSize;
  if (protection == nullptr) return port->move(home(first), park(first), bytes, wake);
  const Errno e = protection->show(first, pages);
  return {e, e.ok() ? bytes : 0};
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
  const std::uintptr_t rest = space.base() & (kParkAlign - 1);
  std::uintptr_t at = 0;
  if (piecewise || ops.reserve(0, bytes + kParkAlign, &at).failed()) {
    park_base = round_up(space.base() + bytes, kParkAlign) + rest;
    return kOk;
  }
  park_base = round_down(at, kParkAlign) + rest;
  if (park_base < at) park_base += kParkAlign;
  park_claimed = true;
  return kOk;
}

Errno Core::ensure_park(BlockIndex b) {
  const std::uintptr_t at = park(first_page(b));
  if (!park_claimed) {
    std::uintptr_t got = 0;
    if (Errno e = ops.reserve(at, kPageblockSize, &got); e.failed() && e.code != EEXIST) return e;
  }
  if (Errno e = ops.commit(at, kPageblockSize); e.failed()) return e;
  (void)ops.advise(at, kPageblockSize, os::kAdviceDontDump);
  return kOk;
}

Errno Core::renew_park(BlockIndex b) {
  Pageblock& block = table.block(b);
  const std::uintptr_t at = park(first_page(b));
  block.park_unusable.store(true, std::memory_order_relaxed);
  if (Errno e = ops.renew(at, kPageblockSize); e.failed()) return e;
  (void)ops.advise(at, kPageblockSize, os::kAdviceDontDump);
  if (Errno e = port->register_range(at, kPageblockSize); e.failed()) return e;
  block.park_unusable.store(false, std::memory_order_relaxed);
  block.park_in_parts.store(false, std::memory_order_relaxed);
  return kOk;
}

}  // namespace heaptier
