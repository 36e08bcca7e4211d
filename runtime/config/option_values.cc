#include "runtime/config/option_values.h"

#include <cstring>

#include "runtime/base/words.h"

namespace heaptier {
namespace config {
namespace {

constexpr std::uint64_t kMaxSize = std::uint64_t{1} << 63;
// Below this a budget could not hold the batches that pages leave in.
constexpr std::uint64_t kMinFastBytes = std::uint64_t{1} << 20;
constexpr std::uint64_t kMinTierBytes = std::uint64_t{1} << 20;

constexpr ParseResult kAccepted{};
constexpr ParseResult refuse(const char* reason = nullptr) {
  return {false, reason};
}

bool strip_suffix(std::string_view* text, std::string_view suffix) {
  if (!text->ends_with(suffix)) return false;
  text->remove_suffix(suffix.size());
  return true;
}

template <class T>
struct Word {
  const char* text;
  T value;
};
constexpr Word<HeapKind> kHeaps[] = {{"jemalloc", HeapKind::kJemalloc},
                                     {"mimalloc", HeapKind::kMimalloc},
                                     {"none", HeapKind::kNone}};
constexpr Word<PolicyKind> kPolicies[] = {{"hotset", PolicyKind::kHotset},
                                          {"interleave", PolicyKind::kInterleave},
                                          {"none", PolicyKind::kNone}};
constexpr Word<HugeMode> kHugeModes[] = {
    {"auto", HugeMode::kAuto}, {"always", HugeMode::kAlways}, {"never", HugeMode::kNever}};
constexpr Word<FaultMode> kFaultModes[] = {{"handler", FaultMode::kHandler},
                                           {"inline", FaultMode::kInline}};
constexpr Word<SamplerKind> kSamplers[] = {{"auto", SamplerKind::kAuto},
                                           {"park", SamplerKind::kPark},
                                           {"protnone", SamplerKind::kProtnone},
                                           {"damon", SamplerKind::kDamon},
                                           {"perf", SamplerKind::kPerf}};
constexpr Word<ControlMode> kControlModes[] = {{"on", ControlMode::kOn},
                                               {"off", ControlMode::kOff}};
constexpr Word<bool> kSwitches[] = {{"0", false}, {"1", true}};
constexpr Word<std::uint32_t> kHandlerCounts[] = {{"auto", 0}, {"1", 1}, {"2", 2},
                                                  {"4", 4},    {"8", 8}, {"16", 16}};

template <class T, std::size_t N>
ParseResult parse_word(const Word<T> (&words)[N], std::string_view text, T* out) {
  for (const Word<T>& word : words) {
    if (text == word.text) {
      *out = word.value;
      return kAccepted;
    }
  }
  return refuse();
}

template <class T, std::size_t N>
void write_word(const Word<T> (&words)[N], T value, TextWriter& out) {
  for (const Word<T>& word : words) {
    if (word.value == value) return out.put(word.text);
  }
}

// "0=3,2=1".
ParseResult parse_weights(std::string_view text, NodeWeights* out) {
  NodeWeights weights;
  while (true) {
    const std::size_t end = text.find(',');
    const std::string_view part = text.substr(0, end);
    const std::size_t equals = part.find('=');
    std::uint64_t node = 0;
    std::uint64_t weight = 0;
    if (equals == std::string_view::npos || !parse_decimal(part.substr(0, equals), &node) ||
        !parse_decimal(tail(part, equals + 1), &weight)) {
      return refuse("weights are a list like 0=3,2=1");
    }
    static_assert(kMaxNodes == 64 && NodeWeights::kMost == 255);
    if (node >= kMaxNodes) return refuse("nodes are numbered from 0 to 63");
    if (weight < 1 || weight > NodeWeights::kMost) return refuse("a weight is from 1 to 255");
    if (weights.of[node] != 0) return refuse("a node is named twice");
    weights.of[node] = static_cast<std::uint8_t>(weight);
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 1);
  }
  if (weights.nodes().count() < 2) return refuse("there is nothing to spread over one node");
  *out = weights;
  return kAccepted;
}

// The tiers a chain may name: those that exist, and those that the design has but this version not.
struct TierName {
  const char* name;
  const char* refusal;  // nullptr: built
  TierKind kind;
};
constexpr TierName kTierNames[] = {
    {"dram", nullptr, TierKind::kDram},
    {"cxl", nullptr, TierKind::kCxl},
    {"pmem", nullptr, TierKind::kPmem},
    {"zpool", nullptr, TierKind::kZpool},
    {"node", "nodes belong to a tier, as in cxl=node:1", TierKind::kDram},
    {"file", "tier file: is not built yet in this version", TierKind::kDram},
    {"swap", "tier swap is not built yet in this version", TierKind::kDram},
};

// What stands after "=": "node:0-1", "node:0-1:8G".
ParseResult parse_tier_nodes(std::string_view text, TierSpec* out) {
  constexpr std::string_view kPrefix = "node:";
  if (!text.starts_with(kPrefix)) return refuse("after = come nodes, as in cxl=node:2");
  unsigned beyond = 0;
  text.remove_prefix(kPrefix.size());
  const std::size_t end = text.find(':');
  const std::string_view list = text.substr(0, end);
  if (list.empty() || list.back() == '\n' || !parse_nodes(list, &out->nodes, &beyond)) {
    return refuse("nodes are a list like 0-1,4, and ; divides tiers that have nodes");
  }
  static_assert(kMaxNodes == 64);
  if (beyond != 0) return refuse("nodes are numbered from 0 to 63");
  if (end == std::string_view::npos) return kAccepted;
  if (!parse_size(tail(text, end + 1), &out->capacity_bytes)) {
    return refuse("the SIZE of a tier of nodes needs a unit, as in cxl=node:2:4G");
  }
  const bool enough = out->capacity_bytes >= kMinTierBytes;
  return enough ? kAccepted : refuse("a tier of nodes needs at least 1M");
}

ParseResult parse_zpool_size(std::string_view text, TierSpec* out) {
  if (!parse_size(text, &out->capacity_bytes)) {
    return refuse("the zpool's SIZE needs a unit, as in 4G");
  }
  const bool enough = out->capacity_bytes >= kMinTierBytes;
  return enough ? kAccepted : refuse("a zpool needs at least 1M");
}

ParseResult parse_tier(std::string_view text, TierSpec* out) {
  const std::size_t end = text.find_first_of(":=");
  const bool alone = end == std::string_view::npos;
  const std::string_view name = text.substr(0, end);
  for (const TierName& tier : kTierNames) {
    if (name != tier.name) continue;
    if (tier.refusal != nullptr) return refuse(tier.refusal);
    *out = {tier.kind, 0, {}};
    const bool store = tier.kind == TierKind::kZpool;
    if (!alone && text[end] == '=') {
      if (store) return refuse("a zpool has a size, not nodes, as in zpool:4G");
      return parse_tier_nodes(tail(text, end + 1), out);
    }
    if (store) return alone ? kAccepted : parse_zpool_size(tail(text, end + 1), out);
    if (tier.kind != TierKind::kDram) return refuse("cxl and pmem need nodes, as in cxl=node:2");
    return alone ? kAccepted : refuse("the size of dram is option FAST");
  }
  return refuse("no such tier");
}

// Whether `tier` may follow what is in the chain.
ParseResult append_tier(const TierSpec& tier, TierChain* chain) {
  if (const TierSpec* like = chain->find(tier.kind); like != nullptr) {
    if (tier.nodes.empty() || like->nodes.empty()) return refuse("a tier is named twice");
  }
  if (chain->find(TierKind::kZpool) != nullptr) return refuse("the zpool comes last");
  if (chain->count == kMaxTiers) {
    static_assert(kMaxTiers == 8);
    return refuse("a chain has at most 8 tiers");
  }
  if (chain->count == 0 && tier.kind != TierKind::kDram) {
    return refuse("the chain starts with dram");
  }
  for (std::uint32_t i = 0; i < chain->count; ++i) {
    if (!(chain->tiers[i].nodes & tier.nodes).empty()) return refuse("a node is named twice");
  }
  chain->tiers[chain->count++] = tier;
  return kAccepted;
}

void write_size(std::uint64_t bytes, TextWriter& out) {
  if (bytes == 0) return out.put('0');
  int unit = 1;
  while (unit < 4 && bytes % (std::uint64_t{1} << (10 * (unit + 1))) == 0) ++unit;
  out.put_number(bytes >> (10 * unit));
  out.put(" KMGT"[unit]);
}

// "12", "0.5", "12.25": hundredths; at most `max` hundredths.
bool parse_hundredths(std::string_view text, std::uint64_t max, std::uint32_t* out) {
  const std::size_t dot = text.find('.');
  std::uint64_t whole = 0;
  std::uint64_t part = 0;
  if (!parse_decimal(text.substr(0, dot), &whole) || whole > max) return false;
  if (dot != std::string_view::npos) {
    const std::string_view decimals = tail(text, dot + 1);
    if (decimals.size() > 2 || !parse_decimal(decimals, &part)) return false;
    if (decimals.size() == 1) part *= 10;
  }
  if (whole * 100 + part > max) return false;
  *out = static_cast<std::uint32_t>(whole * 100 + part);
  return true;
}

}  // namespace

void write_nodes(NodeSet nodes, TextWriter& out) {
  bool first = true;
  for (unsigned node = 0; node < kMaxNodes; ++node) {
    if (!nodes.contains(node)) continue;
    unsigned last = node;
    while (nodes.contains(last + 1)) ++last;
    if (!first) out.put(',');
    first = false;
    out.put_number(node);
    if (last != node) {
      out.put('-');
      out.put_number(last);
    }
    node = last;
  }
}

void write_weights(const NodeWeights& weights, TextWriter& out) {
  bool first = true;
  for (const unsigned node : weights.nodes()) {
    if (!first) out.put(',');
    first = false;
    out.put_number(node);
    out.put('=');
    out.put_number(weights.of[node]);
  }
}

ParseResult parse_value(OptionId, std::string_view text, FastBudget* out) {
  if (text == "auto") {
    *out = {};
    return kAccepted;
  }
  std::uint64_t n = 0;
  if (std::string_view digits = text; strip_suffix(&digits, "%")) {
    if (!parse_decimal(digits, &n) || n < 1 || n > 100) return refuse();
    *out = {FastBudget::Kind::kPercent, 0, static_cast<std::uint32_t>(n)};
    return kAccepted;
  }
  if (parse_decimal(text, &n) && n != 0) return refuse("a size needs a unit");
  if (!parse_size(text, &n) || n < kMinFastBytes) return refuse();
  *out = {FastBudget::Kind::kBytes, n, 0};
  return kAccepted;
}

ParseResult parse_value(OptionId, std::string_view text, TierChain* out) {
  if (text == "auto") {
    *out = TierChain{};
    out->automatic = true;
    return kAccepted;
  }
  TierChain chain{.tiers = {}, .count = 0};
  // A list of nodes has commas of its own.
  const char divider = text.find_first_of(";=") == std::string_view::npos ? ',' : ';';
  while (true) {
    const std::size_t end = text.find(divider);
    TierSpec tier;
    if (const ParseResult r = parse_tier(text.substr(0, end), &tier); !r.ok) return r;
    if (const ParseResult r = append_tier(tier, &chain); !r.ok) return r;
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 1);
  }
  if (!chain.leads_anywhere())
    return refuse("dram alone leaves nowhere to move to; that is policy none");
  *out = chain;
  return kAccepted;
}

