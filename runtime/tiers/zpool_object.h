// What lies before the compressed bytes of a page: 12 bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/base/units.h"
#include "runtime/tiers/store_tier.h"

namespace heaptier {

struct ObjectHeader {
  std::uint32_t checksum = 0;  // of the uncompressed page
  PageIndex owner;             // as told to store()
  std::uint16_t bytes = 0;     // compressed, without the header
  std::uint16_t seal = 0;      // over the fields above and the slot: see sealed()

  // The header fits the slot it was read from. A flipped bit, a header of another slot and memory
  // that never held one fail this but for one in 65536; a wrong length or checksum that passes is
  // caught by the bounds and by the page's checksum all the same, so what is at stake here is the
  // owner.
  bool sealed(SlotId slot) const { return bytes != 0 && seal == expected_seal(slot); }
  void set_seal(SlotId slot) { seal = expected_seal(slot); }

 private:
  std::uint16_t expected_seal(SlotId slot) const {
    // Two rounds of multiply-and-fold: every bit of the input reaches every bit of the result.
    std::uint64_t h = (std::uint64_t{checksum} << 32 | owner.v) ^ 0x9e3779b97f4a7c15u;
    h *= 0xbf58476d1ce4e5b9u;
    h ^= h >> 32;
    h ^= std::uint64_t{slot.v} << 16 | bytes;
    h *= 0x94d049bb133111ebu;
    return static_cast<std::uint16_t>(h >> 48);
  }
};
inline constexpr std::size_t kObjectHeaderBytes = sizeof(ObjectHeader);
static_assert(kObjectHeaderBytes == 12);

}  // namespace heaptier
