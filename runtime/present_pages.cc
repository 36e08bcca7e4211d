#include "runtime/present_pages.h"

namespace heaptier {

Errno PresentPages::look(MemoryOps& ops, std::uintptr_t start) {
  count = 0;
  ScannedRun runs[64];
  const std::uintptr_t end = start + kPageblockSize;
  for (std::uintptr_t next = start; next < end;) {
    std::size_t found = 0;
    const std::uintptr_t from = next;
    if (const Errno e = ops.scan(from, end - from, runs, 64, &found, &next); e.failed()) {
      count = 0;
      return e;
    }
    if (found == 0 && next == from) break;
    for (std::size_t i = 0; i < found; ++i) add(runs[i]);
  }
  return kOk;
}

void PresentPages::add(const ScannedRun& run) {
  const bool whole = run.huge && run.bytes == kPageblockSize;
  const std::size_t step = whole ? kPageblockSize : kPageSize;
  for (std::size_t done = 0; done < run.bytes && count < kPagesPerBlock; done += step) {
    huge[count] = whole;
    at[count++] = run.start + done;
  }
}

}  // namespace heaptier