ParseResult parse_value(OptionId, std::string_view text, HeapKind* out) {
  return parse_word(kHeaps, text, out);
}
ParseResult parse_value(OptionId, std::string_view text, PolicySpec* out) {
  constexpr std::string_view kPrefix = "interleave:";
  PolicySpec policy;
  if (text.starts_with(kPrefix)) {
    policy.kind = PolicyKind::kInterleave;
    const ParseResult weights = parse_weights(tail(text, kPrefix.size()), &policy.weights);
    if (!weights.ok) return weights;
  } else if (const ParseResult word = parse_word(kPolicies, text, &policy.kind); !word.ok) {
    return word;
  }
  *out = policy;
  return kAccepted;
}
ParseResult parse_value(OptionId, std::string_view text, HugeMode* out) {
  return parse_word(kHugeModes, text, out);
}
ParseResult parse_value(OptionId, std::string_view text, FaultMode* out) {
  return parse_word(kFaultModes, text, out);
}
ParseResult parse_value(OptionId, std::string_view text, SamplerKind* out) {
  return parse_word(kSamplers, text, out);
}
ParseResult parse_value(OptionId, std::string_view text, ControlMode* out) {
  return parse_word(kControlModes, text, out);
}
ParseResult parse_value(OptionId, std::string_view text, bool* out) {
  return parse_word(kSwitches, text, out);
}

