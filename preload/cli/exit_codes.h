// What the command's exit status says; 125 to 127 as env(1) and the shells have it.
#pragma once

namespace heaptier::cli {

enum ExitCode : int {
  kSuccess = 0,
  kFailure = 1,  // doctor: tiering does not work here; ctl: not reached, or not all has left the
                 // node; any command: the output could not be written
  kUsage = 2,    // an option, value or command of heaptier's own that is not accepted
  kCannotStart = 125,  // run: heaptier itself cannot do its part (no library)
  kNotExecutable = 126,
  kNotFound = 127,
};

}  // namespace heaptier::cli
