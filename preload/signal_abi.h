// Signals as the program sets them (signal_abi.cc).
#pragma once

namespace heaptier::preload {

// Once, before the program runs.
void open_signals();

}  // namespace heaptier::preload
