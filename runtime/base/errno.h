// Errors as values. Below preload/cli nothing throws and nobody reads the global errno: a system
// call's failure travels as an Errno, and entry points that the application calls keep its errno
// untouched.
#pragma once

#include <cerrno>

namespace heaptier {

// 0 is success; otherwise an errno constant. `if (Errno e = f(); e.failed()) ...`
struct [[nodiscard]] Errno {
  int code = 0;
  constexpr bool ok() const { return code == 0; }
  constexpr bool failed() const { return code != 0; }
  friend constexpr bool operator==(Errno, Errno) = default;
};
inline constexpr Errno kOk{};

// Restores the application's errno on scope exit. In every preload entry point and fault path.
class ErrnoKeeper {
 public:
  ErrnoKeeper() : saved_(errno) {}
  ~ErrnoKeeper() { errno = saved_; }
  ErrnoKeeper(const ErrnoKeeper&) = delete;
  ErrnoKeeper& operator=(const ErrnoKeeper&) = delete;

 private:
  int saved_;
};

}  // namespace heaptier
