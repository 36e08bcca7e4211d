// What preload tells the engine and asks of it.
#pragma once

#include "runtime/heap/content.h"

namespace heaptier::preload::tiering {

// Where the heap's news go.
ContentSink& sink();

void fork_prepare();
void fork_parent();
void fork_child();

}  // namespace heaptier::preload::tiering
