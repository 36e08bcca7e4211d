// Policies by name. The objects exist from the start of the program and are not copied: one process
// has one tiering loop, and it runs one of them.
#pragma once

#include <span>
#include <string_view>

#include "policies/policy.h"

namespace heaptier {

// nullptr if there is no policy of that name.
Policy* find_policy(std::string_view name);

// All of them, for help texts and for tests. The first is the default.
std::span<Policy* const> all_policies();

}  // namespace heaptier
