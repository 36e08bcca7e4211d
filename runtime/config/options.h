// The options: typed values, one parser for the environment and the command line, one wording for
// what is wrong. Usable before main in a preloaded library: no allocation, no locale, no stdio,
// nothing to construct.
//
// Thread rule: free functions on the caller's objects; no shared state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "runtime/base/node_set.h"
#include "runtime/base/node_weights.h"
#include "runtime/config/diagnostics.h"

namespace heaptier {

enum class OptionId : std::uint8_t {
#define HEAPTIER_OPTION(NAME, Id, ...) k##Id,
#include "runtime/config/options.def"
  kCount
};
inline constexpr std::size_t kOptionCount = static_cast<std::size_t>(OptionId::kCount);

// One row of options.def.
struct OptionInfo {
  OptionId id;
  const char* name;      // "FAST"
  const char* env;       // "HEAPTIER_FAST"
  const char* flag;      // "fast"
  const char* bare;      // value of a flag standing alone, or nullptr
  const char* fallback;  // the default, as the user would write it
  const char* accepted;
  const char* help;
};
std::span<const OptionInfo, kOptionCount> option_table();
const OptionInfo& option_info(OptionId id);

// What home and park together may hold.
struct FastBudget {
  enum class Kind : std::uint8_t { kAuto, kBytes, kPercent };
  Kind kind = Kind::kAuto;
  std::uint64_t bytes = 0;    // kBytes
  std::uint32_t percent = 0;  // kPercent: 1..100, of the heap carved
  friend bool operator==(const FastBudget&, const FastBudget&) = default;
};

// dram, cxl and pmem are memory of nodes, zpool is a store.
enum class TierKind : std::uint8_t { kDram, kCxl, kPmem, kZpool };
const char* to_string(TierKind kind);
struct TierSpec {
  TierKind kind = TierKind::kDram;
  // 0: the tier's default (zpool: half of physical memory; nodes: all that they have). More than
  // the nodes have means what they have (topology/ranking.h).
  std::uint64_t capacity_bytes = 0;
  NodeSet nodes;  // none: dram's are those that are fastest (topology/ranking.h)
  friend bool operator==(const TierSpec&, const TierSpec&) = default;
};
inline constexpr std::size_t kMaxTiers = 8;
// The demotion chain, fastest first; always starts with dram, and a zpool comes last. No tier and
// no node is in it twice. Whether this machine has the nodes is topology/chain.h's to say.
struct TierChain {
  TierSpec tiers[kMaxTiers] = {{TierKind::kDram, 0, {}}, {TierKind::kZpool, 0, {}}};
  std::uint32_t count = 2;
  // The machine's own tiers are asked for: settle_tiers() fills them in.
  bool automatic = false;
  // nullptr when the chain has no such tier.
  const TierSpec* find(TierKind kind) const {
    for (std::uint32_t i = 0; i < count; ++i) {
      if (tiers[i].kind == kind) return &tiers[i];
    }
    return nullptr;
  }
  // There is more than one place for a page: another tier, or several nodes that are each near to
  // some threads (policies/balance.h).
  bool leads_anywhere() const { return count > 1 || tiers[0].nodes.count() > 1; }
  bool names_nodes() const {
    for (std::uint32_t i = 0; i < count; ++i) {
      if (!tiers[i].nodes.empty()) return true;
    }
    return false;
  }
  friend bool operator==(const TierChain&, const TierChain&) = default;
};

enum class HeapKind : std::uint8_t { kJemalloc, kMimalloc, kNone };
enum class PolicyKind : std::uint8_t { kHotset, kInterleave, kNone };
struct PolicySpec {
  PolicyKind kind = PolicyKind::kHotset;
  NodeWeights weights;  // kInterleave: as given; none: those that follow from the nodes' bandwidths
  friend bool operator==(const PolicySpec&, const PolicySpec&) = default;
};
enum class HugeMode : std::uint8_t { kAuto, kAlways, kNever };
enum class FaultMode : std::uint8_t { kHandler, kInline };
// How a page is made to tell of its next touch: kAuto, parked where the host allows that, else
// hidden (protection.h) where the application has said that no system call touches it. kDamon,
// kPerf: it is not, the kernel or the processor tells what is used (sampling/).
enum class SamplerKind : std::uint8_t { kAuto, kPark, kProtnone, kDamon, kPerf };
enum class ControlMode : std::uint8_t { kOn, kOff };

struct CodecSpec {
  enum class Kind : std::uint8_t { kLz4, kZstd };
  Kind kind = Kind::kLz4;
  int level = 0;  // zstd: 1..19
  friend bool operator==(const CodecSpec&, const CodecSpec&) = default;
};

// Longest folder that control sockets may lie below: the name of a socket has 108 characters in
// all.
inline constexpr std::size_t kMaxRuntimeDir = 80;   // with the closing NUL
inline constexpr std::size_t kMaxStatsPath = 1024;  // with the closing NUL
struct StatsOutput {
  enum class Kind : std::uint8_t { kOff, kText, kJson };
  Kind kind = Kind::kOff;
  char path[kMaxStatsPath] = {};  // kJson: as given, %p not yet replaced (expand_stats_path)
  friend bool operator==(const StatsOutput&, const StatsOutput&) = default;
};

enum class OptionSource : std::uint8_t { kDefault, kEnvironment, kRefused };

struct Options {
  FastBudget fast;
  TierChain tiers;
  HeapKind heap = HeapKind::kJemalloc;
  PolicySpec policy;
  CodecSpec codec;
  HugeMode huge = HugeMode::kAuto;
  FaultMode fault = FaultMode::kHandler;
  SamplerKind sampler = SamplerKind::kAuto;
  std::uint32_t handlers = 0;                          // 0: auto
  std::uint64_t wake_bytes = std::uint64_t{64} << 20;  // 0: at once
  std::uint32_t hint_budget = 100;                     // hundredths of a percent of one CPU
  ControlMode control = ControlMode::kOn;
  StatsOutput stats;
  bool verbose = false;
  bool disable = false;

