// Buffers that the application gives to streams. libc's fork waits for the lock of its list of
// streams when our handlers already stand still for the fork; whoever holds that lock then may be
// writing out such a buffer, and would wait for ever for a page of it. So they stay at home, as
// libc's own buffers do (libc_callers.h), until their pageblock is freed.
#include <cstdio>

#include "preload/next_function.h"
#include "preload/process.h"
#include "runtime/base/errno.h"
#include "runtime/engine.h"

namespace heaptier::preload {
namespace {

constinit NextFunction<int(FILE*, char*, int, std::size_t)> next_setvbuf{"setvbuf"};
constinit NextFunction<void(FILE*, char*)> next_setbuf{"setbuf"};
constinit NextFunction<void(FILE*, char*, std::size_t)> next_setbuffer{"setbuffer"};
constinit NextFunction<FILE*(void*, std::size_t, const char*)> next_fmemopen{"fmemopen"};

void keep_home(const void* buffer, std::size_t bytes) {
  if (buffer == nullptr || bytes == 0 || !boot() || mode() == Mode::kNext) return;
  const Space& space = process().space;
  const auto at = reinterpret_cast<std::uintptr_t>(buffer);
  // NOLINTNEXTLINE(performance-no-int-to-ptr)
  const auto* last = reinterpret_cast<const void*>(at + bytes - 1);
  if (!space.contains(buffer) || at + bytes < at || !space.contains(last)) return;
  ErrnoKeeper keep;
  engine().pin(round_down(at, kPageSize), at % kPageSize + bytes);
}

}  // namespace
}  // namespace heaptier::preload

#define HEAPTIER_EXPORT extern "C" __attribute__((visibility("default")))

// NOLINTBEGIN(misc-use-internal-linkage)
using namespace heaptier::preload;

HEAPTIER_EXPORT int setvbuf(FILE* stream, char* buffer, int how, std::size_t bytes) noexcept {
  if (how != _IONBF) keep_home(buffer, bytes);
  return next_setvbuf.call(stream, buffer, how, bytes);
}

HEAPTIER_EXPORT void setbuf(FILE* stream, char* buffer) noexcept {
  keep_home(buffer, BUFSIZ);
  next_setbuf.call(stream, buffer);
}

HEAPTIER_EXPORT void setbuffer(FILE* stream, char* buffer, std::size_t bytes) noexcept {
  keep_home(buffer, bytes);
  next_setbuffer.call(stream, buffer, bytes);
}

HEAPTIER_EXPORT FILE* fmemopen(void* buffer, std::size_t bytes, const char* how) noexcept {
  keep_home(buffer, bytes);
  return next_fmemopen.call(buffer, bytes, how);
}
// NOLINTEND(misc-use-internal-linkage)
