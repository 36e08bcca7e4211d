#include "preload/early_heap.h"

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "runtime/base/units.h"

namespace heaptier::early_heap {
namespace {

// glibc's dlsym and dlerror ask for well under 1 KiB; the rest is for constructors of other
// preloaded libraries that run while the next heap is being looked up.
constexpr std::size_t kBytes = std::size_t{1} << 20;
alignas(64) constinit unsigned char buffer[kBytes];
constinit std::atomic<std::size_t> used{0};

// Just below every object.
struct Header {
  std::size_t bytes;
  std::size_t unused;
};

}  // namespace

void* allocate(std::size_t bytes, std::size_t align) {
  align = std::max(align, std::size_t{16});
  if (bytes > kBytes || align > kBytes) return nullptr;
  const std::size_t room = round_up(bytes, 16) + sizeof(Header) + align;
  const std::size_t at = used.fetch_add(room, std::memory_order_relaxed);
  if (at > kBytes || room > kBytes - at) return nullptr;
  const auto start = reinterpret_cast<std::uintptr_t>(buffer) + at + sizeof(Header);
  const std::uintptr_t object = round_up(start, align);
  // NOLINTNEXTLINE(performance-no-int-to-ptr)
  reinterpret_cast<Header*>(object)[-1].bytes = bytes;
  return reinterpret_cast<void*>(object);  // NOLINT(performance-no-int-to-ptr)
}

bool owns(const void* p) {
  return reinterpret_cast<std::uintptr_t>(p) - reinterpret_cast<std::uintptr_t>(buffer) < kBytes;
}

std::size_t usable_size(const void* p) {
  return static_cast<const Header*>(p)[-1].bytes;
}

}  // namespace heaptier::early_heap
