#include "runtime/os/futex.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <climits>

#include "runtime/os/raw_syscall.h"

namespace heaptier::os {

static_assert(sizeof(std::atomic<std::uint32_t>) == 4);

void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t expected, Nanos limit) {
  timespec t{static_cast<time_t>(limit.v / 1'000'000'000), limit.v % 1'000'000'000};
  raw_syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, expected, limit.v < 0 ? nullptr : &t, nullptr,
              0);
}

void futex_wake_all(std::atomic<std::uint32_t>& word) {
  raw_syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace heaptier::os
