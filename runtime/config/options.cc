#include "runtime/config/options.h"

#include <cstring>

#include "runtime/base/words.h"
#include "runtime/config/option_values.h"
#include "runtime/config/text_writer.h"

namespace heaptier {
namespace {

constexpr std::string_view kPrefix = "HEAPTIER_";
constexpr std::string_view kRuntimeDir = "XDG_RUNTIME_DIR=";

constexpr OptionInfo kTable[] = {
#define HEAPTIER_OPTION(NAME, Id, field, flag, bare, fallback, accepted, help) \
  {OptionId::k##Id, #NAME, "HEAPTIER_" #NAME, flag, bare, fallback, accepted, help},
#include "runtime/config/options.def"
};
static_assert(std::size(kTable) == kOptionCount);

constexpr std::string_view kInternal[] = {
#define HEAPTIER_INTERNAL(NAME, help) #NAME,
#include "runtime/config/options.def"
};

constexpr std::size_t kLongestName = 32;
// How much of a value a message repeats.
constexpr std::size_t kShownValue = 120;

constexpr char upper(char c) {
  if (c >= 'a' && c <= 'z') return static_cast<char>(c - 'a' + 'A');
  return c == '-' ? '_' : c;
}

// Levenshtein distance, upper and lower case and '-' and '_' being the same. `b` at most
// kLongestName long.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::size_t row[kLongestName + 1];
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      std::size_t best = diagonal + (upper(a[i - 1]) == upper(b[j - 1]) ? 0 : 1);
      if (above + 1 < best) best = above + 1;
      if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
      diagonal = above;
      row[j] = best;
    }
  }
  return row[b.size()];
}

bool continues(std::string_view longer, std::string_view shorter) {
  if (shorter.size() < 3 || longer.size() < shorter.size()) return false;
  for (std::size_t i = 0; i < shorter.size(); ++i) {
    if (upper(longer[i]) != upper(shorter[i])) return false;
  }
  return true;
}

OptionId nearest_name(std::string_view name) {
  if (name.size() > kLongestName) name = name.substr(0, kLongestName);
  OptionId nearest = OptionId::kCount;
  std::size_t best = SIZE_MAX;
  for (const OptionInfo& option : kTable) {
    const std::string_view known = option.name;
    std::size_t distance = edit_distance(name, known);
    // STATS_JSON and HINT mean STATS and HINT_BUDGET, however many letters that takes.
    const bool part = continues(name, known) || continues(known, name);
    if (part && distance > 1) distance = 1;
    const std::size_t near = known.size() / 3 + 1;
    if (distance <= near && distance < name.size() && distance < best) {
      best = distance;
      nearest = option.id;
    }
  }
  return nearest;
}

const char* to_string(OptionSource source) {
  switch (source) {
    case OptionSource::kDefault:
      return "default";
    case OptionSource::kEnvironment:
      return "environment";
    case OptionSource::kRefused:
      return "default, the value given is not accepted";
  }
  return "?";
}

void take_stats_pid(std::string_view value, Options* out, Diagnostics* diagnostics) {
  std::uint64_t pid = 0;
  if (parse_decimal(value, &pid) && pid <= INT32_MAX) {
    out->stats_pid = static_cast<std::uint32_t>(pid);
    return;
  }
  diagnostics->add({"heaptier: HEAPTIER_STATS_PID=", value.substr(0, kShownValue),
                    " is not accepted; accepted: a process id; every process reports instead"});
}

void take_runtime_dir(std::string_view value, Options* out) {
  if (!value.starts_with('/') || value.size() >= kMaxRuntimeDir || out->runtime_dir[0] != '\0') {
    return;
  }
  std::memcpy(out->runtime_dir, value.data(), value.size());
}

// `name` without the prefix.
void take_variable(std::string_view name, std::string_view value, Options* out,
                   Diagnostics* diagnostics) {
  for (const OptionInfo& option : kTable) {
    if (name != option.name) continue;
    OptionSource& source = out->source[static_cast<std::size_t>(option.id)];
    if (source != OptionSource::kDefault) return;  // given twice: the first counts, as for getenv
    const ParseResult result = parse_option(option.id, value, out);
    source = result.ok ? OptionSource::kEnvironment : OptionSource::kRefused;
    if (result.ok) return;
    tell_refusal(option.id, value, result.reason, diagnostics);
    return;
  }
  if (name == "STATS_PID") return take_stats_pid(value, out, diagnostics);
  for (std::string_view internal : kInternal) {
    if (name == internal) return;
  }
  const OptionId nearest = nearest_name(name);
  const std::string_view shown = name.substr(0, kShownValue);
  if (nearest == OptionId::kCount) {
    diagnostics->add({"heaptier: ", kPrefix, shown,
                      " is no option of heaptier (`heaptier help options` lists them); ignored"});
  } else {
    diagnostics->add({"heaptier: ", kPrefix, shown, " is no option of heaptier; did you mean ",
                      option_info(nearest).env, "? ignored"});
  }
}

}  // namespace

