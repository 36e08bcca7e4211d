// A tier that keeps pages as bytes in slots rather than as mapped memory: compressed RAM now, files
// later.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/base/units.h"

namespace heaptier {

// A place in a store tier. 0 is no slot.
struct SlotId {
  std::uint32_t v = 0;
  friend constexpr bool operator==(SlotId, SlotId) = default;
};

enum class StoreOutcome : std::uint8_t {
  kStored,          // *slot holds a checksummed copy
  kIncompressible,  // would not save enough: keep the page resident, do not try again soon
  kFull,            // capacity reached or the kernel gave no memory: next tier, or stay
};

enum class FetchOutcome : std::uint8_t {
  kFetched,
  kCorrupt,  // the checksum does not match: the content is lost, poison the page
};

// Scratch memory of one thread that stores or fetches. Opaque to callers; made by the tier, from
// the bootstrap heap, one for each worker, never shared by two threads at the same time.
struct StoreWorkspace;

struct StoreUsage {
  std::size_t slots = 0;           // pages held
  std::size_t payload_bytes = 0;   // their compressed bytes
  std::size_t resident_bytes = 0;  // memory the tier holds for them, slack and headers included
  std::size_t capacity_bytes = 0;
};

// Thread rule: all methods from any thread at once; the same slot only by one thread at a time (the
// owner of its page's lock bit). No method touches managed memory except by the pointers given,
// which the caller guarantees to be memory of heaptier's own (staging or park).
class StoreTier {
 public:
  // nullptr when no memory can be had.
  virtual StoreWorkspace* make_workspace() = 0;
  // `page`: 4 KiB to keep. `owner`: whose it is (for moving slots later). On kStored sets *slot.
  virtual StoreOutcome store(StoreWorkspace* ws, const void* page, PageIndex owner,
                             SlotId* slot) = 0;
  // Writes 4 KiB to `out` and verifies the checksum. The slot stays valid.
  virtual FetchOutcome fetch(StoreWorkspace* ws, SlotId slot, void* out) = 0;
  // Gives the slot's room back. Room is returned to the kernel as it empties, in batches.
  virtual void drop(SlotId slot) = 0;
  // 32-bit checksum of the uncompressed content kept in the slot; equals page_checksum() of what
  // was stored.
  virtual std::uint32_t checksum(SlotId slot) const = 0;
  // Starts loading the slot's header and bytes into the cache.
  virtual void prefetch(SlotId slot) const = 0;
  virtual StoreUsage usage() const = 0;
  // fork, around the clone: all locks of the tier are held between prepare and parent/child.
  virtual void fork_prepare() = 0;
  virtual void fork_done(bool in_child) = 0;

 protected:
  ~StoreTier() = default;
};

// The checksum every store tier keeps: XXH3 of the 4 KiB page, low 32 bits.
std::uint32_t page_checksum(const void* page);

// True if all 1024 32-bit words of the page are equal; *pattern is that word.
bool same_filled(const void* page, std::uint32_t* pattern);

}  // namespace heaptier