ParseResult parse_value(OptionId, std::string_view text, CodecSpec* out) {
  if (text == "lz4") {
    *out = {CodecSpec::Kind::kLz4, 0};
    return kAccepted;
  }
  if (text == "zstd") {
    *out = {CodecSpec::Kind::kZstd, 1};
    return kAccepted;
  }
  constexpr std::string_view kPrefix = "zstd:";
  std::uint64_t level = 0;
  if (!text.starts_with(kPrefix) || !parse_decimal(tail(text, kPrefix.size()), &level) ||
      level < 1 || level > 19) {
    return refuse();
  }
  *out = {CodecSpec::Kind::kZstd, static_cast<int>(level)};
  return kAccepted;
}

ParseResult parse_value(OptionId, std::string_view text, StatsOutput* out) {
  if (text == "0" || text == "1") {
    *out = {};
    out->kind = text == "1" ? StatsOutput::Kind::kText : StatsOutput::Kind::kOff;
    return kAccepted;
  }
  constexpr std::string_view kPrefix = "json:";
  if (!text.starts_with(kPrefix)) return refuse();
  const std::string_view path = tail(text, kPrefix.size());
  if (path.empty()) return refuse("PATH is empty");
  if (path.size() >= kMaxStatsPath) return refuse("PATH is longer than 1023 characters");
  for (std::size_t i = 0; i < path.size(); ++i) {
    if (path[i] == '\0') return refuse();
    if (path[i] != '%') continue;
    ++i;
    if (i == path.size() || (path[i] != 'p' && path[i] != '%')) {
      return refuse("after % only p (the process id) or a second %");
    }
  }
  *out = {};
  out->kind = StatsOutput::Kind::kJson;
  std::memcpy(out->path, path.data(), path.size());
  return kAccepted;
}

