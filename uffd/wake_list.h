// Threads to wake, those on other CPUs first: the thread on our own CPU may take it from us, for
// long.
#pragma once

#include <cstddef>

#include "runtime/base/ports.h"

namespace heaptier {

template <std::size_t kCapacity>
class WakeList {
 public:
  void add(AddressRange range, bool own_cpu) {
    if (own_cpu) {
      ranges_[--own_] = range;
    } else {
      ranges_[others_++] = range;
    }
  }
  std::size_t size() const { return others_ + (kCapacity - own_); }
  const AddressRange& operator[](std::size_t i) const {
    return i < others_ ? ranges_[i] : ranges_[own_ + (i - others_)];
  }
  void clear() {
    others_ = 0;
    own_ = kCapacity;
  }

 private:
  AddressRange ranges_[kCapacity];
  std::size_t others_ = 0;       // from the front
  std::size_t own_ = kCapacity;  // from the back
};

}  // namespace heaptier
