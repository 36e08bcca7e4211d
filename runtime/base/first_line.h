// The first line of a file of the kernel's, in memory of the stack: most of them have no other.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "runtime/base/file_tree.h"
#include "runtime/base/words.h"

namespace heaptier {

class FirstLine final : public TextSink {
 public:
  bool take(std::string_view piece) override {
    const std::size_t n = std::min(piece.size(), sizeof text_ - size_);
    std::memcpy(text_ + size_, piece.data(), n);
    size_ += n;
    return size_ < sizeof text_;
  }
  // What does not fit is left out.
  std::string_view line() const {
    const std::string_view all(text_, size_);
    return all.substr(0, all.find('\n'));
  }

 private:
  char text_[160];
  std::size_t size_ = 0;
};

// Whether the file can be read and says a number, and nothing but it.
inline bool read_number(FileTree& files, const char* path, std::uint64_t* out) {
  FirstLine line;
  return files.read(path, line).ok() && parse_decimal(line.line(), out);
}

}  // namespace heaptier
