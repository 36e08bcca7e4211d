#include "runtime/tiers/zpool.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "runtime/base/units.h"
#include "runtime/bootstrap_heap.h"

namespace heaptier {
namespace {

constexpr std::size_t kLine = 64;  // of the cache
// Prefetched at most: what a page of the usual ratio of two has. A guess: on a contended machine 0,
// 512 and 2048 bytes could not be told apart, neither 16 fetches ahead nor at the start of the
// fetch (which therefore has none).
constexpr std::size_t kPrefetchBytes = 2048;

void prefetch_place(const SlotHeap::Place& place) {
  if (place.at == nullptr) return;
  const std::size_t bytes = std::min(place.bytes, kPrefetchBytes);
  for (std::size_t n = 0; n < bytes; n += kLine) __builtin_prefetch(place.at + n);
}

}  // namespace

// Where a thread compresses to, followed by the codec's state.
struct alignas(kLine) ZPool::Workspace {
  char compressed[kPageSize];
  void* codec_state() { return this + 1; }
};

Errno ZPool::init(MemoryOps& ops, const ZPoolConfig& config) {
  if (config.max_ratio_percent == 0 || config.max_ratio_percent > 100) return {EINVAL};
  codec_ = &codec(config.codec);
  if (!codec_->has_level(config.level)) return {EINVAL};
  level_ = config.level;
  // An object must not need more room than the page it stands for.
  max_payload_ =
      std::min(kPageSize * config.max_ratio_percent / 100, kPageSize - kObjectHeaderBytes);
  capacity_bytes_ = std::min(config.capacity_bytes, kMaxPoolBytes);
  if (capacity_bytes_ <= sizeof(ZPool)) return {EINVAL};
  return spans_.init(ops, capacity_bytes_ - sizeof(ZPool));
}

std::size_t ZPool::workspace_bytes() const {
  return sizeof(Workspace) + codec_->state_bytes(level_);
}

StoreWorkspace* ZPool::make_workspace() {
  const std::size_t bytes = workspace_bytes();
  void* memory = bootstrap::allocate(bytes, kLine);
  if (memory == nullptr) return nullptr;
  auto* ws = new (memory) Workspace;
  if (!codec_->make_state(ws->codec_state(), level_)) {
    bootstrap::release(memory, bytes, kLine);
    return nullptr;
  }
  workspaces_.fetch_add(1, std::memory_order_relaxed);
  return reinterpret_cast<StoreWorkspace*>(ws);
}

void ZPool::release_workspace(StoreWorkspace* ws) {
  if (ws == nullptr) return;
  bootstrap::release(ws, workspace_bytes(), kLine);
  workspaces_.fetch_sub(1, std::memory_order_relaxed);
}

StoreOutcome ZPool::store(StoreWorkspace* ws, const void* page, PageIndex owner, SlotId* slot) {
  auto* workspace = reinterpret_cast<Workspace*>(ws);
  const std::size_t bytes =
      codec_->compress(workspace->codec_state(), page, workspace->compressed, max_payload_);
  if (bytes == 0) return StoreOutcome::kIncompressible;
  ObjectHeader header;
  header.checksum = page_checksum(page);
  header.owner = owner;
  header.bytes = static_cast<std::uint16_t>(bytes);
  const SlotId taken = slots_.reserve(size_class_for(kObjectHeaderBytes + bytes), bytes);
  if (taken.v == 0) return StoreOutcome::kFull;
  header.set_seal(taken);
  char* at = slots_.locate(taken).at;
  std::memcpy(at, &header, kObjectHeaderBytes);
  std::memcpy(at + kObjectHeaderBytes, workspace->compressed, bytes);
  slots_.commit(taken);
  *slot = taken;
  return StoreOutcome::kStored;
}

// false: no such place, or what lies there is no header of this slot. The length is within the
// place.
bool ZPool::read_header(SlotId slot, SlotHeap::Place place, ObjectHeader* header) const {
  if (place.at == nullptr) return false;
  std::memcpy(header, place.at, kObjectHeaderBytes);
  return header->sealed(slot) && header->bytes <= place.bytes - kObjectHeaderBytes;
}

FetchOutcome ZPool::fetch(StoreWorkspace* ws, SlotId slot, void* out) {
  const SlotHeap::Place place = slots_.locate(slot);
  ObjectHeader header;
  if (!read_header(slot, place, &header)) return FetchOutcome::kCorrupt;
  auto* workspace = reinterpret_cast<Workspace*>(ws);
  if (!codec_->decompress(workspace->codec_state(), place.at + kObjectHeaderBytes, header.bytes,
                          out)) {
    return FetchOutcome::kCorrupt;
  }
  return page_checksum(out) == header.checksum ? FetchOutcome::kFetched : FetchOutcome::kCorrupt;
}

void ZPool::drop(SlotId slot) {
  ObjectHeader header;
  const bool readable = read_header(slot, slots_.locate(slot), &header);
  (void)slots_.release(slot, readable ? header.bytes : 0);
}

std::uint32_t ZPool::checksum(SlotId slot) const {
  const SlotHeap::Place place = slots_.locate(slot);
  if (place.at == nullptr) return 0;
  ObjectHeader header;
  std::memcpy(&header, place.at, kObjectHeaderBytes);
  return header.checksum;
}

void ZPool::prefetch(SlotId slot) const {
  prefetch_place(slots_.locate(slot));
}

StoreUsage ZPool::usage() const {
  StoreUsage usage;
  usage.slots = slots_.slots();
  usage.payload_bytes = slots_.payload_bytes();
  usage.resident_bytes = spans_.held_spans() * kSpanBytes + spans_.metadata_bytes() +
                         sizeof(ZPool) +
                         workspaces_.load(std::memory_order_relaxed) * workspace_bytes();
  usage.capacity_bytes = capacity_bytes_;
  return usage;
}

ZPoolFragmentation ZPool::fragmentation() const {
  ZPoolFragmentation f;
  f.used = slots_.used_bytes();
  f.held = spans_.held_spans() * kSpanBytes;
  f.reclaimable = slots_.reclaimable_spans() * kSpanBytes;
  const std::size_t whole = spans_.warm_spans() * kSpanBytes;
  // The figures are read one after the other while others store and drop.
  const std::size_t free = f.held > f.used ? f.held - f.used : 0;
  if (free > whole) f.unusable = static_cast<double>(free - whole) / static_cast<double>(free);
  return f;
}

void ZPool::fork_prepare() {
  slots_.fork_prepare();
}

void ZPool::fork_done(bool in_child) {
  slots_.fork_done(in_child);
}

}  // namespace heaptier
