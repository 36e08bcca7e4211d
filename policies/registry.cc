#include "policies/registry.h"

#include "policies/hotset.h"
#include "policies/none.h"

namespace heaptier {
namespace {

constinit HotsetPolicy hotset;
constinit NonePolicy none;
constinit Policy* const policies[] = {&hotset, &none};

// By hand: string_view's own comparison may call memcmp, and a policy library that calls nothing is
// what tests/unit/policies/law3 checks.
bool equal(std::string_view a, const char* b) {
  for (const char c : a) {
    if (c != *b++ || c == '\0') return false;
  }
  return *b == '\0';
}

}  // namespace

Policy* find_policy(std::string_view name) {
  for (Policy* p : policies) {
    if (equal(name, p->name())) return p;
  }
  return nullptr;
}

std::span<Policy* const> all_policies() {
  return policies;
}

}  // namespace heaptier