ParseResult parse_value(OptionId id, std::string_view text, std::uint32_t* out) {
  if (id == OptionId::kHandlers) return parse_word(kHandlerCounts, text, out);
  if (!strip_suffix(&text, "%") || !parse_hundredths(text, 5000, out)) return refuse();
  return kAccepted;
}

ParseResult parse_value(OptionId, std::string_view text, std::uint64_t* out) {
  std::uint64_t n = 0;
  if (parse_decimal(text, &n) && n != 0) return refuse("a size needs a unit");
  return parse_size(text, out) ? kAccepted : refuse();
}

void write_value(OptionId, const FastBudget& value, TextWriter& out) {
  switch (value.kind) {
    case FastBudget::Kind::kAuto:
      return out.put("auto");
    case FastBudget::Kind::kBytes:
      return write_size(value.bytes, out);
    case FastBudget::Kind::kPercent:
      out.put_number(value.percent);
      return out.put('%');
  }
}

void write_value(OptionId, const TierChain& value, TextWriter& out) {
  if (value.automatic) return out.put("auto");
  const char divider = value.names_nodes() ? ';' : ',';
  for (std::uint32_t i = 0; i < value.count; ++i) {
    const TierSpec& tier = value.tiers[i];
    if (i != 0) out.put(divider);
    out.put(to_string(tier.kind));
    if (!tier.nodes.empty()) {
      out.put("=node:");
      write_nodes(tier.nodes, out);
    }
    if (tier.capacity_bytes != 0) {
      out.put(':');
      write_size(tier.capacity_bytes, out);
    }
  }
}

