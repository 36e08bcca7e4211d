// heaptier ctl: asks processes that run with heaptier, and has them vacate memory nodes.
#pragma once

#include <string>
#include <vector>

namespace heaptier::cli {

struct CtlWords {
  std::vector<std::string> words;  // behind "ctl": PID COMMAND [node:N], or none
  bool json = false;
  bool no_wait = false;
};

// The exit status.
int ctl(const CtlWords& words);

}  // namespace heaptier::cli
