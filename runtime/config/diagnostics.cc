#include "runtime/config/diagnostics.h"

namespace heaptier {

void Diagnostics::add(std::initializer_list<std::string_view> parts) {
  std::size_t need = 1;
  for (std::string_view part : parts) need += part.size();
  if (need > kCapacity - used_) {
    ++lost_;
    return;
  }
  for (std::string_view part : parts) {
    for (char c : part) {
      const auto byte = static_cast<unsigned char>(c);
      buffer_[used_++] = byte < 0x20 || byte == 0x7f ? '?' : c;
    }
  }
  buffer_[used_++] = '\n';
  ++lines_;
}

}  // namespace heaptier
