// What a heap tells the tiering engine about its memory, and the only thing the heaps know of it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace heaptier {

class ContentSink {
 public:
  // The content of these pages is dead (freed, purged). Stored copies are dropped unread, frames go
  // back to the kernel; the range reads as zero afterwards. Page aligned. Called with the heap's
  // locks held: allocates nothing from any heap, waits only for page locks. False: the kernel would
  // not release it (locked memory); it keeps its content.
  virtual bool drop(std::uintptr_t at, std::size_t bytes) = 0;
  // More memory was carved; `carved` is the Space's total. May ask for wake-up, must not start
  // threads here.
  virtual void carved(std::size_t carved) = 0;

 protected:
  ~ContentSink() = default;
};

}  // namespace heaptier
