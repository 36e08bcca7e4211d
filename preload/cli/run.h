// `heaptier run [options] -- command [args]`: checks everything that can be checked before the
// program starts, says in one line what is wrong, or becomes the program with heaptier preloaded.
#pragma once

namespace heaptier::cli {

// argv[0] is "run". Returns only when the program was not started: the exit code.
int run(int argc, char** argv);

}  // namespace heaptier::cli
