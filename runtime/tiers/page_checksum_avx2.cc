// Compiled with -mavx2 (CMakeLists.txt), hence nothing here but the one function: an inline
// function of another header, emitted in this file, could be the copy that the linker keeps for
// CPUs without AVX2.
#include "runtime/tiers/page_checksum.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace heaptier {

std::uint32_t page_checksum_avx2(const void* page) {
  return static_cast<std::uint32_t>(XXH3_64bits(page, 4096));
}

}  // namespace heaptier
