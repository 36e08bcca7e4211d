// operator new and delete in all their forms, and what they do when there is no memory.
#include <cstdint>
#include <initializer_list>
#include <new>

#include "tests/preload/abi/check.h"

using abi::opaque;

namespace {

std::uintptr_t address(const void* p) {
  return reinterpret_cast<std::uintptr_t>(p);
}
constexpr std::align_val_t kAligns[] = {std::align_val_t{8}, std::align_val_t{16},
                                        std::align_val_t{64}, std::align_val_t{4096},
                                        std::align_val_t{1 << 21}};
constexpr std::size_t kAbsurd = SIZE_MAX / 2;

int handler_calls = 0;
struct FromHandler {};

}  // namespace

GROUP(new_and_delete) {
  for (std::size_t n : {0uL, 1uL, 8uL, 16uL, 100uL, 5000uL, 100000uL, 3uL << 20}) {
    void* p = ::operator new(opaque(n));
    CHECK(p != nullptr);
    std::memset(p, 1, n);
    ::operator delete(p);
    ::operator delete(::operator new(n), n);
    ::operator delete(::operator new(n), std::nothrow);
    ::operator delete[](::operator new[](opaque(n)));
    ::operator delete[](::operator new[](n), n);
    ::operator delete[](::operator new[](n), std::nothrow);
    p = ::operator new(n, std::nothrow);
    CHECK(p != nullptr);
    ::operator delete(p);
    p = ::operator new[](n, std::nothrow);
    CHECK(p != nullptr);
    ::operator delete[](p);
    for (std::align_val_t a : kAligns) {
      const auto align = static_cast<std::size_t>(a);
      p = ::operator new(n, a);
      CHECK(address(p) % align == 0);
      std::memset(p, 1, n);
      ::operator delete(p, a);
      p = ::operator new[](n, a);
      CHECK(address(p) % align == 0);
      ::operator delete[](p, n, a);
      p = ::operator new(n, a, std::nothrow);
      CHECK(address(p) % align == 0);
      ::operator delete(p, n, a);
      p = ::operator new[](n, a, std::nothrow);
      CHECK(address(p) % align == 0);
      ::operator delete[](p, a, std::nothrow);
      p = ::operator new[](n, a);
      ::operator delete[](p, a);
      ::operator delete(::operator new(n, a), a, std::nothrow);
    }
  }
  ::operator delete(nullptr);
  ::operator delete[](nullptr);
  ::operator delete (nullptr, std::size_t{8});
  ::operator delete (nullptr, std::size_t{8}, std::align_val_t{64});
}

GROUP(new_throws_bad_alloc) {
  const auto throws = [](auto allocate) {
    try {
      allocate();
    } catch (const std::bad_alloc&) {
      return true;
    }
    return false;
  };
  CHECK(throws([] { return ::operator new(opaque(kAbsurd)); }));
  CHECK(throws([] { return ::operator new[](opaque(kAbsurd)); }));
  CHECK(throws([] { return ::operator new (opaque(kAbsurd), std::align_val_t{64}); }));
  CHECK(throws([] { return ::operator new[](opaque(kAbsurd), std::align_val_t{64}); }));
  CHECK(::operator new(opaque(kAbsurd), std::nothrow) == nullptr);
  CHECK(::operator new[](opaque(kAbsurd), std::nothrow) == nullptr);
  CHECK(::operator new (opaque(kAbsurd), std::align_val_t{64}, std::nothrow) == nullptr);
  CHECK(::operator new[](opaque(kAbsurd), std::align_val_t{64}, std::nothrow) == nullptr);
}

GROUP(new_calls_the_handler) {
  std::set_new_handler([] {
    if (++handler_calls == 3) std::set_new_handler(nullptr);
  });
  bool thrown = false;
  try {
    abi::opaque(::operator new(opaque(kAbsurd)));
  } catch (const std::bad_alloc&) {
    thrown = true;
  }
  CHECK(thrown && handler_calls == 3);

  std::set_new_handler([] { throw FromHandler{}; });
  thrown = false;
  try {
    abi::opaque(::operator new(opaque(kAbsurd)));
  } catch (const FromHandler&) {
    thrown = true;
  }
  CHECK(thrown);

  std::set_new_handler([] { throw std::bad_alloc{}; });
  CHECK(::operator new(opaque(kAbsurd), std::nothrow) == nullptr);
  CHECK(::operator new (opaque(kAbsurd), std::align_val_t{256}, std::nothrow) == nullptr);
  std::set_new_handler(nullptr);
}
