// Runs that lie across pageblocks: what an object grows by, and objects that do not fill theirs.
#include <algorithm>

#include "runtime/arena.h"
#include "runtime/space_block.h"

namespace heaptier {
namespace {

// So many partly used pageblocks of each list are tried before whole ones are taken. Those whose
// pages changed last come first: the end of the latest large run is among them.
constexpr int kEndsTried = 4;

constexpr auto kPages = static_cast<std::uint32_t>(kPagesPerBlock);

}  // namespace

bool Space::may_carve_at(std::uint32_t block, std::uint32_t page, std::uint32_t pages,
                         Mobility mobility, Owner owner) const {
  const Block& b = blocks_[block];
  return b.owner.load(std::memory_order_relaxed) == owner &&
         b.mobility.load(std::memory_order_relaxed) == mobility && b.used.is_free(page, pages);
}

// Pages [first_page, end_page), which are at most: the rest of a pageblock in use, whole free
// pageblocks, the beginning of one in use. With the lock held.
bool Space::carve_range(std::uint32_t first_page, std::uint32_t end_page, Mobility mobility,
                        Owner owner) {
  const std::uint32_t head_end = std::min(end_page, (first_page + kPages - 1) / kPages * kPages);
  if (head_end > first_page && !may_carve_at(first_page / kPages, first_page % kPages,
                                             head_end - first_page, mobility, owner)) {
    return false;
  }
  if (end_page > head_end) {
    Zone& zone = in_ordinary_zone(address_of(PageIndex{first_page})) ? ordinary_ : special_;
    const std::uint32_t first = head_end / kPages;
    std::uint32_t count = (end_page - head_end + kPages - 1) / kPages;
    if (first + count > first_block(zone) + zone.blocks()) return false;
    const std::uint32_t tail = end_page % kPages;
    const bool shares_last = tail != 0 && may_carve_at(first + count - 1, 0, tail, mobility, owner);
    if (shares_last) --count;
    if (count > 0) {
      if (!zone.take_at(*ops_, first - first_block(zone), count)) return false;
      mark_taken(first, count, mobility, owner);
    }
  }
  for (std::uint32_t p = first_page; p < end_page;) {
    const std::uint32_t n = std::min(end_page - p, kPages - p % kPages);
    carve(p / kPages, p % kPages, n);
    p += n;
  }
  return true;
}

bool Space::extend(void* at, std::size_t bytes, Mobility mobility, Owner owner) {
  const auto start = reinterpret_cast<std::uintptr_t>(at);
  if (bytes == 0 || start - base_ >= bytes_ || bytes > bytes_ - (start - base_)) return false;
  const std::uint32_t first = page_at(start).v;
  SpinGuard guard(lock_);
  const std::uint32_t end = first + static_cast<std::uint32_t>(bytes >> kPageShift);
  if (!carve_range(first, end, mobility, owner)) return false;
  carved_.fetch_add(bytes, std::memory_order_relaxed);
  return true;
}

// A run that begins in the unused rest of a pageblock and goes on in what follows, so that no rest
// is left over: where the kernel makes huge pages by itself, the first touch of a pageblock fills
// its rest too, and memory that nobody uses would be paid for.
void* Space::across_blocks(std::uint32_t pages, std::uint32_t align_pages, Mobility mobility,
                           Owner owner) {
  const Group& lists = groups_[static_cast<int>(owner)][static_cast<int>(mobility)];
  for (int bin = kBins - 1; bin > 0; --bin) {
    int tried = 0;
    for (std::uint32_t link = lists.heads[bin]; link != 0 && tried < kEndsTried; ++tried) {
      const std::uint32_t block = link - 1;
      link = blocks_[block].next;
      const std::uint32_t rest = blocks_[block].used.free_from();
      const std::uint32_t page = (rest + align_pages - 1) & ~(align_pages - 1);
      if (page >= kPages) continue;
      const std::uint32_t first = block * kPages + page;
      if (pages > (bytes_ >> kPageShift) - first) continue;
      if (!carve_range(first, first + pages, mobility, owner)) continue;
      return pointer(address_of(PageIndex{first}));
    }
  }
  return nullptr;
}

}  // namespace heaptier
