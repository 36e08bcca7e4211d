// XXH3 of a page, inlined from the library's header so that its length is a constant: 200 ns with
// the SSE2 that every x86-64 has, 70 ns with AVX2. A fetch takes about 1.3 us, so the choice is
// worth one indirect call.
#include "runtime/tiers/page_checksum.h"

#include <atomic>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "runtime/base/units.h"
#include "runtime/tiers/store_tier.h"

namespace heaptier {

std::uint32_t page_checksum_portable(const void* page) {
  return static_cast<std::uint32_t>(XXH3_64bits(page, kPageSize));
}

namespace {

using Checksum = std::uint32_t (*)(const void* page);

std::uint32_t choose(const void* page);

// Chosen at the first call, not by a constructor: the library may be called before its own have
// run.
constinit std::atomic<Checksum> chosen{choose};

std::uint32_t choose(const void* page) {
  Checksum best = page_checksum_portable;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2")) best = page_checksum_avx2;
#endif
  chosen.store(best, std::memory_order_relaxed);
  return best(page);
}

}  // namespace

std::uint32_t page_checksum(const void* page) {
  return chosen.load(std::memory_order_relaxed)(page);
}

}  // namespace heaptier
