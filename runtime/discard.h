// Letting clean pages go: the frame is released, the copy that was kept is from now on the only
// one. In batches, because unmapping one page interrupts every other CPU that runs the process (22
// us), and 64 at once cost hardly more.
//
// Pages that were never writable since their copy was made (fetched, mapped write-protected) may go
// at once. Pages that were writable before may still be the target of a device (a pin taken for
// writing needs no fault afterwards), so they go only when: they have been protected for the grace
// time, no descriptor of the process can pin for long, and their content still has the checksum of
// the copy.
#pragma once

#include <cstddef>

#include "runtime/core.h"

namespace heaptier {

enum class Evictor : unsigned char { kBackground, kInline, kAsked };

// Longer than any ordinary I/O takes from pin to completion.
inline constexpr Nanos kGraceTime = seconds(2);

// Discards up to `max` (at most 256) of the longest fetched pages. Returns how many left. Any
// thread; touches no page's content.
std::size_t discard_fetched(Core& core, std::size_t max, Evictor who);

// Discards up to `max` (at most kStagingPages) of the pages whose grace time is over. Background
// thread only (reads the pages). Returns how many were taken out of the queue, *left: how many of
// them left memory.
std::size_t discard_copied(Core& core, Worker& w, std::size_t max, Evictor who, std::size_t* left);

// Counts released frames to who released them.
void count_evicted(Core& core, Evictor who, std::size_t pages);

}  // namespace heaptier
