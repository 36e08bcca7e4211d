// On which CPU does a thread run? Answered without a system call from the thread's rseq area, which
// the kernel keeps up to date and glibc (2.35) registers for every thread.
//
// A fixed, lock-free table thread id -> address of its cpu_id field. A thread enters itself when it
// starts and leaves before it ends; a thread that did neither is simply unknown (the handler then
// floats).
//
// Why the read is safe: who is looked up is asleep in its fault, so its thread-local storage is
// alive. That alone would not do for a thread of another process that reads our memory and happens
// to have the same number in its own pid namespace; so a reader also marks the entry, and
// note_thread_exit() waits (nanoseconds) for the mark to go.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace heaptier {

// For the calling thread. Any thread, any time, twice is once. No memory is allocated; a full table
// is ignored.
void note_thread_start();
// For the calling thread, before its thread-local storage goes away.
void note_thread_exit();
// -1: unknown.
int cpu_of(std::uint32_t tid);

// In a fork's child: only the calling thread is left, and it has a new id. Entries of the parent's
// threads are forgotten, the caller is entered.
void note_fork_in_child();

namespace thread_cpu_internal {

// The table itself, apart from the calling thread, for the tests.
class Table {
 public:
  static constexpr std::size_t kEntries = 16384;
  static constexpr std::size_t kProbes = 64;
  constexpr Table() = default;
  // False when no place is free within kProbes entries of the id's own. An entry of the same id is
  // replaced.
  bool insert(std::uint32_t tid, const volatile std::int32_t* cpu_id);
  void erase(std::uint32_t tid);
  // The value at the id's address; -1 when the id is unknown or the value negative.
  int lookup(std::uint32_t tid);
  // Everything at once, also entries that a vanished reader has marked.
  void forget_all();

 private:
  // key: id in bits 0..31, readers in 32..39, generation in 40..63. 0: never used, ends a search.
  // Id 0: free again.
  struct Entry {
    std::atomic<std::uint64_t> key{0};
    std::atomic<const volatile std::int32_t*> cpu_id{nullptr};
  };
  Entry& slot(std::uint32_t tid, std::size_t probe) { return entries_[(tid + probe) % kEntries]; }
  std::atomic<std::uint64_t> generation_{1};
  Entry entries_[kEntries];
};

}  // namespace thread_cpu_internal
}  // namespace heaptier
