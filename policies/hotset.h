// The default policy: keeps the hot set in fast memory.
//
// Blocks are judged whole as long as they are whole: parked, and stored when nobody comes for them.
// The coldest go first, where coldest means: allowed to rest for the longest time. A block that
// comes straight back rests twice as long each time, so stable hot memory pays almost nothing. What
// does not fit that way is taken page by page: huge blocks that are always in use are broken up,
// and scattered blocks are swept by a clock that respects the credits of policies/refault.h.
//
// Composed of when (pressure.h), how much (quota.h, ReturnShare), which first (rank.h, clock.h) and
// not these (filter.h).
#pragma once

#include <cstdint>

#include "policies/policy.h"
#include "policies/pressure.h"
#include "policies/quota.h"
#include "policies/watch.h"

namespace heaptier {

class HotsetPolicy final : public Policy {
 public:
  constexpr HotsetPolicy() = default;
  const char* name() const override { return "hotset"; }
  void decide(View& view, Nanos now, const Budget& budget, Plan& plan) override;

 private:
  void plan_stores(View& view, Nanos now, Plan& plan);
  void plan_parks(View& view, Nanos now, const Budget& budget, Plan& plan);
  void plan_remaining_sweeps(View& view, Nanos now, Plan& plan);
  void plan_collapses(View& view, Nanos now, const Budget& budget, Plan& plan);

  policy::Watermarks watermarks_;
  policy::ReturnShare share_;
  policy::Allowance hints_;
  policy::Allowance collapses_;

  // Of the decision being made.
  policy::Pressure pressure_;
  std::uint64_t storing_ = 0;   // pages that the stores planned now will free
  std::uint64_t watching_ = 0;  // pages parked and not about to be stored, or planned to be parked
};

}  // namespace heaptier
