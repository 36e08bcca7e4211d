// The application's own mappings work as ever, and so do its calls on memory of the heap's.
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <csetjmp>
#include <csignal>
#include <cstdint>

#include "preload/mapping_flags.h"
#include "tests/preload/abi/check.h"

static_assert(heaptier::preload::kMapShared == MAP_SHARED);
static_assert(heaptier::preload::kMapFixed == MAP_FIXED);
static_assert(heaptier::preload::kMapAnonymous == MAP_ANONYMOUS);
static_assert(heaptier::preload::kMapHugetlb == MAP_HUGETLB);
static_assert(heaptier::preload::kMremapFixed == MREMAP_FIXED);
static_assert(heaptier::preload::kProtReadWrite == (PROT_READ | PROT_WRITE));
static_assert(heaptier::preload::kPosixDontNeed == POSIX_MADV_DONTNEED);

namespace {

constexpr std::size_t kPage = 4096;

sigjmp_buf back;
void jump(int) {
  siglongjmp(back, 1);
}

bool faults(volatile char* p) {
  struct sigaction action = {};
  struct sigaction old = {};
  action.sa_handler = jump;
  sigaction(SIGSEGV, &action, &old);
  bool faulted = true;
  if (sigsetjmp(back, 1) == 0) {
    *p = 1;
    faulted = false;
  }
  sigaction(SIGSEGV, &old, nullptr);
  return faulted;
}

}  // namespace

GROUP(mappings_of_its_own) {
  char* p = static_cast<char*>(
      mmap(nullptr, 8 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  CHECK(p != MAP_FAILED);
  std::memset(p, 1, 8 * kPage);
  CHECK(mprotect(p, kPage, PROT_NONE) == 0 && faults(p));
  CHECK(mprotect(p, kPage, PROT_READ | PROT_WRITE) == 0 && !faults(p));
  CHECK(madvise(p, kPage, MADV_DONTNEED) == 0 && p[0] == 0);
  CHECK(posix_madvise(p + kPage, kPage, POSIX_MADV_DONTNEED) == 0 && p[kPage] == 1);
  CHECK(posix_madvise(p + 1, kPage, POSIX_MADV_SEQUENTIAL) == EINVAL);
  CHECK(mlock(p, kPage) == 0 || errno == EPERM || errno == ENOMEM);
  CHECK(munlock(p, kPage) == 0 || errno == EPERM || errno == ENOMEM);
  p = static_cast<char*>(mremap(p, 8 * kPage, 64 * kPage, MREMAP_MAYMOVE));
  CHECK(p != MAP_FAILED && p[kPage] == 1 && p[63 * kPage] == 0);
  char* target = static_cast<char*>(
      mmap64(nullptr, 64 * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  CHECK(mremap(p, 64 * kPage, 64 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, target) == target);
  CHECK(target[kPage] == 1);
  CHECK(munmap(target, 64 * kPage) == 0);
  errno = 0;
  CHECK(mmap(nullptr, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED &&
        errno == EINVAL);
  errno = 0;
  CHECK(madvise(reinterpret_cast<void*>(kPage + 1), kPage, MADV_DONTNEED) == -1 && errno == EINVAL);
}

GROUP(heap_memory_protected) {
  char* p = static_cast<char*>(aligned_alloc(kPage, 64 * kPage));
  std::memset(p, 5, 64 * kPage);
  CHECK(mprotect(p + kPage, kPage, PROT_NONE) == 0);
  CHECK(faults(p + kPage) && !faults(p));
  CHECK(mprotect(p + kPage, kPage, PROT_READ) == 0);
  CHECK(p[kPage] == 5 && faults(p + kPage));
  CHECK(mprotect(p + kPage, kPage, PROT_READ | PROT_WRITE) == 0);
  CHECK(!faults(p + kPage) && p[2 * kPage] == 5);
  std::free(p);
}

GROUP(heap_memory_advised) {
  char* p = static_cast<char*>(aligned_alloc(kPage, 1024 * kPage));
  std::memset(p, 5, 1024 * kPage);
  errno = 77;
  CHECK(madvise(p, 100 * kPage, MADV_DONTNEED) == 0 && errno == 77);
  CHECK(p[0] == 0 && p[100 * kPage - 1] == 0 && p[100 * kPage] == 5);
  CHECK(madvise(p + 200 * kPage, kPage + 1, MADV_DONTNEED) == 0);
  CHECK(p[200 * kPage] == 0 && p[202 * kPage - 1] == 0 && p[202 * kPage] == 5);
  CHECK(madvise(p + 300 * kPage, kPage, MADV_WILLNEED) == 0 && p[300 * kPage] == 5);
  errno = 0;
  CHECK(madvise(p + 1, kPage, MADV_DONTNEED) == -1 && errno == EINVAL);
  errno = 0;
  CHECK(madvise(p, kPage, 12345) == -1 && errno == EINVAL);
  std::free(p);
}

GROUP(heap_memory_locked) {
  char* p = static_cast<char*>(aligned_alloc(kPage, 16 * kPage));
  std::memset(p, 5, 16 * kPage);
  if (mlock(p, 4 * kPage) != 0) {
    std::free(p);
    throw abi::Skipped{"mlock is not allowed here"};
  }
  CHECK(p[0] == 5);
  std::free(p);  // locked memory that is freed, reused and trimmed
  for (int i = 0; i < 100; ++i) {
    char* q = static_cast<char*>(std::calloc(16, kPage));
    for (std::size_t k = 0; k < 16 * kPage; k += 512) CHECK(q[k] == 0);
    std::memset(q, 6, 16 * kPage);
    std::free(q);
  }
  CHECK(munlock(p, 4 * kPage) == 0);
}

GROUP(heap_memory_replaced) {
  char* p = static_cast<char*>(aligned_alloc(kPage, 16 * kPage));
  std::memset(p, 5, 16 * kPage);
  void* at = mmap(p + kPage, 2 * kPage, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  CHECK(at == p + kPage && p[kPage] == 0 && p[0] == 5 && p[3 * kPage] == 5);
  std::memset(p, 6, 16 * kPage);
  CHECK(mmap(p, kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) ==
        MAP_FAILED);
  CHECK(p[0] == 6);
  std::free(p);
}