  // Internal: the process that reports (0: every process). From HEAPTIER_STATS_PID.
  std::uint32_t stats_pid = 0;
  // Of the session that the program was started in (XDG_RUNTIME_DIR). Empty: there is none, it is
  // no absolute path, or it is too long for a socket's name.
  char runtime_dir[kMaxRuntimeDir] = {};
  // Where each value came from; kRefused: the default, because what was given was not accepted.
  OptionSource source[kOptionCount] = {};

  // Whether pages may be asked to move between memory nodes.
  bool moves_between_nodes() const {
    return tiers.names_nodes() || policy.kind == PolicyKind::kInterleave;
  }
  // Whether process `pid` is to report at exit.
  bool reports(std::uint32_t pid) const {
    return stats.kind != StatsOutput::Kind::kOff && (stats_pid == 0 || stats_pid == pid);
  }
};

// Why a value was refused; `reason` is nullptr when "accepted: ..." says all there is to say.
struct [[nodiscard]] ParseResult {
  bool ok = true;
  const char* reason = nullptr;
};

// Parses `value` as option `id` into its field of *out. On refusal *out is unchanged.
ParseResult parse_option(OptionId id, std::string_view value, Options* out);

// The line about a variable's value that was refused: name, value, reason (may be nullptr), what is
// accepted and what is used instead.
void tell_refusal(OptionId id, std::string_view value, const char* reason,
                  Diagnostics* diagnostics);

// Reads every HEAPTIER_* variable of `envp` (NULL-terminated, may be nullptr). What is wrong costs
// one line in *diagnostics each, never the start: a bad value leaves the default, an unknown name
// is passed over. An empty value counts as not set.
void parse_environment(const char* const* envp, Options* out, Diagnostics* diagnostics);

// The option with this flag ("hint-budget") or variable ("HEAPTIER_FAST"); kCount: none.
OptionId find_flag(std::string_view flag);
OptionId find_variable(std::string_view env);
// The closest of all by edit distance, or kCount when none is close enough to be worth naming.
OptionId nearest_flag(std::string_view flag);
OptionId nearest_variable(std::string_view env);

// The value of one option as the user would write it. snprintf's rules for `out`, `size` and the
// result.
std::size_t format_option(OptionId id, const Options& options, char* out, std::size_t size);
// One line an option: name, value, source. snprintf's rules.
std::size_t format_effective(const Options& options, char* out, std::size_t size);

// Replaces %p by the process id (%% by %). False when it does not fit.
[[nodiscard]] bool expand_stats_path(const StatsOutput& stats, std::uint32_t pid, char* out,
                                     std::size_t size);

// "512M", "2GiB", "1.5G", "0": units are powers of 1024. False: no unit, nonsense, or over 2^63.
[[nodiscard]] bool parse_size(std::string_view text, std::uint64_t* bytes);

}  // namespace heaptier