std::span<const OptionInfo, kOptionCount> option_table() {
  return std::span<const OptionInfo, kOptionCount>(kTable);
}

const OptionInfo& option_info(OptionId id) {
  return kTable[static_cast<std::size_t>(id)];
}

ParseResult parse_option(OptionId id, std::string_view value, Options* out) {
  switch (id) {
#define HEAPTIER_OPTION(NAME, Id, field, ...) \
  case OptionId::k##Id:                       \
    return config::parse_value(id, value, &out->field);
#include "runtime/config/options.def"
    case OptionId::kCount:
      break;
  }
  return {false, "no such option"};
}

void tell_refusal(OptionId id, std::string_view value, const char* reason,
                  Diagnostics* diagnostics) {
  const OptionInfo& option = option_info(id);
  diagnostics->add({"heaptier: ", option.env, "=", value.substr(0, kShownValue), " is not accepted",
                    reason ? " (" : "", reason ? reason : "", reason ? ")" : "",
                    "; accepted: ", option.accepted, "; using ", option.fallback, " instead"});
}

void parse_environment(const char* const* envp, Options* out, Diagnostics* diagnostics) {
  if (envp == nullptr) return;
  for (; *envp != nullptr; ++envp) {
    // Most variables are not ours: look at no more of them than it takes to see that.
    const char* p = *envp;
    std::size_t i = 0;
    while (i < kPrefix.size() && p[i] == kPrefix[i]) ++i;
    if (i < kPrefix.size() && (i != 0 || p[0] != kRuntimeDir[0])) continue;
    const std::string_view entry = p;
    if (entry.starts_with(kRuntimeDir)) {
      take_runtime_dir(config::tail(entry, kRuntimeDir.size()), out);
      continue;
    }
    if (i < kPrefix.size()) continue;
    const std::size_t equals = entry.find('=');
    if (equals == std::string_view::npos || equals + 1 == entry.size()) continue;
    take_variable(config::tail(entry.substr(0, equals), kPrefix.size()),
                  config::tail(entry, equals + 1), out, diagnostics);
  }
}

OptionId find_flag(std::string_view flag) {
  for (const OptionInfo& option : kTable) {
    if (flag == option.flag) return option.id;
  }
  return OptionId::kCount;
}

OptionId find_variable(std::string_view env) {
  for (const OptionInfo& option : kTable) {
    if (env == option.env) return option.id;
  }
  return OptionId::kCount;
}

OptionId nearest_flag(std::string_view flag) {
  return nearest_name(flag);
}

OptionId nearest_variable(std::string_view env) {
  if (env.starts_with(kPrefix)) env.remove_prefix(kPrefix.size());
  return nearest_name(env);
}

std::size_t format_option(OptionId id, const Options& options, char* out, std::size_t size) {
  TextWriter writer(out, size);
  switch (id) {
#define HEAPTIER_OPTION(NAME, Id, field, ...)       \
  case OptionId::k##Id:                             \
    config::write_value(id, options.field, writer); \
    break;
#include "runtime/config/options.def"
    case OptionId::kCount:
      break;
  }
  return writer.finish();
}

std::size_t format_effective(const Options& options, char* out, std::size_t size) {
  TextWriter writer(out, size);
  for (const OptionInfo& option : kTable) {
    char value[kMaxStatsPath + 8];
    format_option(option.id, options, value, sizeof value);
    const std::size_t start = writer.length();
    writer.put("heaptier: ");
    writer.put(option.env);
    writer.put('=');
    writer.put(value);
    writer.pad_to(start, 44);
    writer.put(" (");
    writer.put(to_string(options.source[static_cast<std::size_t>(option.id)]));
    writer.put(")\n");
  }
  return writer.finish();
}

bool expand_stats_path(const StatsOutput& stats, std::uint32_t pid, char* out, std::size_t size) {
  TextWriter writer(out, size);
  for (const char* p = stats.path; *p != '\0'; ++p) {
    if (*p != '%') {
      writer.put(*p);
    } else if (*++p == 'p') {
      writer.put_number(pid);
    } else if (*p == '%') {
      writer.put('%');
    } else {
      break;  // the parser lets no such path through
    }
  }
  return writer.finish() < size;
}

}  // namespace heaptier
