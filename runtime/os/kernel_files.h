// The files of the kernel that runs this process.
#pragma once

#include "runtime/base/file_tree.h"

namespace heaptier {

// One object, without state. Opens, reads and closes; errno may change.
OrderTree& kernel_files();

}  // namespace heaptier
