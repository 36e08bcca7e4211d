#include "policies/none.h"

namespace heaptier {

void NonePolicy::decide(View&, Nanos, const Budget&, Plan&) {}

}  // namespace heaptier
