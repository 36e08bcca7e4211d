// System calls straight to the kernel. heaptier replaces libc's syscall() for the application, and
// must not meet its own replacement here. Only for runtime/os/*.cc.
#pragma once

#include <cerrno>
#include <type_traits>

namespace heaptier::os {

inline long raw_syscall6(long n, long a, long b, long c, long d, long e, long f) {
#if defined(__x86_64__)
  long result;
  register long r10 asm("r10") = d;
  register long r8 asm("r8") = e;
  register long r9 asm("r9") = f;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return result;
#elif defined(__aarch64__)
  register long x8 asm("x8") = n;
  register long x0 asm("x0") = a;
  register long x1 asm("x1") = b;
  register long x2 asm("x2") = c;
  register long x3 asm("x3") = d;
  register long x4 asm("x4") = e;
  register long x5 asm("x5") = f;
  asm volatile("svc #0"
               : "+r"(x0)
               : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
               : "memory");
  return x0;
#else
#error "heaptier is built for x86-64 and aarch64"
#endif
}

template <class T>
long as_register(T value) {
  if constexpr (std::is_pointer_v<T>) {
    return reinterpret_cast<long>(value);
  } else if constexpr (std::is_null_pointer_v<T>) {
    return 0;
  } else {
    return static_cast<long>(value);
  }
}

// Like libc's: -1 and errno on failure.
template <class... A>
long raw_syscall(long number, A... arguments) {
  static_assert(sizeof...(A) <= 6);
  long r[6] = {as_register(arguments)...};
  const long result = raw_syscall6(number, r[0], r[1], r[2], r[3], r[4], r[5]);
  if (result < 0 && result > -4096) {
    errno = static_cast<int>(-result);
    return -1;
  }
  return result;
}

}  // namespace heaptier::os
