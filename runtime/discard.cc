#include "runtime/discard.h"

#include <algorithm>
#include <iterator>

namespace heaptier {
namespace {

constexpr std::size_t kMaxBatch = 256;

// Pages in hand: locked, clean, on their way out.
struct Batch {
  PageIndex page[kMaxBatch];
  PageWord word[kMaxBatch];
  std::size_t size = 0;
};

// Takes the frames of one range that the kernel refused as a whole, page by page: it may have
// released a part before it met what it would not (locked memory), and that part must be known.
void release_singly(Core& core, const AddressRange& range, bool* gone) {
  for (std::size_t i = 0; i < range.bytes / kPageSize; ++i) {
    const AddressRange page{range.start + i * kPageSize, kPageSize};
    std::size_t done = 0;
    gone[i] = core.ops.discard(&page, 1, &done).ok();
  }
}

// Releases the frames of the whole batch and settles every page. Returns how many left; the others
// go back to the queue.
std::size_t release(Core& core, const Batch& batch, Evictor who, Probation& queue) {
  if (batch.size == 0) return 0;
  AddressRange ranges[kMaxBatch];
  std::size_t first_page[kMaxBatch + 1];
  bool gone[kMaxBatch] = {};
  std::size_t n = 0;
  for (std::size_t i = 0; i < batch.size; ++i) {
    const std::uintptr_t at = core.home(batch.page[i]);
    if (n > 0 && ranges[n - 1].end() == at) {
      ranges[n - 1].bytes += kPageSize;
    } else {
      ranges[n] = {at, kPageSize};
      first_page[n] = i;
      ++n;
    }
  }
  first_page[n] = batch.size;
  for (std::size_t next = 0; next < n;) {
    std::size_t done = 0;
    const bool all = core.ops.discard(ranges + next, n - next, &done).ok();
    for (std::size_t i = first_page[next]; i < first_page[next + done]; ++i) gone[i] = true;
    next += done;
    if (all) break;
    core.stats.errors_discard.add();
    release_singly(core, ranges[next], gone + first_page[next]);
    ++next;
  }
  const auto left =
      static_cast<std::size_t>(std::count(std::begin(gone), std::begin(gone) + batch.size, true));
  core.stats.discard_batches.add();
  core.discards.fetch_add(left, std::memory_order_relaxed);
  const std::uint32_t stamp = core.stamp_now();
  for (std::size_t i = 0; i < batch.size; ++i) {
    const PageWord was = batch.word[i];
    if (gone[i]) {
      core.settle(batch.page[i], was,
                  was.with_state(PageState::kStored).with_write_protected(false).with_stamp(stamp),
                  core.stats.pages_discarded);
    } else {
      core.table.unlock(batch.page[i], was);
      core.queue_clean(queue, batch.page[i]);
    }
  }
  count_evicted(core, who, left);
  return left;
}

// A pinned page is to stay: it needs no copy, and no place in a queue.
void keep(Core& core, PageIndex p, PageWord was) {
  core.store->drop(SlotId{was.slot()});
  core.settle(p, was, was.with_state(PageState::kResident).with_slot(0), core.stats.pages_recalled);
}

}  // namespace

void count_evicted(Core& core, Evictor who, std::size_t pages) {
  switch (who) {
    case Evictor::kBackground:
      core.stats.evicted_background.add(pages);
      break;
    case Evictor::kInline:
      core.stats.evicted_inline.add(pages);
      break;
    case Evictor::kAsked:
      core.stats.evicted_asked.add(pages);
      break;
  }
}

std::size_t discard_fetched(Core& core, std::size_t max, Evictor who) {
  if (max > kMaxBatch) max = kMaxBatch;
  Batch batch;
  PageIndex retry[kMaxBatch];
  std::size_t retries = 0;
  while (batch.size < max) {
    PageIndex out[kMaxBatch];
    const std::size_t got = core.fetched.pop(out, max - batch.size, Nanos{});
    if (got == 0) break;
    for (std::size_t i = 0; i < got; ++i) {
      PageWord word;
      if (!core.table.try_lock(out[i], &word)) {
        if (retries < kMaxBatch) retry[retries++] = out[i];
        continue;
      }
      if (word.state() != PageState::kClean || !word.write_protected()) {
        core.table.unlock(out[i], word);  // an old entry
        continue;
      }
      if (core.table.block(block_of(out[i])).pinned()) {
        keep(core, out[i], word);
        continue;
      }
      batch.page[batch.size] = out[i];
      batch.word[batch.size++] = word;
    }
  }
  for (std::size_t i = 0; i < retries; ++i) core.queue_clean(core.fetched, retry[i]);
  return release(core, batch, who, core.fetched);
}

std::size_t discard_copied(Core& core, Worker& w, std::size_t max, Evictor who, std::size_t* left) {
  *left = 0;
  if (max > kStagingPages) max = kStagingPages;
  PageIndex out[kStagingPages];
  const std::size_t got = core.copied.pop(out, max, core.ops.now() - kGraceTime);
  if (got == 0) return 0;
  Batch batch;
  for (std::size_t i = 0; i < got; ++i) {
    PageWord word;
    if (!core.table.try_lock(out[i], &word)) {
      core.queue_clean(core.copied, out[i]);
      continue;
    }
    if (word.state() != PageState::kClean) {
      core.table.unlock(out[i], word);
      continue;
    }
    if (core.table.block(block_of(out[i])).pinned()) {
      keep(core, out[i], word);
      continue;
    }
    batch.page[batch.size] = out[i];
    batch.word[batch.size++] = word;
  }
  if (batch.size == 0) return got;
  if (core.ops.may_hold_long_pins()) {
    core.stats.refused_pins.add(batch.size);
    for (std::size_t i = 0; i < batch.size; ++i) {
      core.table.unlock(batch.page[i], batch.word[i]);
      core.queue_clean(core.copied, batch.page[i]);
    }
    return got;
  }
  std::uintptr_t from[kStagingPages];
  for (std::size_t i = 0; i < batch.size; ++i) from[i] = core.home(batch.page[i]);
  const std::size_t read = core.read_pages(from, batch.size, w.staging);
  Batch same;
  for (std::size_t i = 0; i < batch.size; ++i) {
    const PageWord was = batch.word[i];
    if (i >= read) {
      core.table.unlock(batch.page[i], was);
      core.queue_clean(core.copied, batch.page[i]);
      continue;
    }
    const char* content = w.staging + i * kPageSize;
    if (page_checksum(content) != core.store->checksum(SlotId{was.slot()})) {
      // Somebody wrote without a fault. What is in memory counts; the protection is lifted at the
      // next write.
      core.store->drop(SlotId{was.slot()});
      core.settle(batch.page[i], was,
                  was.with_state(PageState::kResident).with_slot(0).with_write_protected(false),
                  core.stats.pages_changed);
      continue;
    }
    same.page[same.size] = batch.page[i];
    same.word[same.size++] = was;
  }
  *left = release(core, same, who, core.copied);
  return got;
}

}  // namespace heaptier
