#include "runtime/hidden_pages.h"

#include "runtime/lazy_mark.h"
#include "runtime/migration.h"

namespace heaptier {
namespace {

// A page that is taken at this moment is given back in microseconds, unless the kernel refuses.
constexpr int kMostTries = 1000;

int count_hidden(const Core& core, PageIndex first, std::uint32_t pages) {
  int n = 0;
  for (std::uint32_t i = 0; i < pages; ++i) {
    const PageWord word = core.table.peek({first.v + i});
    // Who has a page may be about to hide it.
    if (word.state() == PageState::kParked || word.locked()) ++n;
  }
  return n;
}

}  // namespace

int show_hidden(Core& core, OperationGate& gate, std::uintptr_t at, std::size_t bytes) {
  Worker nothing_needed;
  Migration migration(core, nothing_needed);
  const PageIndex first = core.space.page_at(at);
  const auto pages =
      static_cast<std::uint32_t>((core.space.page_at(at + bytes - 1).v - first.v) + 1);
  int shown = 0;
  each_part(first, pages, [&](BlockIndex b, PageSpan span) {
    const PageIndex here{first_page(b).v + span.first};
    if (!core.table.managed(here)) return true;
    const int hidden = count_hidden(core, here, span.n);
    Backoff backoff;
    for (int tries = 0; tries < kMostTries && count_hidden(core, here, span.n) != 0; ++tries) {
      gate.enter();
      (void)migration.unpark(b);
      gate.leave();
      backoff.pause();
    }
    shown += hidden;
    return true;
  });
  return shown;
}

bool show_to_find(Core& core, OperationGate& gate, std::uintptr_t page) {
  const PageIndex p = core.space.page_at(page);
  if (!core.table.managed(p)) return true;
  const auto hidden = [&] { return core.table.peek(p).state() == PageState::kParked; };
  Worker nothing_needed;
  Migration migration(core, nothing_needed);
  for (int tries = 0; tries < kMostTries && hidden(); ++tries) {
    if (LazyMark{core.table.peek(p).slot()}.is_waiting()) return false;
    gate.enter();
    (void)migration.unpark(block_of(p), Migration::Unpark::kNotLazy);
    gate.leave();
  }
  return !hidden();
}

}  // namespace heaptier
