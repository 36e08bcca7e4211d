// The life of the background thread: waking, opening userfaultfd, starting handlers, rounds of the
// tiering loop, requests of other threads, standing still for fork. Everything the engine has while
// it is awake.
//
// Thread rule: the public methods from any thread unless said otherwise.
#pragma once

#include <atomic>
#include <cstdint>

#include "runtime/base/ports.h"
#include "runtime/config/options.h"
#include "runtime/content.h"
#include "runtime/control.h"
#include "runtime/core.h"
#include "runtime/drain.h"
#include "runtime/dual_port.h"
#include "runtime/fault_service.h"
#include "runtime/hand_moves.h"
#include "runtime/interleave.h"
#include "runtime/kernel_balancing.h"
#include "runtime/limit_watch.h"
#include "runtime/machine_look.h"
#include "runtime/migration.h"
#include "runtime/node_loop.h"
#include "runtime/os/kernel_events.h"
#include "runtime/os/kernel_files.h"
#include "runtime/os/kernel_nodes.h"
#include "runtime/sampling/damon_sampler.h"
#include "runtime/sampling/perf_sampler.h"
#include "runtime/tiering_loop.h"
#include "runtime/tiers/zpool.h"
#include "uffd/fault_loop.h"
#include "uffd/shard.h"

namespace heaptier {

// What other threads ask of the background thread.
enum class Request : std::uint8_t {
  kPark,
  kDemote,
  kRetire,  // only to have the thread between two steps: it sees Core::retired from then on
  kMove,    // a batch (hand_moves.h)
  kCool,
  kWarm,
  kParkLazily,
  kDrain,    // of these the page is a node's number (drain.h)
  kDrained,  // pages left, or -EAGAIN: it goes on; -ECANCELED: nobody asked, or it was ended
  kUndrain,
  kSpread,  // interleave.h
};

struct Asked {
  Request what = Request::kRetire;
  PageIndex first{};
  std::uint32_t pages = 0;
  unsigned tier = 0;           // kParkLazily
  HandBatch* batch = nullptr;  // kMove; not in managed memory
};

// Faults that application threads resolve themselves wait while a fork is under way, like drops.
class GatedSink final : public FaultSink {
 public:
  GatedSink(OperationGate& gate, FaultSink& inner, Stats& stats)
      : gate_(gate), inner_(inner), stats_(stats) {}
  FaultReply on_fault(const FaultEvent& event, unsigned worker) override {
    gate_.enter();
    const FaultReply reply = inner_.on_fault(event, worker);
    gate_.leave();
    if (reply.verdict == FaultVerdict::kWake) stats_.faults_inline.add();
    return reply;
  }

 private:
  OperationGate& gate_;
  FaultSink& inner_;
  Stats& stats_;
};

class Background final : public LoopHost, private SlotMover {
 public:
  Background(MemoryOps& ops, Space& space, const Options& options, Stats& stats)
      : core_(space, table_, ops, stats), options_(options) {}

  // Everything that can fail for lack of memory. Starts nothing.
  Errno prepare();
  // Starts the thread and waits until it has found out whether this host lets us have a
  // userfaultfd. EPERM and the like: it does not; the thread has ended.
  Errno start();

  // Hands work to the thread and waits for its result (pages, or a negative errno).
  int ask(const Asked& asked);
  // Has the thread look at the heap now.
  void kick();
  // The heap has grown past its budget: returns when what was carved is registered, or after a
  // bounded time. Allocates nothing, needs no lock that the thread could be waiting for longer than
  // that.
  void await_registration();

  // A thread wants its memory policy to be heeded (Engine::let_threads_place): returns when it is,
  // or after a bounded time.
  void await_heeded();

  // Between the two nobody changes a page, and no fault is served; the caller must not need one.
  void hold_still();
  void let_go();

  // The four steps of fork.cc. stop: the thread stands still (the heap must still work: it may be
  // starting a thread). freeze: nobody changes a page any more (the heap is locked). thaw and
  // go_on: the reverse, in the parent.
  void stop_moving();
  void freeze();
  void thaw();
  void go_on();
  // The process is about to end.
  void hurry() {
    faults_.hurry();
    const bool reached = control_.leave();
    const bool sampled = damon_.leave();
    if (reached || sampled) kick();
    if (reached) control_.await_left();
    if (sampled) damon_.await_left();
  }
  // In the child: what threads held that are not there.
  void forget_others();
  // In the child, instead of the next, where nothing has ever been demoted: ready for start() when
  // the child wakes.
  void sleep_in_child(bool stacks_reclaimed);
  bool serving() const {
    return inline_mode() || core_.protection != nullptr ? serving_inline_ : faults_.running();
  }
  // In the child: faults are served again when it returns true. False: every page is at home, for
  // good.
  bool restart_in_child(bool stacks_reclaimed);

  Core& core() { return core_; }
  OperationGate& gate() { return gate_; }
  ZPool& zpool() { return zpool_; }
  const TieringLoop& loop() const { return loop_; }
  const NodeLoop& node_loop() const { return node_loop_; }
  // The background thread's.
  Drain& drain() { return drain_; }
  const Interleave& interleave() const { return interleave_; }
  void read_samplers(StatsSnapshot* out) const {
    damon_.read(out);
    perf_.read(out);
  }
  LoopStats fault_stats() const { return faults_.running() ? faults_.stats() : LoopStats{}; }
  Nanos cpu_time() const { return {cpu_time_.load(std::memory_order_relaxed)}; }
  Source source() const { return source_; }

