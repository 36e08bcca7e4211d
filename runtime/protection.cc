#include "runtime/protection.h"

#include <algorithm>

#include "runtime/bootstrap_heap.h"
#include "runtime/os/advice.h"

namespace heaptier {
namespace {

constexpr auto kBlockPages = static_cast<std::uint32_t>(kPagesPerBlock);
// Linux' own default of vm.max_map_count, and the part of it that is ours: 1/4, at two mappings a
// run.
constexpr std::uint64_t kUsualMappings = 65530;
constexpr std::uint64_t kShare = 4;

}  // namespace

struct Protection::Hidden {
  static constexpr std::uint32_t kWhole = 1u << 31;
  std::uint32_t bits = 0;

  std::uint32_t pages() const { return bits & ~kWhole; }
  // Hidden whole it is one run until a part of it is shown.
  std::uint32_t units() const { return (bits & kWhole) != 0 ? 1 : pages(); }

  static Hidden whole(Hidden, std::uint32_t) { return {kBlockPages | kWhole}; }
  static Hidden more(Hidden was, std::uint32_t n) {
    return {std::min(was.pages() + n, kBlockPages)};
  }
  static Hidden fewer(Hidden was, std::uint32_t n) {
    return {was.pages() - std::min(was.pages(), n)};
  }
};

Errno Protection::init(std::uint64_t max_map_count) {
  if (hidden_ != nullptr) return kOk;
  const auto blocks = static_cast<std::size_t>(space_.bytes() >> kPageblockShift);
  auto* hidden = bootstrap::allocate_array<std::atomic<std::uint32_t>>(blocks);
  if (hidden == nullptr) return {ENOMEM};
  most_ = (max_map_count != 0 ? max_map_count : kUsualMappings) / kShare / 2;
  // A page of our own answers for the rest.
  if (ops_.advise(round_down(reinterpret_cast<std::uintptr_t>(hidden), kPageSize), kPageSize,
                  os::kAdviceFillRead)
          .failed()) {
    bootstrap::release(hidden, blocks * sizeof *hidden);
    return {ENOTSUP};
  }
  hidden_ = hidden;
  return kOk;
}

void Protection::change(BlockIndex b, Hidden (*after)(Hidden was, std::uint32_t pages),
                        std::uint32_t pages) {
  std::uint32_t bits = hidden_[b.v].load(std::memory_order_relaxed);
  Hidden now;
  do {
    now = after({bits}, pages);
  } while (!hidden_[b.v].compare_exchange_weak(bits, now.bits, std::memory_order_relaxed));
  units_.fetch_add(std::uint64_t{now.units()} - Hidden{bits}.units(), std::memory_order_relaxed);
}

Errno Protection::hide(PageIndex first, std::uint32_t pages, bool whole) {
  const std::uint32_t runs = whole ? 1 : pages;
  if (units_.load(std::memory_order_relaxed) + runs > most_) return {ENOSPC};
  const std::uintptr_t at = space_.address_of(first);
  const std::size_t bytes = std::size_t{pages} * kPageSize;
  if (Errno e = ops_.set_access(at, bytes, false); e.failed()) {
    (void)ops_.set_access(at, bytes, true);  // it may be done in part
    return e;
  }
  change(block_of(first), whole ? Hidden::whole : Hidden::more, pages);
  return kOk;
}

Errno Protection::show(PageIndex first, std::uint32_t pages) {
  const std::size_t bytes = std::size_t{pages} * kPageSize;
  Errno e = ops_.set_access(space_.address_of(first), bytes, true);
  if (e.code == ENOMEM) e = show_around(block_of(first));
  if (e.ok()) change(block_of(first), Hidden::fewer, pages);
  return e;
}

// The application has used up its mappings, and to open a part of a run takes one more. The whole
// run takes none. What else is in it stays hidden by its word until it is shown: that touches of it
// go unseen is all.
Errno Protection::show_around(BlockIndex b) {
  const auto hides = [this](std::uint32_t x) {
    return Hidden{hidden_[x].load(std::memory_order_relaxed)}.pages() != 0;
  };
  std::uint32_t begin = b.v;
  std::uint32_t end = b.v + 1;
  while (begin > 0 && hides(begin - 1)) --begin;
  while (end < space_.block_limit() && hides(end)) ++end;
  const std::size_t bytes = std::size_t{end - begin} * kPageblockSize;
  return ops_.set_access(space_.address_of(BlockIndex{begin}), bytes, true);
}

// The page's lock is held: nobody hides it meanwhile.
bool Protection::open(PageIndex p, bool write) {
  const int as = write ? os::kAdviceFillWrite : os::kAdviceFillRead;
  return ops_.advise(space_.address_of(p), kPageSize, as).ok();
}

}  // namespace heaptier
