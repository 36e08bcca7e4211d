#include "runtime/arena.h"

#include <algorithm>
#include <bit>
#include <cerrno>

#include "runtime/space_block.h"

namespace heaptier {
namespace {

// Partly used pageblocks whose longest run may or may not do are looked at so many times before a
// pageblock that does for certain is taken.
constexpr int kMaybeFits = 8;

// How much a mobility forbids; a pageblock that holds two kinds of memory obeys the stricter.
constexpr int strictness(Mobility m) {
  switch (m) {
    case Mobility::kReclaimable:
      return 0;
    case Mobility::kMovable:
      return 1;
    case Mobility::kUnmovable:
      return 2;
  }
  return 2;
}

// Whether a pageblock of runs of this length has an eighth and more left over. Others stay within
// pageblocks: where all extents touch, jemalloc joins and cuts them at every free and malloc, which
// makes those of 64 KiB to 1 MiB half as costly again.
constexpr bool leaves_a_rest(std::uint32_t pages) {
  return kPagesPerBlock % pages >= kPagesPerBlock / 8;
}

}  // namespace

void* Space::allocate(std::size_t bytes, std::size_t align, Mobility mobility, Owner owner) {
  if (bytes == 0 || bytes > bytes_) return nullptr;
  SpinGuard guard(lock_);
  // What fills its pageblocks has them for itself, and huge pages with them.
  void* p =
      bytes % kPageblockSize == 0 || align > kPageblockSize
          ? allocate_blocks(bytes, std::max(align, kPageblockSize), mobility, owner)
          : allocate_pages(static_cast<std::uint32_t>(bytes >> kPageShift),
                           static_cast<std::uint32_t>(std::max(align, kPageSize) >> kPageShift),
                           mobility, owner);
  if (p == nullptr) {
    ++refusals_;
    return nullptr;
  }
  carved_.fetch_add(bytes, std::memory_order_relaxed);
  return p;
}

Zone& Space::zone_for(Mobility mobility, Owner owner, bool other) {
  const bool ordinary =
      mobility == Mobility::kMovable && (owner == Owner::kJemalloc || owner == Owner::kMimalloc);
  return ordinary != other ? ordinary_ : special_;
}

std::uint32_t Space::first_block(const Zone& zone) const {
  return static_cast<std::uint32_t>((zone.base() - base_) >> kPageblockShift);
}

// A run of whole pageblocks, marked as of this mobility and owner, with no page carved yet.
std::uint32_t Space::take_blocks(std::uint32_t count, std::size_t align, Mobility mobility,
                                 Owner owner) {
  for (const bool other : {false, true}) {
    Zone& zone = zone_for(mobility, owner, other);
    const std::uint32_t in_zone = zone.take(*ops_, count, align);
    if (in_zone == Zone::kNone) continue;
    const std::uint32_t first = first_block(zone) + in_zone;
    mark_taken(first, count, mobility, owner);
    return first;
  }
  return Zone::kNone;
}

void Space::mark_taken(std::uint32_t first, std::uint32_t count, Mobility mobility, Owner owner) {
  for (std::uint32_t b = first; b < first + count; ++b) {
    blocks_[b].mobility.store(mobility, std::memory_order_relaxed);
    blocks_[b].owner.store(owner, std::memory_order_relaxed);
  }
  blocks_in_use_[static_cast<int>(mobility)] += count;
  // Before the limit: who reads the limit first then sees that the blocks below it are no gap.
  if (!in_ordinary_zone(address_of(BlockIndex{first})) &&
      first + count > special_limit_.load(std::memory_order_relaxed)) {
    special_limit_.store(first + count, std::memory_order_release);
  }
  if (first + count > block_limit_.load(std::memory_order_relaxed)) {
    block_limit_.store(first + count, std::memory_order_release);
  }
}

void* Space::allocate_blocks(std::size_t bytes, std::size_t align, Mobility mobility, Owner owner) {
  const std::size_t whole = round_up(bytes, kPageblockSize);
  const auto count = static_cast<std::uint32_t>(whole >> kPageblockShift);
  const std::uint32_t first = take_blocks(count, align, mobility, owner);
  if (first == Zone::kNone) return nullptr;
  auto left = static_cast<std::uint32_t>(bytes >> kPageShift);
  for (std::uint32_t b = first; b < first + count; ++b) {
    const std::uint32_t pages = std::min<std::uint32_t>(left, kPagesPerBlock);
    carve(b, 0, pages);
    left -= pages;
  }
  return pointer(address_of(BlockIndex{first}));
}

void* Space::allocate_pages(std::uint32_t pages, std::uint32_t align_pages, Mobility mobility,
                            Owner owner) {
  if (void* p = from_partial(pages, align_pages, mobility, mobility, owner)) return p;
  if (leaves_a_rest(pages)) {
    if (void* p = across_blocks(pages, align_pages, mobility, owner)) return p;
  }
  const std::size_t bytes = std::size_t{pages} << kPageShift;
  if (void* p = allocate_blocks(bytes, kPageblockSize, mobility, owner)) return p;
  // Nothing left of its own kind: share a pageblock of the same owner rather than fail.
  for (const Mobility other : {Mobility::kUnmovable, Mobility::kMovable, Mobility::kReclaimable}) {
    if (other == mobility) continue;
    if (void* p = from_partial(pages, align_pages, other, mobility, owner)) {
      ++fallbacks_;
      return p;
    }
  }
  return nullptr;
}

// Carves from a partly used pageblock of `group`, which becomes `mobility` if that is stricter.
void* Space::from_partial(std::uint32_t pages, std::uint32_t align_pages, Mobility group,
                          Mobility mobility, Owner owner) {
  const Group& lists = groups_[static_cast<int>(owner)][static_cast<int>(group)];
  int looked = 0;
  for (auto bin = static_cast<int>(std::bit_width(pages)); bin < kBins; ++bin) {
    for (std::uint32_t link = lists.heads[bin]; link != 0; link = blocks_[link - 1].next) {
      Block& b = blocks_[link - 1];
      const std::uint32_t page = b.used.find(pages, align_pages);
      if (page != Usemap::kNone) {
        if (strictness(mobility) > strictness(group)) {
          unlink(link - 1);
          b.mobility.store(mobility, std::memory_order_relaxed);
          --blocks_in_use_[static_cast<int>(group)];
          ++blocks_in_use_[static_cast<int>(mobility)];
        }
        return carve(link - 1, page, pages);
      }
      if (++looked % kMaybeFits == 0) break;
    }
  }
  return nullptr;
}

void* Space::carve(std::uint32_t block, std::uint32_t page, std::uint32_t pages) {
  Block& b = blocks_[block];
  b.used.set(page, pages, true);
  b.pages.fetch_add(static_cast<std::uint16_t>(pages), std::memory_order_relaxed);
  unlink(block);
  link(block);
  return pointer(address_of(BlockIndex{block}) + (std::uintptr_t{page} << kPageShift));
}

void Space::release(void* at, std::size_t bytes) {
  const PageIndex start = page_at(reinterpret_cast<std::uintptr_t>(at));
  auto left = static_cast<std::uint32_t>(bytes >> kPageShift);
  SpinGuard guard(lock_);
  for (std::uint32_t p = start.v; left > 0;) {
    const std::uint32_t in_block = page_in_block({p});
    const auto n =
        std::min<std::uint32_t>(left, static_cast<std::uint32_t>(kPagesPerBlock) - in_block);
    release_in_block(block_of({p}).v, in_block, n);
    p += n;
    left -= n;
  }
  carved_.fetch_sub(bytes, std::memory_order_relaxed);
}

void Space::release_in_block(std::uint32_t block, std::uint32_t page, std::uint32_t pages) {
  Block& b = blocks_[block];
  b.used.set(page, pages, false);
  const auto left = static_cast<std::uint16_t>(b.pages.load(std::memory_order_relaxed) - pages);
  b.pages.store(left, std::memory_order_relaxed);
  unlink(block);
  if (left > 0) {
    link(block);
    return;
  }
  --blocks_in_use_[static_cast<int>(b.mobility.load(std::memory_order_relaxed))];
  b.owner.store(Owner::kNone, std::memory_order_relaxed);
  b.mobility.store(Mobility::kMovable, std::memory_order_relaxed);
  Zone& zone = in_ordinary_zone(address_of(BlockIndex{block})) ? ordinary_ : special_;
  zone.give(*ops_, block - first_block(zone), 1);
}

void Space::link(std::uint32_t block) {
  Block& b = blocks_[block];
  const std::uint32_t longest = b.used.longest_free();
  if (longest == 0) return;
  Group& lists = groups_[static_cast<int>(b.owner.load(std::memory_order_relaxed))]
                        [static_cast<int>(b.mobility.load(std::memory_order_relaxed))];
  b.bin = static_cast<std::uint8_t>(std::bit_width(longest));
  std::uint32_t& head = lists.heads[b.bin];
  b.prev = 0;
  b.next = head;
  if (head != 0) blocks_[head - 1].prev = block + 1;
  head = block + 1;
}

void Space::unlink(std::uint32_t block) {
  Block& b = blocks_[block];
  if (b.bin == 0) return;
  Group& lists = groups_[static_cast<int>(b.owner.load(std::memory_order_relaxed))]
                        [static_cast<int>(b.mobility.load(std::memory_order_relaxed))];
  if (b.prev != 0) {
    blocks_[b.prev - 1].next = b.next;
  } else {
    lists.heads[b.bin] = b.next;
  }
  if (b.next != 0) blocks_[b.next - 1].prev = b.prev;
  b.bin = 0;
}

Mobility Space::mobility_of(BlockIndex b) const {
  return blocks_[b.v].mobility.load(std::memory_order_relaxed);
}

Owner Space::owner_of(BlockIndex b) const {
  return blocks_[b.v].owner.load(std::memory_order_relaxed);
}

std::uint32_t Space::pages_used(BlockIndex b) const {
  return blocks_[b.v].pages.load(std::memory_order_relaxed);
}

SpaceUsage Space::usage() const {
  SpinGuard guard(lock_);
  SpaceUsage u;
  u.window_bytes = bytes_;
  u.committed_bytes = special_.committed_bytes() + ordinary_.committed_bytes();
  u.carved_bytes = carved_bytes();
  std::copy(std::begin(blocks_in_use_), std::end(blocks_in_use_), std::begin(u.blocks));
  u.fallbacks = fallbacks_;
  u.refusals = refusals_;
  return u;
}

}  // namespace heaptier
