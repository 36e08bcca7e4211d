#include "preload/cli/run.h"

#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "preload/cli/elf_facts.h"
#include "preload/cli/exit_codes.h"
#include "preload/cli/help.h"
#include "preload/cli/locate.h"
#include "runtime/config/options.h"
#include "runtime/os/kernel_files.h"
#include "runtime/os/process.h"
#include "runtime/topology/chain.h"
#include "runtime/topology/weights.h"

namespace heaptier::cli {
namespace {

// A standard error without a reader must not keep the program from being started.
int complain(int exit_code, const std::string& what) {
  os::write_text(("heaptier run: " + what + "\n").c_str());
  return exit_code;
}

void warn(const std::string& what) {
  os::write_text(("heaptier run: warning: " + what + "\n").c_str());
}

// A value as one line, whatever is in it.
std::string one_line(std::string text) {
  if (text.size() > 200) text = text.substr(0, 200) + "...";
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return text;
}

// One option as it was given: by flag, else by environment, else not at all.
struct Given {
  bool flag = false;
  std::string value;
};
using GivenOptions = std::array<Given, kOptionCount>;

struct CommandLine {
  GivenOptions given;
  std::vector<std::string> command;
};

// The unknown flag that stopped the parser, without its dashes and its value.
std::string unknown_flag(const std::string& word) {
  const std::string name = one_line(word.substr(0, word.find('=')));
  const std::size_t start = name.find_first_not_of('-');
  const OptionId nearest =
      start == std::string::npos ? OptionId::kCount : nearest_flag(name.substr(start));
  if (nearest == OptionId::kCount) {
    return name + " is no option (`heaptier help options` lists them)";
  }
  return name + " is no option; did you mean --" + option_info(nearest).flag + "?";
}

// The parser's own words, made ours where an option's value is missing ("--fast: 1 required TEXT
// missing").
std::string parser_complaint(const std::string& words) {
  const std::string flag = words.substr(0, words.find(':'));
  const OptionId id = flag.starts_with("--") ? find_flag(flag.substr(2)) : OptionId::kCount;
  if (id == OptionId::kCount) return one_line(words);
  return flag + " needs a value; accepted: " + option_info(id).accepted;
}

// Splits the words after "run". Returns 0 or the exit code; -1: help was asked for.
int parse_words(const std::vector<std::string>& words, CommandLine* out) {
  // Everything after "--" is the command's, whatever it looks like; without "--" the command begins
  // at the first word that is neither a flag nor a flag's value.
  const auto dashes = std::find(words.begin(), words.end(), "--");
  const bool divided = dashes != words.end();

  CLI::App app;
  app.set_help_flag("-h,--help");
  app.allow_extras();
  app.prefix_command();
  std::array<CLI::Option*, kOptionCount> flags{};
  for (const OptionInfo& option : option_table()) {
    const auto index = static_cast<std::size_t>(option.id);
    std::string& value = out->given[index].value;
    const std::string name = std::string("--") + option.flag;
    flags[index] = option.bare != nullptr
                       ? app.add_flag(name + "{" + option.bare + "}", value, option.help)
                       : app.add_option(name, value, option.help);
    flags[index]->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  }
  try {
    std::vector<std::string> reversed(words.begin(), dashes);
    std::reverse(reversed.begin(), reversed.end());
    app.parse(reversed);
  } catch (const CLI::CallForHelp&) {
    return -1;
  } catch (const CLI::ParseError& error) {
    return complain(kUsage, parser_complaint(error.what()));
  }
  for (std::size_t i = 0; i < kOptionCount; ++i) out->given[i].flag = flags[i]->count() != 0;

  out->command = app.remaining();
  if (!out->command.empty() && out->command.front().starts_with('-')) {
    return complain(kUsage, unknown_flag(out->command.front()));
  }
  // A command that began without "--" keeps a later one: git checkout -- file.
  if (divided)
    out->command.insert(out->command.end(), out->command.empty() ? dashes + 1 : dashes,
                        words.end());
  if (out->command.empty()) {
    return complain(kUsage, "no command given; usage: heaptier run [options] -- command [args]");
  }
  return 0;
}

// For a command that was not found: "", or that it is the value of the flag before it, which must
// be glued to it since the flag may stand alone.
std::string meant_as_value(const std::vector<std::string>& words, const std::string& name) {
  const auto at = std::find(words.begin(), words.end(), name);
  if (at == words.begin() || at == words.end()) return {};
  const std::string& flag = *(at - 1);
  const OptionId id = flag.starts_with("--") ? find_flag(flag.substr(2)) : OptionId::kCount;
  Options options;
  if (id == OptionId::kCount || option_info(id).bare == nullptr ||
      !parse_option(id, name, &options).ok) {
    return {};
  }
  return "; did you mean " + flag + "=" + one_line(name) + "?";
}

// "" or why no report could be written to `path`.
std::string why_not_writable(const std::string& path) {
  const std::string directory = path.substr(0, path.rfind('/') + 1);
  if (directory.find('%') != std::string::npos) return {};  // known only at exit
  struct stat status;
  if (stat(directory.c_str(), &status) != 0 || access(directory.c_str(), W_OK | X_OK) != 0) {
    return directory + ": " + std::strerror(errno);
  }
  if (stat(path.c_str(), &status) == 0) {
    if (S_ISDIR(status.st_mode)) return path + ": " + std::strerror(EISDIR);
    if (access(path.c_str(), W_OK) != 0) return path + ": " + std::strerror(errno);
  }
  return {};
}

// A program may change its directory before it exits: the report's path must not depend on it.
std::string absolute_report(const std::string& value) {
  constexpr std::string_view kPrefix = "json:";
  if (!value.starts_with(kPrefix) || value[kPrefix.size()] == '/') return value;
  char directory[PATH_MAX];
  if (getcwd(directory, sizeof directory) == nullptr) return value;
  std::string whole(kPrefix);
  for (const char* p = directory; *p != '\0'; ++p) whole.append(*p == '%' ? 2 : 1, *p);
  if (whole.back() != '/') whole.push_back('/');
  return whole + value.substr(kPrefix.size());
}

// "" or why these tiers cannot be had on this machine.
std::string why_not_these_tiers(const TierChain& chain) {
  if (!chain.names_nodes()) return {};
  const auto topology = std::make_unique<Topology>();
  read_topology(kernel_files(), topology.get());
  return check_chain(chain, *topology).reason;
}

// "" or why these weights cannot be had on this machine.
std::string why_not_this_policy(const Options& options) {
  if (options.policy.weights.nodes().empty()) return {};
  const auto topology = std::make_unique<Topology>();
  read_topology(kernel_files(), topology.get());
  return check_policy(options.policy, options.tiers, *topology).reason;
}

// Parses all that was given. Returns 0 or the exit code.
int check_options(CommandLine* line, Options* options) {
  for (const OptionInfo& option : option_table()) {
    Given& given = line->given[static_cast<std::size_t>(option.id)];
    std::string shown = std::string("--") + option.flag;
    if (!given.flag) {
      const char* variable = std::getenv(option.env);
      if (variable == nullptr || *variable == '\0') continue;
      shown = option.env;
      given.value = variable;
    }
    shown += "=" + one_line(given.value);
    ParseResult result = parse_option(option.id, given.value, options);
    std::string reason = result.reason ? result.reason : "";
    if (result.ok && option.id == OptionId::kStats) {
      given.value = absolute_report(given.value);
      result = parse_option(option.id, given.value, options);
      reason = result.reason ? result.reason : "";
      char path[kMaxStatsPath + 16];
      if (result.ok && options->stats.kind == StatsOutput::Kind::kJson &&
          expand_stats_path(options->stats, static_cast<std::uint32_t>(getpid()), path,
                            sizeof path)) {
        reason = why_not_writable(path);
        result.ok = reason.empty();
      }
    }
    if (result.ok && option.id == OptionId::kTiers) {
      reason = why_not_these_tiers(options->tiers);
      result.ok = reason.empty();
    }
    // TIERS comes before POLICY in the table.
    if (result.ok && option.id == OptionId::kPolicy) {
      reason = why_not_this_policy(*options);
      result.ok = reason.empty();
    }
    if (!result.ok) {
      return complain(kUsage, shown + " is not accepted" +
                                  (reason.empty() ? "" : " (" + reason + ")") +
                                  "; accepted: " + option.accepted);
    }
  }
  return 0;
}

// Says what will not work with this program. False: it must be started without the library.
bool judge_program(const std::string& path) {
  const ProgramFacts facts = read_program(path);
  const std::string name = one_line(path);
  if (facts.elf.sanitizer != Sanitizer::kNone) {
    warn(name + " is built with " + to_string(facts.elf.sanitizer) +
         ", which needs its own malloc: it is started without heaptier");
    return false;
  }
  if (facts.elf.elf && facts.elf.foreign) {
    warn(name + " is built for another machine or word size: heaptier cannot be preloaded into it");
  } else if (facts.elf.elf && !facts.elf.dynamic) {
    warn(name + " is statically linked: nothing can be preloaded into it");
  } else if (facts.privileged) {
    warn(name +
         " is setuid, setgid or has file capabilities: the system ignores LD_PRELOAD for it");
  }
  return true;
}

void set_environment(const CommandLine& line, const std::string* library) {
  for (const OptionInfo& option : option_table()) {
    const Given& given = line.given[static_cast<std::size_t>(option.id)];
    if (!given.value.empty()) setenv(option.env, given.value.c_str(), 1);
  }
  // The process id stays the same through exec.
  setenv("HEAPTIER_STATS_PID", std::to_string(getpid()).c_str(), 1);
  if (library == nullptr) return;
  std::string preload = *library;
  if (const char* before = std::getenv("LD_PRELOAD"); before != nullptr && *before != '\0') {
    const std::string_view list = before;
    if (list == preload || list.starts_with(preload + ":") || list.starts_with(preload + " "))
      return;
    preload = preload + ":" + before;
  }
  setenv("LD_PRELOAD", preload.c_str(), 1);
}

}  // namespace

int run(int argc, char** argv) {
  CommandLine line;
  const std::vector<std::string> words(argv + 1, argv + argc);
  const int parsed = parse_words(words, &line);
  if (parsed < 0) return print_run_help();
  if (parsed != 0) return parsed;
  Options options;
  if (const int refused = check_options(&line, &options); refused != 0) return refused;

  const std::string& name = line.command.front();
  const Located program = find_program(name);
  if (program.exit_code != 0) {
    return complain(program.exit_code,
                    one_line(name) + ": " + program.problem + meant_as_value(words, name));
  }
  std::string problem;
  const std::optional<std::string> library = find_library(&problem);
  if (!library) return complain(kCannotStart, problem);
  const bool preload = judge_program(program.path);
  set_environment(line, preload ? &*library : nullptr);

  std::vector<char*> arguments;
  for (std::string& word : line.command) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  std::fflush(nullptr);
  execvp(arguments[0], arguments.data());  // not execv: a script without "#!" is the shell's
  const int error = errno;
  return complain(error == ENOENT ? kNotFound : kNotExecutable,
                  one_line(name) + ": " +
                      (error == ENOENT ? "its interpreter was not found" : std::strerror(error)));
}

}  // namespace heaptier::cli
