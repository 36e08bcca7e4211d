// Where the Space's window lies, and how it is divided.
#include <algorithm>
#include <cerrno>

#include "runtime/arena.h"
#include "runtime/bootstrap_heap.h"
#include "runtime/space_block.h"

namespace heaptier {
namespace {

constexpr std::size_t kGiB = std::size_t{1} << 30;
constexpr std::size_t kMinWindow = 64 * kGiB;
constexpr std::size_t kMaxWindow = 1024 * kGiB;
// The window is aligned so that fault shards (whole multiples of 32 MiB) and 1 GiB page-table
// entries divide it evenly.
constexpr std::size_t kWindowAlign = kGiB;
// Where windows are looked for: far above programs and their brk heaps, far below the kernel's own
// choice for mappings, and clear of the sanitizers' shadows.
constexpr std::uintptr_t kPlaceFirst = std::uintptr_t{16} << 40;
constexpr std::uintptr_t kPlaceEnd = std::uintptr_t{48} << 40;
constexpr int kPlaceTries = 16;
// Room for unmovable, reclaimable and user-only memory and allocator metadata; what exceeds it goes
// to the ordinary zone.
constexpr std::size_t kSpecialBytes = 2 * kGiB;
std::uint64_t next_random(std::uint64_t* state) {  // splitmix64
  *state += 0x9e3779b97f4a7c15u;
  std::uint64_t z = *state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

}  // namespace

Errno Space::init(MemoryOps& ops, const SpaceConfig& config) {
  ops_ = &ops;
  const bool limited = config.address_limit != 0;
  std::size_t wanted = config.window_bytes;
  if (wanted == 0 && limited) {
    wanted = std::min(config.address_limit, kMaxWindow) + kSpecialBytes;
  } else if (wanted == 0) {
    wanted = std::clamp(8 * config.physical_bytes, kMinWindow, kMaxWindow);
  }
  wanted = round_up(std::min(wanted, 4 * kMaxWindow), kWindowAlign);
  if (Errno e = place_window(config, wanted, !limited); e.failed()) return e;

  const auto blocks = static_cast<std::uint32_t>(bytes_ >> kPageblockShift);
  blocks_ = bootstrap::allocate_array<Block>(blocks);
  if (blocks_ == nullptr) return {ENOMEM};
  const auto special =
      static_cast<std::uint32_t>(std::min(kSpecialBytes, bytes_ / 4) >> kPageblockShift);
  if (Errno e = special_.init(base_, special, !limited); e.failed()) return e;
  ordinary_range_ = {base_ + (std::uintptr_t{special} << kPageblockShift),
                     bytes_ - (std::size_t{special} << kPageblockShift)};
  ordinary_.advise_on_commit(config.huge_advice);
  if (config.data_limited) {
    special_.keep_free_unwritable();
    ordinary_.keep_free_unwritable();
  }
  return ordinary_.init(ordinary_range_.start, blocks - special, !limited);
}

// Finds a place for the window and, if `whole`, claims all of it.
Errno Space::place_window(const SpaceConfig& config, std::size_t wanted, bool whole) {
  std::uint64_t random = config.seed;
  Errno e{ENOMEM};
  for (std::size_t bytes = wanted; bytes >= kWindowAlign;
       bytes = round_up(bytes / 2, kWindowAlign)) {
    const std::size_t places = (kPlaceEnd - kPlaceFirst - bytes) / kWindowAlign;
    for (int i = 0; i < kPlaceTries; ++i) {
      const std::uintptr_t hint = kPlaceFirst + (next_random(&random) % places) * kWindowAlign;
      std::uintptr_t at = hint;
      if (whole) e = ops_->reserve(hint, bytes, &at);
      if (!whole || e.ok()) {
        base_ = at;
        bytes_ = bytes;
        return kOk;
      }
      if (e.code != EEXIST) break;
    }
    // The kernel's choice, with room to align.
    std::uintptr_t at = 0;
    e = ops_->reserve(0, bytes + kWindowAlign, &at);
    if (e.ok()) {
      base_ = round_up(at, kWindowAlign);
      bytes_ = bytes;
      if (base_ > at) (void)ops_->unmap(at, base_ - at);
      const std::size_t behind = at + kWindowAlign - base_;
      if (behind > 0) (void)ops_->unmap(base_ + bytes, behind);
      return kOk;
    }
    if (bytes == kWindowAlign) break;
  }
  return e;
}

}  // namespace heaptier
