// Lines that cannot be printed yet. Options are read before the library may write anywhere; what
// they have to say is kept here, and preload writes it to file descriptor 2 when that is safe.
//
// Thread rule: one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string_view>

namespace heaptier {

class Diagnostics {
 public:
  constexpr Diagnostics() = default;

  // One line, made of `parts` put together; control characters in it are shown as '?', so that a
  // hostile value stays one line. A line that does not fit whole is not kept, but counted.
  void add(std::initializer_list<std::string_view> parts);

  // All lines, each closed by '\n', with nothing in between.
  std::string_view text() const { return {buffer_, used_}; }
  bool empty() const { return used_ == 0 && lost_ == 0; }
  std::uint32_t lines() const { return lines_; }
  // Lines there was no room for.
  std::uint32_t lost() const { return lost_; }
  void clear() { used_ = lines_ = lost_ = 0; }

 private:
  static constexpr std::size_t kCapacity = 4096;
  char buffer_[kCapacity] = {};
  std::uint32_t used_ = 0;
  std::uint32_t lines_ = 0;
  std::uint32_t lost_ = 0;
};

}  // namespace heaptier
