#include "preload/cli/ctl.h"

#include <chrono>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "preload/cli/control_client.h"
#include "preload/cli/exit_codes.h"
#include "runtime/base/node_set.h"
#include "runtime/base/units.h"
#include "runtime/config/options.h"
#include "runtime/config/stats.h"

namespace heaptier::cli {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;

// A process that sleeps looks at its socket once a second at least; one that is stopped never does.
constexpr milliseconds kPatience{10000};
// What it has begun is waited for longer.
constexpr milliseconds kDrainPatience{60000};
constexpr milliseconds kPollEvery{50};
// Asked at once for the list; each costs a descriptor.
constexpr std::size_t kAtOnce = 200;
constexpr double kMiB = 1 << 20;

// What others have chosen, process names too, is no command to the terminal.
std::string printable(std::string text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return text;
}

int refuse(ExitCode code, const std::string& what) {
  std::fprintf(stderr, "%s\n", printable("heaptier: ctl: " + what).c_str());
  return code;
}

bool truth(const json& object, const char* name) {
  const auto it = object.find(name);
  return it != object.end() && it->is_boolean() && it->get<bool>();
}

std::uint64_t number(const json& object, const char* name) {
  const auto it = object.find(name);
  return it != object.end() && it->is_number_unsigned() ? it->get<std::uint64_t>() : 0;
}

double mib(std::uint64_t bytes) {
  return static_cast<double>(bytes) / kMiB;
}

// What a process answers; nothing: it did not, and a line has been said, with its exit status.
std::optional<json> ask(int pid, const std::string& request, int* code,
                        milliseconds patience = kPatience) {
  const std::string who = "process " + std::to_string(pid) + " ";
  const ProcessFacts process = look_at_process(pid);
  Question question;
  if (!question.ask(process, request)) {
    *code = refuse(kFailure, who + why_unreachable(process));
    return std::nullopt;
  }
  const std::optional<std::string> text = question.answer(patience);
  if (!text) {
    *code = refuse(kFailure, who + (look_at_process(pid).exists ? "did not answer: it is stopped, "
                                                                  "or busy with something long"
                                                                : "has ended"));
    return std::nullopt;
  }
  json answer = json::parse(*text, nullptr, false);
  if (!answer.is_object()) {
    *code = refuse(kFailure, who + "answered something that is none of heaptier's");
    return std::nullopt;
  }
  if (const auto error = answer.find("error"); error != answer.end() && error->is_string()) {
    *code = refuse(kUsage, who + "refuses: " + error->get<std::string>());
    return std::nullopt;
  }
  return answer;
}

int print_json(const json& value) {
  // A process name may be cut in the middle of a character.
  std::printf("%s\n", value.dump(1, ' ', false, json::error_handler_t::replace).c_str());
  return kSuccess;
}

StatsSnapshot snapshot_of(const json& answer) {
  StatsSnapshot s;
  for (const StatInfo& stat : stats_table()) s.*stat.value = number(answer, stat.name);
  s.pid = static_cast<std::uint32_t>(number(answer, "pid"));
  const auto weights = answer.find("interleave_weights");
  if (weights != answer.end() && weights->is_string()) {
    Options options;
    const std::string given = "interleave:" + weights->get<std::string>();
    if (parse_option(OptionId::kPolicy, given, &options).ok) {
      s.interleave_weights = options.policy.weights;
    }
  }
  // Taken while threads run, the ledger is of another instant than the flows: shown are the flows.
  const auto now = [&s](PageState state) {
    const std::int64_t pages = s.pages_by_flow(state);
    return pages < 0 ? 0 : static_cast<std::uint64_t>(pages);
  };
  s.resident_pages = now(PageState::kResident);
  s.clean_pages = now(PageState::kClean);
  s.parked_pages = now(PageState::kParked);
  s.stored_pages = now(PageState::kStored);
  s.filled_pages = now(PageState::kFilled);
  s.poisoned_pages = now(PageState::kPoisoned);
  return s;
}

int stats(int pid, bool as_json) {
  int code = kSuccess;
  const std::optional<json> answer = ask(pid, "stats", &code);
  if (!answer) return code;
  if (as_json) return print_json(*answer);
  std::string text(kStatsTextBytes, '\0');
  text.resize(std::min(write_text(text.data(), text.size(), snapshot_of(*answer)), text.size()));
  std::fputs(text.c_str(), stdout);
  return kSuccess;
}

// An array or an object; empty if it is not there or something else.
json part_of(const json& object, const char* name) {
  const auto it = object.find(name);
  return it != object.end() && it->is_structured() ? *it : json::object();
}

std::string text_of(const json& object, const char* name) {
  const auto it = object.find(name);
  return it != object.end() && it->is_string() ? printable(it->get<std::string>()) : "";
}

constexpr struct {
  const char* name;
  const char* words;
} kReasons[] = {{"pinned", "pinned by a device or a pipe"},
                {"shared", "shared with a forked child"},
                {"no_room", "for which there is no room"},
                {"bound", "that the program has bound (mbind)"},
                {"other", "that the kernel would not move"}};

// ": 2 pinned by a device or a pipe, 1 shared with a forked child".
std::string left_text(const json& reasons) {
  std::string text;
  for (const auto& reason : kReasons) {
    const std::uint64_t pages = number(reasons, reason.name);
    if (pages == 0) continue;
    text += (text.empty() ? ": " : ", ") + std::to_string(pages) + " " + reason.words;
  }
  return text;
}

void tell_interleaving(const json& how) {
  std::printf("interleaved: %s, weights %s (%s); %llu pages in place, %llu not%s\n",
              text_of(how, "of") == "heap" ? "the heap" : "what the program asked for",
              text_of(how, "weights").c_str(), text_of(how, "reason").c_str(),
              static_cast<unsigned long long>(number(how, "in_place_pages")),
              static_cast<unsigned long long>(number(how, "left_pages")),
              left_text(part_of(how, "left")).c_str());
}

int tiers(int pid, bool as_json) {
  int code = kSuccess;
  const std::optional<json> answer = ask(pid, "tiers", &code);
  if (!answer) return code;
  if (as_json) return print_json(*answer);
  std::printf("%-8s %-10s %12s %12s %12s\n", "TIER", "NODES", "HEAP MiB", "ROOM MiB", "OF MiB");
  for (const json& tier : part_of(*answer, "tiers")) {
    if (!tier.is_object()) continue;
    const bool store = tier.contains("held_bytes");
    const std::uint64_t capacity = number(tier, "capacity_bytes");
    const std::uint64_t room = store ? capacity - std::min(capacity, number(tier, "held_bytes"))
                                     : number(tier, "room_bytes");
    const std::string nodes = text_of(tier, "nodes");
    std::printf("%-8s %-10s %12.1f ", text_of(tier, "tier").c_str(),
                nodes.empty() ? "-" : nodes.c_str(), mib(number(tier, "heap_bytes")));
    if (store || tier.contains("room_bytes")) {
      std::printf("%12.1f", mib(room));
    } else {
      std::printf("%12s", "-");
    }
    if (capacity != 0) {
      std::printf(" %12.1f", mib(capacity));
    } else {
      std::printf(" %12s", "-");
    }
    if (store) std::printf("  held by the store: %.1f", mib(number(tier, "held_bytes")));
    constexpr struct {
      const char* name;
      const char* words;
    } kSpecial[] = {{"vacated", "being vacated"},
                    {"forbidden", "not allowed by the cpuset"},
                    {"offline", "without memory"}};
    for (const auto& special : kSpecial) {
      const std::string list = text_of(tier, special.name);
      if (!list.empty()) std::printf("  %s: node %s", special.words, list.c_str());
    }
    std::printf("\n");
  }
  if (const json how = part_of(*answer, "interleave"); !how.empty()) tell_interleaving(how);
  return kSuccess;
}

int tell_drained(unsigned node, const json& answer, bool as_json) {
  const std::uint64_t left = number(answer, "left_pages");
  const int code = left == 0 ? kSuccess : kFailure;
  if (as_json) {
    print_json(answer);
    return code;
  }
  const std::uint64_t moved = number(answer, "moved_pages");
  std::printf("node %u: %llu pages moved (%.1f MiB), %llu left", node,
              static_cast<unsigned long long>(moved), mib(moved * kPageSize),
              static_cast<unsigned long long>(left));
  std::printf("%s\n", left_text(part_of(answer, "left")).c_str());
  return code;
}

int drain(int pid, unsigned node, const CtlWords& words) {
  int code = kSuccess;
  const std::string number_of_node = std::to_string(node);
  std::optional<json> answer = ask(pid, "drain " + number_of_node, &code, kDrainPatience);
  if (!answer) return code;
  if (words.no_wait) {
    if (words.json) return print_json(*answer);
    std::printf("node %u: begun\n", node);
    return kSuccess;
  }
  while (!truth(*answer, "settled")) {
    std::this_thread::sleep_for(kPollEvery);
    answer = ask(pid, "drained " + number_of_node, &code, kDrainPatience);
    if (!answer) return code;
    if (!truth(*answer, "draining")) {
      return refuse(kFailure, "process " + std::to_string(pid) + ": somebody else has ended it");
    }
  }
  return tell_drained(node, *answer, words.json);
}

int undrain(int pid, unsigned node, bool as_json) {
  int code = kSuccess;
  const std::optional<json> answer =
      ask(pid, "undrain " + std::to_string(node), &code, kDrainPatience);
  if (!answer) return code;
  if (as_json) return print_json(*answer);
  std::printf("node %u: memory may come from there again\n", node);
  return kSuccess;
}

json line_of_list(const ProcessFacts& process, const json& answer) {
  const std::uint64_t home = number(answer, "resident_pages") + number(answer, "clean_pages") +
                             number(answer, "parked_pages") + number(answer, "unmanaged_pages");
  return {{"pid", process.pid},
          {"name", process.name},
          {"heap_bytes", number(answer, "heap_carved_bytes")},
          {"resident_bytes", home * kPageSize},
          {"slow_bytes", number(answer, "nodes_slow_pages") * kPageSize},
          {"stored_bytes",
           (number(answer, "stored_pages") + number(answer, "filled_pages")) * kPageSize}};
}

// Asks all of them, then waits for the answers.
void ask_all(const int* pids, std::size_t count, json* list) {
  std::vector<ProcessFacts> processes;
  std::vector<Question> questions;
  for (std::size_t i = 0; i < count; ++i) {
    const ProcessFacts process = look_at_process(pids[i]);
    Question question;
    if (!question.ask(process, "stats")) continue;
    processes.push_back(process);
    questions.push_back(std::move(question));
  }
  const auto end = std::chrono::steady_clock::now() + kPatience;
  for (std::size_t i = 0; i < questions.size(); ++i) {
    const auto left =
        std::chrono::duration_cast<milliseconds>(end - std::chrono::steady_clock::now());
    const std::optional<std::string> text = questions[i].answer(std::max(left, milliseconds{0}));
    const json answer = json::parse(text.value_or(""), nullptr, false);
    if (answer.is_object() && !answer.contains("error")) {
      list->push_back(line_of_list(processes[i], answer));
    } else {
      list->push_back(
          {{"pid", processes[i].pid}, {"name", processes[i].name}, {"error", "did not answer"}});
    }
  }
}

int list(bool as_json) {
  const std::vector<int> pids = find_controlled();
  json lines = json::array();
  for (std::size_t at = 0; at < pids.size(); at += kAtOnce) {
    ask_all(pids.data() + at, std::min(kAtOnce, pids.size() - at), &lines);
  }
  if (as_json) return print_json(lines);
  if (lines.empty()) {
    std::printf("no process under heaptier that is awake\n");
    return kSuccess;
  }
  std::printf("%8s  %-16s %12s %12s %12s %12s\n", "PID", "NAME", "HEAP MiB", "RESIDENT MiB",
              "SLOW MiB", "STORED MiB");
  for (const json& line : lines) {
    std::printf("%8d  %-16s", line["pid"].get<int>(), text_of(line, "name").c_str());
    if (line.contains("error")) {
      std::printf(" %s\n", text_of(line, "error").c_str());
      continue;
    }
    std::printf(" %12.1f %12.1f %12.1f %12.1f\n", mib(number(line, "heap_bytes")),
                mib(number(line, "resident_bytes")), mib(number(line, "slow_bytes")),
                mib(number(line, "stored_bytes")));
  }
  return kSuccess;
}

// A decimal number up to `most`, and nothing else.
std::optional<unsigned> parse_number(const std::string& text, unsigned most) {
  if (text.empty() || text.size() > 9) return std::nullopt;
  unsigned n = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    n = n * 10 + static_cast<unsigned>(c - '0');
  }
  if (n > most) return std::nullopt;
  return n;
}

}  // namespace

