#include "uffd/thread_cpu.h"

#include "uffd/patience.h"
#include "uffd/thread_door.h"

// Where glibc (2.35 and later) keeps the rseq area, from the thread pointer; size 0: it did not
// register one. Weak, so that an older glibc loads us and every thread is simply unknown.
extern "C" {
extern const std::ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned int __rseq_size __attribute__((weak));
}

namespace heaptier {
namespace thread_cpu_internal {
namespace {

constexpr std::uint64_t kOneReader = std::uint64_t{1} << 32;
constexpr std::uint64_t kReaders = std::uint64_t{0xff} << 32;
constexpr unsigned kGenerationShift = 40;
constexpr std::uint64_t kGenerations = (std::uint64_t{1} << (64 - kGenerationShift)) - 1;
constexpr std::uint32_t kFree = 0;           // nobody's id
constexpr std::uint32_t kBeingFilled = ~0u;  // nobody's either: ids have 22 bits

constexpr std::uint64_t make_key(std::uint64_t generation, std::uint32_t tid) {
  return (generation << kGenerationShift) | tid;
}
constexpr std::uint32_t id_of(std::uint64_t key) {
  return static_cast<std::uint32_t>(key);
}

}  // namespace

bool Table::insert(std::uint32_t tid, const volatile std::int32_t* cpu_id) {
  erase(tid);  // left behind by a thread that ended unannounced
  const std::uint64_t generation = generation_.load(std::memory_order_acquire);
  for (std::size_t probe = 0; probe < kProbes; ++probe) {
    Entry& e = slot(tid, probe);
    std::uint64_t key = e.key.load(std::memory_order_acquire);
    const bool reusable = id_of(key) == kFree || key >> kGenerationShift != generation;
    if (!reusable) continue;
    if (!e.key.compare_exchange_strong(key, make_key(generation, kBeingFilled),
                                       std::memory_order_acq_rel)) {
      continue;
    }
    e.cpu_id.store(cpu_id, std::memory_order_relaxed);
    e.key.store(make_key(generation, tid), std::memory_order_release);
    return true;
  }
  return false;
}

void Table::erase(std::uint32_t tid) {
  const std::uint64_t wanted = make_key(generation_.load(std::memory_order_acquire), tid);
  for (std::size_t probe = 0; probe < kProbes; ++probe) {
    Entry& e = slot(tid, probe);
    std::uint64_t key = e.key.load(std::memory_order_acquire);
    if (key == 0) return;
    if ((key & ~kReaders) != wanted) continue;
    // A reader holds its mark for a few instructions; it may be an idle-class thread that was
    // preempted there.
    for (Patience patience;; patience.pause()) {
      key = wanted;
      if (e.key.compare_exchange_weak(key, wanted & ~std::uint64_t{~0u},
                                      std::memory_order_acq_rel)) {
        return;
      }
    }
  }
}

int Table::lookup(std::uint32_t tid) {
  const std::uint64_t wanted = make_key(generation_.load(std::memory_order_acquire), tid);
  for (std::size_t probe = 0; probe < kProbes; ++probe) {
    Entry& e = slot(tid, probe);
    std::uint64_t key = e.key.load(std::memory_order_acquire);
    if (key == 0) return -1;
    while ((key & ~kReaders) == wanted) {
      if ((key & kReaders) == kReaders) return -1;  // 255 readers at once: not worth waiting for
      if (!e.key.compare_exchange_weak(key, key + kOneReader, std::memory_order_acq_rel)) continue;
      const std::int32_t cpu = *e.cpu_id.load(std::memory_order_relaxed);
      e.key.fetch_sub(kOneReader, std::memory_order_release);
      return cpu < 0 ? -1 : cpu;
    }
  }
  return -1;
}

void Table::forget_all() {
  const std::uint64_t next = (generation_.load(std::memory_order_relaxed) + 1) & kGenerations;
  generation_.store(next == 0 ? 1 : next, std::memory_order_release);
}

}  // namespace thread_cpu_internal

namespace {

// 256 KiB of BSS: only the pages that thread ids fall into are ever backed by memory.
constinit thread_cpu_internal::Table g_threads;

// Of the calling thread; nullptr: glibc registered none. struct rseq starts with cpu_id_start, then
// cpu_id.
const volatile std::int32_t* own_cpu_id() {
  if (&__rseq_size == nullptr || &__rseq_offset == nullptr || __rseq_size == 0) return nullptr;
  const auto area = reinterpret_cast<std::uintptr_t>(__builtin_thread_pointer()) +
                    static_cast<std::uintptr_t>(__rseq_offset);
  return reinterpret_cast<const volatile std::int32_t*>(area + sizeof(std::uint32_t));
}

}  // namespace

void note_thread_start() {
  if (const volatile std::int32_t* cpu_id = own_cpu_id(); cpu_id != nullptr) {
    g_threads.insert(door::thread_id(), cpu_id);
  }
}

void note_thread_exit() {
  g_threads.erase(door::thread_id());
}

int cpu_of(std::uint32_t tid) {
  return tid == 0 ? -1 : g_threads.lookup(tid);
}

void note_fork_in_child() {
  g_threads.forget_all();
  note_thread_start();
}

}  // namespace heaptier
