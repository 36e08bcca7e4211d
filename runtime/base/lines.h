// A file of the kernel's, line by line, in memory of the stack; and a folder, name by name.
#pragma once

#include <cstddef>
#include <cstring>
#include <string_view>

#include "runtime/base/file_tree.h"

namespace heaptier {

// Hands on the text line by line, without empty lines and those longer than kLongest: half a list
// would be a wrong one.
template <class F>
class Lines final : public TextSink {
 public:
  static constexpr std::size_t kLongest = 2048;

  explicit Lines(F& line) : line_(line) {}
  bool take(std::string_view piece) override {
    for (;;) {
      const std::size_t end = piece.find('\n');
      add(piece.substr(0, end));
      if (end == std::string_view::npos) return true;
      finish();
      piece.remove_prefix(end + 1);
    }
  }
  // The last line may have no end of its own.
  void finish() {
    if (length_ != 0 && length_ <= kLongest) line_(std::string_view(text_, length_));
    length_ = 0;
  }

 private:
  void add(std::string_view part) {
    if (part.empty()) return;
    if (length_ + part.size() <= kLongest) {
      std::memcpy(text_ + length_, part.data(), part.size());
    }
    length_ += part.size();
  }

  F& line_;
  std::size_t length_ = 0;
  char text_[kLongest];
};

// Calls line(text) for every line of the file. On failure, for those that could be read.
template <class F>
Errno each_line(FileTree& files, const char* path, F&& line) {
  Lines lines(line);
  const Errno result = files.read(path, lines);
  if (result.ok()) lines.finish();
  return result;
}

// Calls name(text) for every name in the folder.
template <class F>
Errno each_name(FileTree& files, const char* path, F&& name) {
  class Names final : public TextSink {
   public:
    explicit Names(F& each) : name_(each) {}
    bool take(std::string_view piece) override {
      name_(piece);
      return true;
    }

   private:
    F& name_;
  } names(name);
  return files.list(path, names);
}

}  // namespace heaptier
