// The numbers heaptier keeps: counters the engine adds to, a snapshot of them with the gauges of
// the moment, and the two ways to show one (text whose columns add up, JSON). All from stats.def.
//
// Thread rule: Stats from any thread at any time, also in fault handlers (one relaxed atomic add).
// A snapshot belongs to its taker; taken while threads run, its numbers are each right but not all
// of the same instant.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "runtime/base/node_weights.h"
#include "runtime/pageblock.h"

namespace heaptier {

// stats.pages_parked.add(n)
class Counter {
 public:
  constexpr Counter() = default;
  void add(std::uint64_t n = 1) { value_.fetch_add(n, std::memory_order_relaxed); }
  std::uint64_t get() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

// Every counter as plain numbers and every gauge. The gauges are for the taker to fill in.
struct StatsSnapshot {
#define HEAPTIER_FLOW(name, ...) std::uint64_t name = 0;
#define HEAPTIER_COUNTER(name, ...) std::uint64_t name = 0;
#define HEAPTIER_GAUGE(name, ...) std::uint64_t name = 0;
#include "runtime/config/stats.def"
  std::uint32_t pid = 0;
  // Over the nodes that are interleaved over at this moment; without nodes: nothing is.
  NodeWeights interleave_weights;

  // Pages in state `s` now by the flows alone: all that came minus all that went.
  std::int64_t pages_by_flow(PageState s) const;
  // Sum over the states of the difference between that and the ledger (resident_pages ...). 0 when
  // every page is accounted for; meaningful only while no thread moves pages.
  std::uint64_t imbalance_pages() const;
};

// The counters. One object, constant-initialised, passed by reference. A forked child goes on from
// what it inherits, so that its flows still explain its pages.
class Stats {
 public:
  constexpr Stats() = default;
  Stats(const Stats&) = delete;
  Stats& operator=(const Stats&) = delete;

#define HEAPTIER_FLOW(name, ...) Counter name;
#define HEAPTIER_COUNTER(name, ...) Counter name;
#include "runtime/config/stats.def"

  // Copies the counters to *out; leaves its gauges alone.
  void read(StatsSnapshot* out) const;
};

enum class StatKind : std::uint8_t { kFlow, kCounter, kGauge };

// One row of stats.def.
struct StatInfo {
  const char* name;
  StatKind kind;
  const char* group;
  const char* unit;  // "pages" (of 4 KiB), "bytes", "ns", "count"
  const char* sums;  // words "=x" and "+x": see stats.def
  const char* help;
  PageState from;  // kFlow only
  PageState to;
  std::uint64_t StatsSnapshot::*value;
};
std::span<const StatInfo> stats_table();

// Whether the equation word ("+faults", "=faults") is among those of `sums`.
bool takes_part(const char* sums, std::string_view word);

// Room for either of the two below, whatever the numbers.
inline constexpr std::size_t kStatsTextBytes = 16384;

// Both follow snprintf: at most `size` bytes with the closing NUL are written, the result is the
// length the whole would have. Neither allocates. The text is at most 27 lines, each closed by
// '\n'.
std::size_t write_text(char* out, std::size_t size, const StatsSnapshot& snapshot);
// One JSON object, flat: "schema", "pid", every name of stats.def, and what follows from them
// ("imbalance_pages", "store_ratio").
std::size_t write_json(char* out, std::size_t size, const StatsSnapshot& snapshot);

}  // namespace heaptier
