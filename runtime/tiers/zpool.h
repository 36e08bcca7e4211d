// The compressed tier: pages kept as compressed bytes in RAM.
//
// Objects of like size share a 64 KiB span (size_classes.h), spans come from a pool of address
// space that grows in steps and gives emptied memory back in batches (span_pool.h), and a lock a
// size class guards who has which place (slot_heap.h). Compressing, decompressing, checksumming and
// copying happen outside all locks. A SlotId names the span and the object in it; the header before
// the bytes (zpool_object.h) carries the page's checksum, its length and its owner, and a seal that
// a damaged or foreign header does not match.
//
// The pool is private memory: after fork parent and child each have all of it, shared until
// written.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "runtime/base/errno.h"
#include "runtime/base/ports.h"
#include "runtime/tiers/codec.h"
#include "runtime/tiers/slot_heap.h"
#include "runtime/tiers/span_pool.h"
#include "runtime/tiers/store_tier.h"
#include "runtime/tiers/zpool_object.h"

namespace heaptier {

struct ZPoolConfig {
  std::size_t capacity_bytes = 0;  // of resident_bytes without workspaces; at most 256 GiB is used
  CodecKind codec = CodecKind::kLz4;
  int level = 0;  // see Codec::has_level; 0 is the codec's default
  unsigned max_ratio_percent =
      75;  // a page that does not shrink to this is kIncompressible; 1..100
};

struct ZPoolFragmentation {
  std::size_t used = 0;  // bytes of the places that are taken
  std::size_t held = 0;  // bytes of all spans that have memory, empty ones in reserve included
  std::size_t reclaimable = 0;  // bytes of whole spans that compact() could empty
  // Unusable free space index, as the kernel counts it: the part of the free bytes (held - used)
  // that does not lie in whole free spans. 0: all of it can be given back; 1: none.
  double unusable = 0;
};

// Whoever owns the pages, asked by compact() to let go of one place for another.
class SlotMover {
 public:
  // Lock the page `owner`; if its slot still is `from`, make it `to`, unlock and return true. Else
  // return false and `to` is not the page's. Called with no lock of the pool held: may wait for the
  // page. `owner` is what store() was told; the page may have changed hands since, hence the check.
  virtual bool relocate(PageIndex owner, SlotId from, SlotId to) = 0;

 protected:
  ~SlotMover() = default;
};

class ZPool final : public StoreTier {
 public:
  constexpr ZPool() = default;

  // Once, before anything else. EINVAL: no such level, ratio or no room for a single span; ENOMEM.
  Errno init(MemoryOps& ops, const ZPoolConfig& config);

  StoreWorkspace* make_workspace() override;
  // Returns what make_workspace() gave. No thread uses it any more.
  void release_workspace(StoreWorkspace* ws);

  StoreOutcome store(StoreWorkspace* ws, const void* page, PageIndex owner, SlotId* slot) override;
  // kCorrupt also for a slot that was never given out. `out` then holds anything.
  FetchOutcome fetch(StoreWorkspace* ws, SlotId slot, void* out) override;
  // A slot that is not taken is refused and counted (drops_refused), never dropped twice.
  void drop(SlotId slot) override;
  std::uint32_t checksum(SlotId slot) const override;
  void prefetch(SlotId slot) const override;
  StoreUsage usage() const override;
  // Before the bootstrap heap's lock: a thread that holds a lock here may be waiting for that one.
  // Threads may be inside any method; those that the child lacks cost it at most the places they
  // were about to get.
  void fork_prepare() override;
  void fork_done(bool in_child) override;

  // Empties sparse spans into fuller ones of their size class and gives the memory back, sparsest
  // first, until no class could do with fewer spans or `max_moves` objects were offered to the
  // mover. Bytes of the spans emptied. Any number of threads; others store and drop meanwhile.
  std::size_t compact(SlotMover& mover, std::size_t max_moves = SIZE_MAX);
  // Gives the memory of all empty spans back, the reserve too. Bytes.
  std::size_t trim();

  ZPoolFragmentation fragmentation() const;
  const char* codec_name() const { return codec_->name(); }
  std::uint64_t drops_refused() const { return slots_.drops_refused(); }

 private:
  struct Workspace;
  std::size_t workspace_bytes() const;
  bool read_header(SlotId slot, SlotHeap::Place place, ObjectHeader* header) const;
  std::size_t compact_class(SlotMover& mover, unsigned size_class, std::size_t* moves);
  void evacuate(SlotMover& mover, unsigned size_class, std::uint32_t span, std::size_t* moves);

  const Codec* codec_ = &lz4_codec();
  int level_ = 0;
  std::size_t max_payload_ = 0;
  std::size_t capacity_bytes_ = 0;
  std::atomic<std::size_t> workspaces_{0};
  SpanPool spans_;
  SlotHeap slots_{spans_};
};

}  // namespace heaptier
