// The part of the C interface (heaptier.h) that is about where memory is. Heaps:
// preload/api_heap.cc.
#include "runtime/background.h"
#include "runtime/base/errno.h"
#include "runtime/engine.h"
#include "runtime/include/heaptier/heaptier.h"

using heaptier::engine;
using heaptier::EngineState;
using heaptier::ErrnoKeeper;
using heaptier::Request;

namespace {

std::uintptr_t address(const void* p) {
  return reinterpret_cast<std::uintptr_t>(p);
}

}  // namespace

extern "C" {

int heaptier_state(void) {
  switch (engine().state()) {
    case EngineState::kDormant:
      return 0;
    case EngineState::kAwake:
      return 1;
    default:
      return -ENOTSUP;
  }
}

int heaptier_wake(void) {
  ErrnoKeeper keep;
  engine().wake();
  return engine().state() == EngineState::kAwake ? 0 : -ENOTSUP;
}

int heaptier_where(const void* p, size_t bytes, unsigned char* places) {
  if (bytes == 0) return 0;
  return engine().state() == EngineState::kOff ? -ENOTSUP
                                               : engine().where(address(p), bytes, places);
}

int heaptier_demote(void* p, size_t bytes) {
  ErrnoKeeper keep;
  return engine().request(Request::kDemote, address(p), bytes);
}

int heaptier_park(void* p, size_t bytes) {
  ErrnoKeeper keep;
  return engine().request(Request::kPark, address(p), bytes);
}

int heaptier_fetch(void* p, size_t bytes) {
  ErrnoKeeper keep;
  return engine().fetch(address(p), bytes);
}

int heaptier_advise(void* p, size_t bytes, int advice) {
  ErrnoKeeper keep;
  return engine().advise(address(p), bytes, advice);
}

int heaptier_tiers(void) {
  return engine().tiers();
}

int heaptier_tier_name(int tier, char* out, size_t n) {
  if (const int count = engine().tiers(); count < 0) return count;
  const char* name = engine().tier_name(tier);
  if (name == nullptr || (out == nullptr && n != 0)) return -EINVAL;
  const std::size_t length = __builtin_strlen(name);
  if (n > 0) {
    const std::size_t fits = length < n ? length : n - 1;
    __builtin_memcpy(out, name, fits);
    out[fits] = '\0';
  }
  return static_cast<int>(length);
}

int heaptier_move(void* const* pages, const int* tiers, int* status, size_t count, unsigned flags) {
  ErrnoKeeper keep;
  return engine().move(pages, tiers, status, count, flags);
}

int heaptier_move_lazy(void* p, size_t bytes, int tier) {
  ErrnoKeeper keep;
  return engine().move_lazily(address(p), bytes, tier);
}

int heaptier_nodes(const void* p, size_t bytes, int* nodes) {
  ErrnoKeeper keep;
  return engine().nodes(address(p), bytes, nodes);
}

int heaptier_drain(int node) {
  ErrnoKeeper keep;
  return engine().drain(node);
}

int heaptier_undrain(int node) {
  ErrnoKeeper keep;
  return engine().undrain(node);
}

size_t heaptier_stats_json(char* out, size_t n) {
  ErrnoKeeper keep;
  heaptier::StatsSnapshot now;
  engine().snapshot(&now);
  return heaptier::write_json(out, n, now);
}

}  // extern "C"
