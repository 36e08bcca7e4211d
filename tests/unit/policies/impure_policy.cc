// A policy that breaks law 3 in the three likeliest ways, so that law3.sh has something to find.
#include <chrono>
#include <mutex>
#include <vector>

#include "policies/policy.h"

namespace heaptier {

class ImpurePolicy final : public Policy {
 public:
  const char* name() const override { return "impure"; }
  void decide(View& view, Nanos, const Budget&, Plan& plan) override {
    const std::lock_guard guard(mutex_);
    const auto now = std::chrono::steady_clock::now().time_since_epoch().count();
    for (const BlockView& b : view.blocks) {
      if (b.parked_since.v < now) old_.push_back(b.index);
    }
    for (const BlockIndex b : old_) plan.add({b, Action::kStore, Reason::kIdle});
  }

 private:
  std::mutex mutex_;
  std::vector<BlockIndex> old_;
};

Policy& impure_policy() {
  static ImpurePolicy policy;
  return policy;
}

}  // namespace heaptier
