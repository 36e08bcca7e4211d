#include "preload/call_gate.h"

#include <atomic>

#include "preload/libc_callers.h"
#include "preload/process.h"
#include "runtime/base/errno.h"
#include "runtime/engine.h"
#include "runtime/heap/gates.h"
#include "runtime/heap/jemalloc_heap.h"
#include "runtime/heap/mimalloc_heap.h"

namespace heaptier::preload {
namespace {

constinit std::atomic<bool> allowed{false};

// How long, in ms, jemalloc keeps freed memory for reuse once its pages are demoted (10 s before):
// until it says so, dead content is demoted like any other.
constexpr long kDirtyDecayAwake = 1000;

class Sink final : public ContentSink {
 public:
  bool drop(std::uintptr_t at, std::size_t bytes) override {
    ErrnoKeeper keep;
    return engine().drop(at, bytes);
  }
  void carved(std::size_t carved) override {
    ErrnoKeeper keep;
    engine().carved(carved);
    if (engine().wants_wake()) gates.close_calls();
  }
};

constinit Sink the_sink;

constinit std::atomic<bool> aside{false};
constinit thread_local bool aside_for_thread = false;

}  // namespace

HeapAside::HeapAside()
    : call_bytes_(gates.call_bytes.load(std::memory_order_relaxed)),
      givers_pass_(gates.givers_pass.load(std::memory_order_relaxed)),
      other_serves_(gates.other_serves.load(std::memory_order_relaxed)) {
  gates.close_calls();
  aside.store(true, std::memory_order_release);
}

HeapAside::~HeapAside() {
  aside.store(false, std::memory_order_release);
  gates.call_bytes.store(call_bytes_, std::memory_order_relaxed);
  gates.givers_pass.store(givers_pass_, std::memory_order_relaxed);
  gates.other_serves.store(other_serves_, std::memory_order_relaxed);
}

bool HeapAside::now() {
  return aside.load(std::memory_order_acquire);
}

// Everybody takes the long way meanwhile, where it is seen whose thread it is.
HeapAsideForThread::HeapAsideForThread()
    : was_open_(gates.givers_pass.load(std::memory_order_relaxed)) {
  aside_for_thread = true;
  gates.close_calls();
}

HeapAsideForThread::~HeapAsideForThread() {
  aside_for_thread = false;
  if (was_open_) open_call_gate();
}

bool HeapAsideForThread::now() {
  return aside_for_thread;
}

ContentSink& content_sink() {
  return the_sink;
}

void open_call_gate() {
  if (gates.memory_is_short.load(std::memory_order_relaxed)) return;
  const CodeRange libc = libc_code();
  if (mode() == Mode::kJemalloc) {
    gates.call_start.store(libc.start, std::memory_order_relaxed);
    gates.call_bytes.store(libc.end - libc.start, std::memory_order_relaxed);
  } else if (mode() == Mode::kMimalloc) {
    gates.libc_start.store(libc.start, std::memory_order_relaxed);
    gates.libc_bytes.store(libc.end - libc.start, std::memory_order_relaxed);
    gates.other_serves.store(&mimalloc::heap(), std::memory_order_release);
  }
  gates.givers_pass.store(true, std::memory_order_release);
  // Whoever had it closed meanwhile did so after saying why.
  if (gates.memory_is_short.load(std::memory_order_relaxed) || engine().wants_wake()) {
    gates.close_calls();
  }
}

void allow_waking() {
  allowed.store(true, std::memory_order_release);
}

void wake_if_wanted(std::uintptr_t caller) {
  if (!engine().wants_wake() || !allowed.load(std::memory_order_acquire)) return;
  if (is_system_caller(caller)) return;
  engine().wake();
  if (engine().state() == EngineState::kAwake) jemalloc::set_dirty_decay(kDirtyDecayAwake);
  open_call_gate();
}

}  // namespace heaptier::preload
