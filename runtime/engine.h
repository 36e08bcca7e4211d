// The engine: one object that owns the parts and their lives. Dormant until the heap is large
// enough or its budget near: then one background thread starts; userfaultfd is opened, and handlers
// start, when the first pageblock is to be demoted.
//
// Thread rule: as said at each method. The preload room calls it; the parts below do not know it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "runtime/arena.h"
#include "runtime/base/ports.h"
#include "runtime/base/spinlock.h"
#include "runtime/config/options.h"
#include "runtime/config/stats.h"
#include "runtime/heap/content.h"
#include "runtime/os/process.h"

namespace heaptier {

enum class EngineState : std::uint8_t {
  kOff,      // no engine: HEAPTIER_POLICY=none, or init failed
  kDormant,  // watching the size of the heap, nothing else
  kAwake,    // the background thread runs
  kRefused,  // woke and found that this host has no userfaultfd for us: said once, off for good
};

enum class Request : std::uint8_t;  // background.h
class Background;
struct HandBatch;

class Engine final : public ContentSink {
 public:
  constexpr Engine() = default;

  // Before any other thread exists or early in malloc; starts nothing. The references outlive the
  // engine.
  Errno init(MemoryOps& ops, Space& space, const Options& options, Stats& stats);
  EngineState state() const { return state_.load(std::memory_order_acquire); }

  // ContentSink: any thread, inside malloc.
  bool drop(std::uintptr_t at, std::size_t bytes) override;
  void carved(std::size_t bytes) override;
  // True when carved() has seen enough: call wake() from a place where malloc works.
  bool wants_wake() const { return wants_wake_.load(std::memory_order_relaxed); }
  // Starts the background thread. Any thread, not inside malloc. Cheap when awake.
  void wake();

  // The application is about to do something with this range that heaptier cannot follow (mprotect,
  // mlock, mremap, MAP_FIXED): everything in it is brought back, and its pageblocks are not demoted
  // until restored() or freed. Any thread; touches the pages. Range inside the Space.
  void surrender(std::uintptr_t at, std::size_t bytes);
  // The application has undone it (mprotect to read and write, munlock).
  void restored(std::uintptr_t at, std::size_t bytes);
  // The same, counted, for memory that the kernel touches where no fault is served, and for
  // HEAPTIER_PIN.
  void pin(std::uintptr_t at, std::size_t bytes);
  void unpin(std::uintptr_t at, std::size_t bytes);
  // pin() until the thread of this process is gone (seen by the background thread). With more than
  // 512 such threads alive: for good.
  void pin_for_thread(std::uint32_t tid, std::uintptr_t at, std::size_t bytes);
  void release_dead_threads_pins();
  // The application locks all of its memory: everything comes home and tiering ends, with a line on
  // standard error.
  void retire();
  // A thread has asked for a place of its own for its new memory (set_mempolicy). When this returns
  // the heap has no policy any more that would come before, but where it is interleaved or drained,
  // where the engine sleeps in a forked child, or if that takes more than a tenth of a second.
  void let_threads_place();
  bool threads_place() const { return threads_place_.load(std::memory_order_seq_cst); }
  // The range was unmapped or replaced by the application: forget what was stored for it, leave the
  // mapping alone.
  void forget(std::uintptr_t at, std::size_t bytes);
  // madvise on memory of the Space. True: handled, *result is what the caller returns (0 or an
  // errno constant).
  bool app_advise(std::uintptr_t at, std::size_t bytes, int advice, int* result);

  // fork, in this order: stop, the heap's own prepare, freeze, the clone; in the parent thaw, the
  // heap's release, go_on; in the child the heap's release, then child. See fork.cc.
  void fork_stop();
  void fork_freeze();
  void fork_thaw();
  void fork_go_on();
  // stacks_reclaimed: libc knows that the parent's threads are gone, and has let go of their
  // stacks.
  void fork_child(bool stacks_reclaimed);

  // A heap was declared user-only. Has its effect on fault handling if the engine has not woken
  // yet.
  void expect_user_only() { user_only_.store(true, std::memory_order_relaxed); }

  // The C interface (heaptier.h). Results as there.
  int where(std::uintptr_t at, std::size_t bytes, unsigned char* places);
  // tier: of kParkLazily.
  int request(Request what, std::uintptr_t at, std::size_t bytes, unsigned tier = 0);
  int fetch(std::uintptr_t at, std::size_t bytes);
  int advise(std::uintptr_t at, std::size_t bytes, int advice);
  // These in hand_calls.cc. The arrays may be in managed memory.
  int tiers() const;
  const char* tier_name(int tier) const;  // null: no such tier
  int move(void* const* pages, const int* tiers, int* status, std::size_t count, unsigned flags);
  int move_lazily(std::uintptr_t at, std::size_t bytes, int tier);
  int nodes(std::uintptr_t at, std::size_t bytes, int* nodes);
  int drain(int node);
  int undrain(int node);

  // Fills in every number. Any thread.
  void snapshot(StatsSnapshot* out);
  // The report that HEAPTIER_STATS asks for, once, if this process is to report.
  void report_at_exit();

 private:
  // Null unless awake.
  Background* background() const {
    return state() == EngineState::kAwake ? background_.load(std::memory_order_acquire) : nullptr;
  }
  void wake_up();
  void refuse(const char* line);
  void refuse(Errno e);
  int bring_back(std::uintptr_t at, std::size_t bytes);
  // Within the Space.
  bool manages(std::uintptr_t at, std::size_t bytes) const;
  int warm(std::uintptr_t at, std::size_t bytes);
  int interleave(std::uintptr_t at, std::size_t bytes);
  void end_interleaving(std::uintptr_t at, std::size_t bytes);
  // Has the background thread serve the batch, and fetches what it needs fetched for that.
  void serve(Background& bg, HandBatch& batch);
  int ask_of_node(Request what, int node);
  enum class Hold : std::uint8_t { kPin, kUnpin, kSurrender, kRestore };
  void hold(Hold what, std::uintptr_t at, std::size_t bytes);
  static void hold_in(Background& bg, Hold what, std::uintptr_t at, std::size_t bytes);

  std::atomic<EngineState> state_{EngineState::kOff};
  std::atomic<bool> wants_wake_{false};
  std::atomic<std::uint64_t> wake_at_{UINT64_MAX};
  std::atomic<bool> reported_{false};
  os::KeptDescriptor report_to_;
  std::atomic<bool> user_only_{false};
  std::atomic<bool> threads_place_{false};
  std::atomic<Background*> background_{nullptr};
  MemoryOps* ops_ = nullptr;
  Space* space_ = nullptr;
  const Options* options_ = nullptr;
  Stats* stats_ = nullptr;
  SpinLock waking_;
  // Ranges surrendered before there is a table to note them in. What does not fit is demoted like
  // the rest, and then the kernel's refusals have to do.
  struct EarlyPin {
    std::uintptr_t at;
    std::size_t bytes;
    Hold what;
  };
  static constexpr std::size_t kEarlyPins = 256;
  SpinLock pins_lock_;
  struct ThreadPin {
    std::uint32_t tid;  // 0: free
    std::uintptr_t at;
    std::size_t bytes;
  };
  static constexpr std::size_t kThreadPins = 512;
  ThreadPin thread_pins_[kThreadPins] = {};
  std::atomic<std::uint32_t> thread_pin_count_{0};
  EarlyPin early_pins_[kEarlyPins] = {};
  Nanos started_{};
  Nanos woke_{};
  Nanos fork_began_{};
};

Engine& engine();

}  // namespace heaptier
