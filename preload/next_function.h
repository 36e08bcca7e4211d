// The definition of an interposed function that would be used if heaptier were not there: libc's,
// or another preloaded library's.
#pragma once

#include <dlfcn.h>

#include <atomic>
#include <cstdlib>

namespace heaptier::preload {

template <class F>
class NextFunction;

// Constant-initialised; looked up at the first call or by look_up(). Any thread.
template <class R, class... A>
class NextFunction<R(A...)> {
 public:
  using Pointer = R (*)(A...);
  constexpr explicit NextFunction(const char* name) : name_(name) {}
  Pointer look_up() {
    Pointer f = found_.load(std::memory_order_relaxed);
    if (f == nullptr) {
      f = reinterpret_cast<Pointer>(dlsym(RTLD_NEXT, name_));
      found_.store(f, std::memory_order_relaxed);
    }
    return f;
  }
  // Every libc that heaptier is built for has the function: that it is missing cannot be said in
  // its result.
  R call(A... arguments) {
    Pointer f = look_up();
    if (f == nullptr) std::abort();
    return f(arguments...);
  }

 private:
  const char* name_;
  std::atomic<Pointer> found_{nullptr};
};

}  // namespace heaptier::preload
