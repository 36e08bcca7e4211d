// What the kernel tells in files (/proc, /sys), as an interface: tests give trees that they make
// up.
#pragma once

#include <cstddef>
#include <string_view>

#include "runtime/base/errno.h"

namespace heaptier {

// Takes what is read, piece by piece. False: enough, the rest is not wanted.
class TextSink {
 public:
  virtual bool take(std::string_view piece) = 0;

 protected:
  ~TextSink() = default;
};

// Thread rule: any thread; no state. A sink may use the tree that feeds it.
class FileTree {
 public:
  // The text of a file in pieces of any size. On failure, what the sink has may be half of it.
  virtual Errno read(const char* path, TextSink& sink) = 0;
  // The names in a folder, a piece each, in no order, without those that begin with a dot.
  virtual Errno list(const char* path, TextSink& names) = 0;
  // What a symbolic link says, closed with NUL. ENAMETOOLONG: it does not fit.
  virtual Errno link(const char* path, char* out, std::size_t room) = 0;

 protected:
  ~FileTree() = default;
};

// The same where files take orders, as some of /sys do.
class OrderTree : public FileTree {
 public:
  // Hands the text, in one piece, to a file that is there. The kernel's answer: EBUSY, EINVAL, ...
  virtual Errno write(const char* path, std::string_view text) = 0;

 protected:
  ~OrderTree() = default;
};

}  // namespace heaptier
