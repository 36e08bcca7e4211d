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

// The table itself, for the tests: ids and addresses are given.
class Table {
 public:
  static constexpr std::size_t kEntries = 16384;
  static constexpr std::size_t kProbes = 64;
  constexpr Table() = default;
  // False when no place is found within kProbes entries of the id's own.
  bool insert(std::uint32_t tid, const volatile std::int32_t* cpu_id);
  void erase(std::uint32_t tid);
  int lookup(std::uint32_t tid);
  void forget_all();

 private:
  struct Entry;
};

}  // namespace thread_cpu_internal
}  // namespace heaptier
