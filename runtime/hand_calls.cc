// The asking side of moving by hand (heaptier.h): runs in the application's thread, which alone may
// touch the application's arrays. What goes to the background thread, or to the kernel, goes in
// memory of heaptier's own, a part at a time.
#include <algorithm>
#include <climits>
#include <new>

#include "runtime/background.h"
#include "runtime/bootstrap_heap.h"
#include "runtime/engine.h"
#include "runtime/hand_moves.h"
#include "runtime/hidden_pages.h"
#include "runtime/include/heaptier/heaptier.h"
#include "runtime/os/kernel_nodes.h"
#include "runtime/page_spot.h"

namespace heaptier {
namespace {

// A page may leave again between being fetched and being moved, when memory is short.
constexpr int kFetches = 4;
// A page that is touched, or parked, while it is looked up is elsewhere.
constexpr int kLooks = 4;

struct NodeQuestion {
  static constexpr std::size_t kMost = 256;
  std::uintptr_t at[kMost];
  int node[kMost];
};

int code_of(PageSpot::Kind kind) {
  switch (kind) {
    case PageSpot::Kind::kInStore:
      return HEAPTIER_NODE_STORED;
    case PageSpot::Kind::kLost:
      return -EIO;
    case PageSpot::Kind::kNotOurs:
      return -EINVAL;
    default:
      return -ENOENT;
  }
}

// One page, until it is found or known to be away. -errno: also of the call itself.
int node_of(std::uintptr_t page, const Space& space, const PageblockTable* table,
            std::uintptr_t park_base) {
  for (int look = 0; look < kLooks; ++look) {
    const PageSpot spot = PageSpot::of(page, space, table, park_base);
    if (spot.kind != PageSpot::Kind::kMapped) return code_of(spot.kind);
    int node = -ENOENT;
    if (const Errno e = kernel_node_ops().where(&spot.at, &node, 1); e.failed()) return -e.code;
    if (node != -ENOENT && node != -EFAULT) return node;
  }
  return -ENOENT;
}

}  // namespace

int Engine::tiers() const {
  const EngineState s = state();
  const bool on = s == EngineState::kDormant || s == EngineState::kAwake;
  return on ? static_cast<int>(options_->tiers.count) : -ENOTSUP;
}

const char* Engine::tier_name(int tier) const {
  if (tier < 0 || tier >= tiers()) return nullptr;
  return to_string(options_->tiers.tiers[tier].kind);
}

void Engine::serve(Background& bg, HandBatch& batch) {
  Asked asked;
  asked.what = Request::kMove;
  asked.batch = &batch;
  (void)bg.ask(asked);
  if (std::find(batch.status, batch.status + batch.count, -EAGAIN) == batch.status + batch.count) {
    return;
  }
  auto* part = static_cast<HandBatch*>(bootstrap::allocate(sizeof(HandBatch), alignof(HandBatch)));
  if (part == nullptr) return;
  new (part) HandBatch;
  std::uint16_t which[HandBatch::kMost];
  asked.batch = part;
  for (int fetches = 0; fetches < kFetches; ++fetches) {
    part->goal = batch.goal;
    part->may_split = batch.may_split;
    part->count = 0;
    for (std::size_t i = 0; i < batch.count; ++i) {
      if (batch.status[i] != -EAGAIN) continue;
      (void)bring_back(round_down(batch.page[i], kPageSize), kPageSize);
      part->page[part->count] = batch.page[i];
      part->tier[part->count] = batch.tier[i];
      which[part->count++] = static_cast<std::uint16_t>(i);
    }
    if (part->count == 0) break;
    (void)bg.ask(asked);
    for (std::size_t k = 0; k < part->count; ++k) batch.status[which[k]] = part->status[k];
  }
  bootstrap::release(part, sizeof(HandBatch), alignof(HandBatch));
}

int Engine::move(void* const* pages, const int* tiers, int* status, std::size_t count,
                 unsigned flags) {
  if (this->tiers() < 0) return -ENOTSUP;
  if ((flags & ~unsigned{HEAPTIER_MOVE_SPLIT}) != 0 || count > INT_MAX) return -EINVAL;
  if (count == 0) return 0;
  if (pages == nullptr || status == nullptr) return -EINVAL;
  if (state() == EngineState::kDormant) wake();
  Background* bg = background();
  if (bg == nullptr) return -ENOTSUP;
  auto* batch = static_cast<HandBatch*>(bootstrap::allocate(sizeof(HandBatch), alignof(HandBatch)));
  if (batch == nullptr) return -ENOMEM;
  new (batch) HandBatch;
  batch->goal = tiers == nullptr ? HandGoal::kLook : HandGoal::kTiers;
  batch->may_split = (flags & HEAPTIER_MOVE_SPLIT) != 0;
  int as_asked = 0;
  for (std::size_t done = 0; done < count; done += batch->count) {
    batch->count = std::min(count - done, HandBatch::kMost);
    for (std::size_t i = 0; i < batch->count; ++i) {
      batch->page[i] = reinterpret_cast<std::uintptr_t>(pages[done + i]);
      batch->tier[i] = tiers != nullptr ? tiers[done + i] : 0;
    }
    serve(*bg, *batch);
    for (std::size_t i = 0; i < batch->count; ++i) {
      const int now = batch->status[i];
      status[done + i] = now;
      if (now >= 0 && (tiers == nullptr || now == batch->tier[i])) ++as_asked;
    }
  }
  bootstrap::release(batch, sizeof(HandBatch), alignof(HandBatch));
  return as_asked;
}

int Engine::move_lazily(std::uintptr_t at, std::size_t bytes, int tier) {
  const int count = tiers();
  if (count < 0) return count;
  if (tier < 0 || tier >= count || options_->tiers.tiers[tier].kind == TierKind::kZpool) {
    return -EINVAL;
  }
  if (!manages(at, bytes)) return -EINVAL;
  return request(Request::kParkLazily, at, bytes, static_cast<unsigned>(tier));
}

int Engine::nodes(std::uintptr_t at, std::size_t bytes, int* nodes) {
  if (tiers() < 0) return -ENOTSUP;
  if (bytes == 0) return 0;
  const std::uintptr_t end = round_up(at + bytes, kPageSize);
  at = round_down(at, kPageSize);
  if (nodes == nullptr || end <= at || (end - at) / kPageSize > INT_MAX) return -EINVAL;
  const auto pages = static_cast<std::size_t>((end - at) / kPageSize);
  auto* ask = static_cast<NodeQuestion*>(bootstrap::allocate(sizeof(NodeQuestion)));
  if (ask == nullptr) return -ENOMEM;
  Background* bg = background_.load(std::memory_order_acquire);
  const PageblockTable* table = bg != nullptr ? &bg->core().table : nullptr;
  const std::uintptr_t park_base = bg != nullptr ? bg->core().park_base : 0;
  Errno failed = kOk;
  for (std::size_t done = 0; done < pages && failed.ok();) {
    const std::size_t n = std::min(pages - done, NodeQuestion::kMost);
    for (std::size_t i = 0; i < n; ++i) {
      const std::uintptr_t page = at + (done + i) * kPageSize;
      const PageSpot spot = PageSpot::of(page, *space_, table, park_base);
      ask->at[i] = spot.kind == PageSpot::Kind::kMapped ? spot.at : page;
    }
    failed = kernel_node_ops().where(ask->at, ask->node, n);
    for (std::size_t i = 0; i < n && failed.ok(); ++i) {
      const std::uintptr_t page = at + (done + i) * kPageSize;
      const PageSpot spot = PageSpot::of(page, *space_, table, park_base);
      int node = ask->node[i];
      if (spot.kind != PageSpot::Kind::kMapped) {
        node = code_of(spot.kind);
      } else if (node < 0) {
        const bool hides = bg != nullptr && bg->core().protection != nullptr;
        const bool there = !hides || show_to_find(bg->core(), bg->gate(), page);
        node = there ? node_of(page, *space_, table, park_base) : -ENOENT;
      }
      nodes[done + i] = node;
    }
    done += n;
  }
  bootstrap::release(ask, sizeof(NodeQuestion));
  return failed.failed() ? -failed.code : static_cast<int>(pages);
}

}  // namespace heaptier