  bool between_steps() override;
  bool ready_for_faults() override;
  // HEAPTIER_FAULT=inline: all faults are resolved by the threads that have them.
  bool inline_mode() const { return options_.fault == FaultMode::kInline; }
  // The application has heaps that it declared user-only: theirs are. To be said before start();
  // later such memory is served by handlers, like any other.
  void expect_user_only() { user_only_ = true; }
  // A touch of this page from a system call would get EFAULT. Where pages are parked.
  bool resolved_inline(std::uintptr_t at) const { return dual_.is_inline(at); }

 private:
  static constexpr unsigned kInlineWorkers = 8;
  static constexpr unsigned kSlots = 16;
  struct Slot {
    std::atomic<std::uint32_t> state{0};  // 0 free, 1 being filled, 2 asked, 3 answered
    Asked asked;
    int result = 0;
  };

  bool relocate(PageIndex owner, SlotId from, SlotId to) override;
  void compact_pool(Nanos now);
  static void* thread_main(void* self);
  void run();
  void rounds();
  Errno open_port();
  Errno use_userfaultfd();
  Errno use_protection();
  bool use_sampler(SamplerKind kind);
  bool use_asked_sampler();
  bool use_any_sampler();
  const char* why_no_sampler() const;
  void give_notice() const;
  Errno start_faults(bool in_child);
  Errno start_inline(unsigned first_worker);
  bool some_inline() const { return inline_mode() || user_only_; }
  Errno open_ports();
  void close_ports();
  Errno make_workers(unsigned count);
  bool serve_requests();
  int serve(const Asked& asked);
  void retired_round();
  void stand_still();
  MemorySituation machine_now();
  void adopt_inherited_pages();
  bool register_inherited();
  void bring_everything_home();
  Errno start_thread();
  // The round of a chain of several tiers of nodes.
  void place_or_store(Nanos now);
  void begin_interleaving();
  // Where the heap is interleaved as a whole and there is no chain of nodes to keep the books of.
  bool only_interleaves() const {
    return core_.nodes == nullptr && options_.policy.kind == PolicyKind::kInterleave;
  }
  void tick(Nanos now);
  Nanos pause_length() const {
    if (only_interleaves()) return seconds(1);
    return core_.nodes != nullptr && !pressed_ ? node_loop_.pause_length() : loop_.pause_length();
  }

  PageblockTable table_;
  ZPool zpool_;
  Core core_;
  const Options& options_;
  // In the threads' own descriptor table, or, once application threads resolve faults, in that of
  // the application.
  ShardedPort port_;
  ShardedPort inline_port_;
  DualPort dual_{core_.space, core_.park_base};
  bool user_only_ = false;
  Protection protection_{core_.space, core_.ops};
  FaultLoop faults_;
  FaultService service_{core_};
  Worker own_{};
  Worker* workers_ = nullptr;
  unsigned shards_ = 1;
  unsigned lanes_ = 1;
  LargePages large_pages_{core_.ops, kernel_files()};
  Migration migration_{core_, own_};
  TieringLoop loop_{core_, migration_, *chosen_policy(), options_, *this};
  NodeTiers nodes_;
  NodeLoop node_loop_{core_, migration_, options_, *this};
  KernelEvents events_;
  DamonSampler damon_{kernel_files(), events_, core_.stats};
  KernelThreadEvents thread_events_;
  PerfSampler perf_{kernel_files(), thread_events_, core_.stats};
  LimitWatch limit_;
  bool pressed_ = false;
  Nanos next_books_{};
  HandMoves hand_{core_, migration_, loop_, *this, options_.tiers};
  HeapPolicy heap_policy_{kernel_files(), kernel_node_ops()};
  Drain drain_{core_,          migration_,   *this,         kernel_node_ops(),
               kernel_files(), heap_policy_, options_.tiers};
  Interleave interleave_{core_,          migration_,   *this,  kernel_node_ops(),
                         kernel_files(), heap_policy_, drain_, options_};
  KernelBalancing balancing_{kernel_files(), heap_policy_};
  Control control_{core_.stats};
  OperationGate gate_;
  GatedSink gated_{gate_, service_, core_.stats};
  bool serving_inline_ = false;
  Slot slots_[kSlots];
  Source source_ = Source::kNone;
  void* own_stack_ = nullptr;
  void* worker_stacks_ = nullptr;
  std::size_t stack_bytes_ = 0;

  // Growth announced and seen to. The second is a futex.
  std::atomic<std::uint32_t> growth_asked_{0};
  std::atomic<std::uint32_t> growth_seen_{0};
  // 0: not yet; 1: ready; 2: refused. Futex.
  std::atomic<std::uint32_t> startup_{0};
  int startup_error_ = 0;
  // What is not as the options ask, found out by the thread as it starts.
  enum class Notice : std::uint8_t { kNone, kNoChain, kNoStore, kNotParked, kToldOnly };
  Notice notice_ = Notice::kNone;
  Errno not_parked_{};
  const char* no_sampler_ = nullptr;               // why the one that was asked for cannot be had
  SamplerKind used_sampler_ = SamplerKind::kAuto;  // kDamon or kPerf, once one tells
  // Futex: 0 run, 1 asked to stand still, 2 standing still.
  std::atomic<std::uint32_t> still_{0};
  bool in_child_ = false;
  std::atomic<std::int64_t> cpu_time_{0};
  Nanos last_look_{};
  Nanos last_way_given_{};
  Nanos next_compaction_{};
  Nanos next_pin_look_{};
  MachineLook machine_look_;
  MemorySituation machine_{};
  std::uint64_t faults_seen_ = 0;
  Nanos faults_seen_at_{};

  Policy* chosen_policy() const;
};

}  // namespace heaptier
