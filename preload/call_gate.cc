#include "preload/call_gate.h"

#include <atomic>

#include "preload/libc_callers.h"
#include "preload/process.h"
#include "runtime/engine.h"
#include "runtime/heap/gates.h"
#include "runtime/heap/mimalloc_heap.h"

namespace heaptier::preload {
namespace {

constinit std::atomic<bool> allowed{false};

void close_call_gate() {
  gates.other_malloc.store(nullptr, std::memory_order_relaxed);
  gates.call_bytes.store(~std::size_t{0}, std::memory_order_relaxed);
}

class Sink final : public ContentSink {
 public:
  bool drop(std::uintptr_t at, std::size_t bytes) override { return engine().drop(at, bytes); }
  void carved(std::size_t carved) override {
    engine().carved(carved);
    if (engine().wants_wake()) close_call_gate();
  }
};

constinit Sink the_sink;

}  // namespace

ContentSink& content_sink() {
  return the_sink;
}

void open_call_gate() {
  const CodeRange libc = libc_code();
  if (mode() == Mode::kJemalloc) {
    gates.call_start.store(libc.start, std::memory_order_relaxed);
    gates.call_bytes.store(libc.end - libc.start, std::memory_order_relaxed);
  } else if (mode() == Mode::kMimalloc) {
    gates.libc_start.store(libc.start, std::memory_order_relaxed);
    gates.libc_bytes.store(libc.end - libc.start, std::memory_order_relaxed);
    gates.other_malloc.store(mimalloc::functions().malloc, std::memory_order_release);
  }
}

void allow_waking() {
  allowed.store(true, std::memory_order_release);
}

void wake_if_wanted(std::uintptr_t caller) {
  if (!engine().wants_wake() || !allowed.load(std::memory_order_acquire)) return;
  if (is_system_caller(caller)) return;
  engine().wake();
  open_call_gate();
}

}  // namespace heaptier::preload
