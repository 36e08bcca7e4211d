// Which next, among pages of which nothing more is known than their credits: a clock hand over the
// scattered blocks, so that between two visits of a block every other one had its turn.
#pragma once

#include <cstdint>

#include "policies/filter.h"
#include "policies/policy.h"

namespace heaptier::policy {

// Whether a sweep may find something in this block. `desperate`: blocks that are whole but whose
// pages all came back whenever they were parked are taken page by page too; what is hot in them
// will earn credits.
constexpr bool may_sweep(const BlockView& b, Nanos now, bool desperate) {
  if (!may_demote(b, now) || main_pages(b) == 0 || b.parked > 0) return false;
  return b.phase == BlockPhase::kScattered || (desperate && is_whole(b) && hopelessly_hot(b));
}

// Plans sweeps until they cover `pages`, each block at most once: of reclaimable blocks first, then
// from the clock hand on. Also for eviction inline with a fault, where a whole decision would cost
// more than it decides: a View with `blocks` and `clock_hand` is enough.
constexpr void plan_sweeps(View& view, Nanos now, std::uint64_t pages, bool desperate, Plan& plan) {
  const auto sweep = [&](const BlockView& b, bool reclaimable) {
    if ((b.mobility == Mobility::kReclaimable) != reclaimable) return;
    if (!may_sweep(b, now, desperate)) return;
    plan.add({b.index, Action::kSweep, Reason::kPressure});
    const std::uint64_t gain = main_pages(b);
    pages -= gain < pages ? gain : pages;
  };
  const auto count = static_cast<std::uint32_t>(view.blocks.size());
  for (std::uint32_t i = 0; i < count && pages > 0 && !plan.full(); ++i) {
    sweep(view.blocks[i], true);
  }
  for (std::uint32_t i = 0; i < count && pages > 0 && !plan.full(); ++i) {
    if (view.clock_hand >= count) view.clock_hand = 0;
    sweep(view.blocks[view.clock_hand++], false);
  }
}

}  // namespace heaptier::policy
