#include <cstring>

#include "runtime/base/units.h"
#include "runtime/tiers/store_tier.h"

namespace heaptier {

// A page equals itself shifted by one word exactly if all words are equal. Most other pages already
// differ in the first word or the last.
bool same_filled(const void* page, std::uint32_t* pattern) {
  const auto* bytes = static_cast<const char*>(page);
  std::uint32_t first = 0;
  std::uint32_t last = 0;
  std::memcpy(&first, bytes, sizeof first);
  std::memcpy(&last, bytes + kPageSize - sizeof last, sizeof last);
  if (first != last) return false;
  if (std::memcmp(bytes, bytes + sizeof first, kPageSize - sizeof first) != 0) return false;
  *pattern = first;
  return true;
}

}  // namespace heaptier
