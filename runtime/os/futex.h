// Sleeping and waking on a word of heaptier's own memory.
#pragma once

#include <atomic>
#include <cstdint>

#include "runtime/base/units.h"

namespace heaptier::os {

// Sleeps while `word` is `expected`, at most `limit` (negative: no limit). Spurious returns are
// normal.
void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t expected, Nanos limit);
void futex_wake_all(std::atomic<std::uint32_t>& word);

}  // namespace heaptier::os
