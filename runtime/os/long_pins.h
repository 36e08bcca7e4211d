// Which file descriptors let a device write this process' memory without a fault, for as long as
// they are open.
#pragma once

namespace heaptier::os {

// Looks through /proc/self/fd. True when one is found or the directory cannot be read.
bool process_may_hold_long_pins();

// The verdict on one descriptor's link text ("anon_inode:[io_uring]", "/dev/vfio/12", ...).
bool link_may_pin(const char* target);

}  // namespace heaptier::os
