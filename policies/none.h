// The policy that never moves anything: the baseline of every comparison, the kill switch, and what
// is fallen back to after repeated failure.
#pragma once

#include "policies/policy.h"

namespace heaptier {

class NonePolicy final : public Policy {
 public:
  constexpr NonePolicy() = default;
  const char* name() const override { return "none"; }
  void decide(View& view, Nanos now, const Budget& budget, Plan& plan) override;
};

}  // namespace heaptier
