// Hidden pages: what parking is where userfaultfd cannot move pages. Access to the pages is taken
// away where they are, the next touch raises SIGSEGV in the thread that touches
// (uffd/inline_faults.h), and access is given back. To the page words and to who reads them a
// hidden page is a parked one whose frame lies at home.
//
// Every run of hidden pages is a mapping of its own to the kernel, of which a process has some
// 65,000: no more than a quarter of these are ever used, reckoned as if the touches came where they
// part most.
//
// Thread rule: any thread that has locked the pages in question. Allocates nothing but in init(),
// touches no managed memory, waits for nobody.
#pragma once

#include <atomic>
#include <cstdint>

#include "runtime/arena.h"
#include "runtime/base/ports.h"

namespace heaptier {

class Protection {
 public:
  Protection(Space& space, MemoryOps& ops) : space_(space), ops_(ops) {}

  // `max_map_count`: what vm.max_map_count says, 0: not known. ENOTSUP: the kernel does not say
  // whether a page may be touched (before Linux 5.14), which is needed to tell the application's
  // own faults from ours. ENOMEM. Once.
  Errno init(std::uint64_t max_map_count);

  // Pages of one pageblock. `whole`: all of it, one huge page, which a touch shows whole. ENOSPC:
  // the share of mappings is used up. Done wholly or not at all.
  Errno hide(PageIndex first, std::uint32_t pages, bool whole);
  // What cannot be opened by itself, for lack of mappings, is with all that is hidden around it.
  Errno show(PageIndex first, std::uint32_t pages);
  // Whether the application may touch a page that is not hidden. It may fill it with zeros, as the
  // touch would.
  bool open(PageIndex p, bool write);

  // Mappings that hidden pages may need at worst.
  std::uint64_t mappings() const { return 2 * units_.load(std::memory_order_relaxed); }
  std::uint64_t most_mappings() const { return 2 * most_; }

 private:
  // Of a pageblock: how many of its pages are hidden, and whether as one.
  struct Hidden;

  void change(BlockIndex b, Hidden (*after)(Hidden was, std::uint32_t pages), std::uint32_t pages);
  Errno show_around(BlockIndex b);

  Space& space_;
  MemoryOps& ops_;
  std::atomic<std::uint32_t>* hidden_ = nullptr;  // by pageblock, see Hidden
  std::uint64_t most_ = 0;                        // units
  std::atomic<std::uint64_t> units_{0};           // runs that hidden pages may come to be
};

}  // namespace heaptier
