// fork: every lock of heaptier's is held across the clone, so that the child finds its books in
// order; and the child's pages are served before any of its code runs.
#pragma once

namespace heaptier::preload {

// Registers the handlers; to be called before anybody else registers any, so that ours run last
// before the clone and first after it.
void guard_forks();

// The three steps by hand, for processes made without libc's fork.
void before_fork();
void after_fork_in_parent();
// Who made the child: libc's fork has struck the threads that are gone off its list there,
// everybody else has not.
enum class MadeBy { kLibcsFork, kSomebodyElse };
void after_fork_in_child(MadeBy by);

}  // namespace heaptier::preload
