// The two builds of the page checksum; page_checksum() (store_tier.h) picks one. Same result, any
// machine.
#pragma once

#include <cstdint>

namespace heaptier {

std::uint32_t page_checksum_portable(const void* page);
#if defined(__x86_64__)
std::uint32_t page_checksum_avx2(const void* page);  // only where the CPU has AVX2
#endif

}  // namespace heaptier