void write_value(OptionId, HeapKind value, TextWriter& out) {
  write_word(kHeaps, value, out);
}
void write_value(OptionId, const PolicySpec& value, TextWriter& out) {
  write_word(kPolicies, value.kind, out);
  if (value.weights.nodes().empty()) return;
  out.put(':');
  write_weights(value.weights, out);
}
void write_value(OptionId, HugeMode value, TextWriter& out) {
  write_word(kHugeModes, value, out);
}
void write_value(OptionId, FaultMode value, TextWriter& out) {
  write_word(kFaultModes, value, out);
}
void write_value(OptionId, SamplerKind value, TextWriter& out) {
  write_word(kSamplers, value, out);
}
void write_value(OptionId, ControlMode value, TextWriter& out) {
  write_word(kControlModes, value, out);
}
void write_value(OptionId, bool value, TextWriter& out) {
  write_word(kSwitches, value, out);
}

void write_value(OptionId, const CodecSpec& value, TextWriter& out) {
  if (value.kind == CodecSpec::Kind::kLz4) return out.put("lz4");
  out.put("zstd:");
  out.put_number(static_cast<std::uint64_t>(value.level));
}

void write_value(OptionId, const StatsOutput& value, TextWriter& out) {
  if (value.kind != StatsOutput::Kind::kJson) {
    return out.put(value.kind == StatsOutput::Kind::kText ? '1' : '0');
  }
  out.put("json:");
  out.put(value.path);
}

void write_value(OptionId id, std::uint32_t value, TextWriter& out) {
  if (id == OptionId::kHandlers) return write_word(kHandlerCounts, value, out);
  out.put_ratio(value, 100, value % 100 == 0 ? 0 : 2);
  out.put('%');
}

void write_value(OptionId, std::uint64_t value, TextWriter& out) {
  write_size(value, out);
}

}  // namespace config

const char* to_string(TierKind kind) {
  for (const config::TierName& tier : config::kTierNames) {
    if (tier.refusal == nullptr && tier.kind == kind) return tier.name;
  }
  return "?";
}

bool parse_size(std::string_view text, std::uint64_t* bytes) {
  if (text == "0") {
    *bytes = 0;
    return true;
  }
  // The unit: K M G T, then B or iB or nothing.
  if (text.ends_with('B') || text.ends_with('b')) {
    text.remove_suffix(1);
    if (text.ends_with('i')) text.remove_suffix(1);
  }
  if (text.empty()) return false;
  unsigned shift = 0;
  switch (text.back()) {
    case 'K':
    case 'k':
      shift = 10;
      break;
    case 'M':
    case 'm':
      shift = 20;
      break;
    case 'G':
    case 'g':
      shift = 30;
      break;
    case 'T':
    case 't':
      shift = 40;
      break;
    default:
      return false;
  }
  text.remove_suffix(1);

  const std::size_t dot = text.find('.');
  std::uint64_t whole = 0;
  std::uint64_t part = 0;
  if (!parse_decimal(text.substr(0, dot), &whole)) return false;
  if (whole > (config::kMaxSize - 1) >> shift) return false;
  if (dot != std::string_view::npos) {
    // Up to three decimals, rounded down to whole KiB, so that every size can be written back.
    const std::string_view decimals = config::tail(text, dot + 1);
    if (shift == 10 || decimals.size() > 3 || !parse_decimal(decimals, &part)) return false;
    for (std::size_t i = decimals.size(); i < 3; ++i) part *= 10;
    part = ((part << shift) / 1000) & ~std::uint64_t{1023};
  }
  *bytes = (whole << shift) + part;
  return true;
}

}  // namespace heaptier