int ctl(const CtlWords& given) {
  const std::vector<std::string>& words = given.words;
  const bool of_node = words.size() > 1 && (words[1] == "drain" || words[1] == "undrain");
  if (given.no_wait && !(of_node && words[1] == "drain")) {
    return refuse(kUsage, "--no-wait is for drain");
  }
  if (words.empty()) return list(given.json);
  const std::optional<unsigned> pid = parse_number(words[0], INT32_MAX);
  if (!pid || *pid == 0) {
    return refuse(kUsage, words[0] + " is not a process id; `heaptier ctl` lists those there are");
  }
  if (words.size() < 2) {
    return refuse(kUsage, "no command for process " + words[0] +
                              "; there are stats, tiers, drain node:N and undrain node:N");
  }
  if (!of_node && words[1] != "stats" && words[1] != "tiers") {
    return refuse(kUsage, "there is no command " + words[1] +
                              "; there are stats, tiers, drain node:N and undrain node:N");
  }
  if (words.size() > (of_node ? 3u : 2u)) return refuse(kUsage, words.back() + " is one too many");
  const int id = static_cast<int>(*pid);
  if (words[1] == "stats") return stats(id, given.json);
  if (words[1] == "tiers") return tiers(id, given.json);
  constexpr std::size_t kPrefix = std::char_traits<char>::length("node:");
  std::optional<unsigned> node;
  if (words.size() == 3 && words[2].compare(0, kPrefix, "node:") == 0) {
    node = parse_number(words[2].substr(kPrefix), kMaxNodes - 1);
  }
  if (!node) {
    return refuse(kUsage, words[1] + (words.size() == 3 ? " " + words[2] : "") +
                              " is not accepted; accepted: " + words[1] +
                              " node:N with N from 0 to 63");
  }
  return words[1] == "drain" ? drain(id, *node, given) : undrain(id, *node, given.json);
}

}  // namespace heaptier::cli
