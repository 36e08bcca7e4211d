#include "runtime/budget.h"

#include <algorithm>

#include "runtime/base/units.h"

namespace heaptier {
namespace {

// A budget below this cannot hold what an ordinary program touches between two faults.
constexpr std::uint64_t kSmallestFast = std::uint64_t{1} << 20;

// What a program has besides its heap: code, stacks, page tables, files' pages in its cgroup.
constexpr std::uint64_t kCgroupReserve = std::uint64_t{32} << 20;

}  // namespace

Watermarks derive_watermarks(const FastBudget& budget, const MemorySituation& now) {
  std::uint64_t fast = 0;
  switch (budget.kind) {
    case FastBudget::Kind::kBytes:
      fast = std::max(budget.bytes, kSmallestFast);
      break;
    case FastBudget::Kind::kPercent:
      // Of a heap that grows: at 100 % there is nothing to do.
      if (budget.percent >= 100) return {};
      fast = std::max(now.heap_bytes / 100 * budget.percent, kSmallestFast);
      break;
    case FastBudget::Kind::kAuto: {
      if (now.cgroup_limit != 0) {
        const std::uint64_t reserve = std::max(kCgroupReserve, now.cgroup_limit / 16);
        const std::uint64_t used = reserve + now.store_bytes;
        fast = now.cgroup_limit > used ? now.cgroup_limit - used : kSmallestFast;
        // Others live there too, forked children above all: what they hold is not ours to use.
        const std::uint64_t held = now.cgroup_anonymous + reserve / 2;
        const std::uint64_t room =
            now.present_bytes + (now.cgroup_limit > held ? now.cgroup_limit - held : 0);
        const std::uint64_t over = held > now.cgroup_limit ? held - now.cgroup_limit : 0;
        fast = std::min(fast, room > over ? room - over : kSmallestFast);
      }
      if (now.available_bytes != 0) {
        // Leave a tenth of the machine free.
        const std::uint64_t keep_free = now.physical_bytes / 10;
        const std::uint64_t room = now.present_bytes + now.available_bytes;
        const std::uint64_t machine = room > keep_free ? room - keep_free : kSmallestFast;
        fast = fast == 0 ? machine : std::min(fast, machine);
      }
      if (fast == 0) return {};
      fast = std::max(fast, kSmallestFast);
      break;
    }
  }
  const bool limit_kills = budget.kind == FastBudget::Kind::kAuto && now.cgroup_limit != 0;
  const std::uint64_t least = limit_kills ? kSmallestFast : std::max(kSmallestFast, fast / 8);
  const std::uint64_t rest = std::max(fast - std::min(fast, now.stuck_bytes), least);
  // Faults evict for themselves above `high`; the background thread keeps a little room below it,
  // so that they rarely have to: a batch of pages for each CPU, 2 % on small heaps, not more than
  // 32 MiB on large ones.
  const std::uint64_t room =
      std::clamp<std::uint64_t>(rest / 50, std::uint64_t{256} << 10, std::uint64_t{32} << 20);
  const std::uint64_t high = now.stuck_bytes + rest;
  return {fast, high, high - std::min(room, rest / 4), now.stuck_bytes};
}

std::uint64_t wake_threshold(const Options& options) {
  std::uint64_t at = options.wake_bytes;
  // A fixed budget: nothing can be gained before the heap comes near it.
  if (options.fast.kind == FastBudget::Kind::kBytes) {
    at = std::max(at, options.fast.bytes - options.fast.bytes / 4);
  }
  return at;
}

}  // namespace heaptier
