// The heaptier command: an ordinary program, no part of the library that it preloads.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>
#include <vector>

#include "preload/cli/ctl.h"
#include "preload/cli/doctor.h"
#include "preload/cli/exit_codes.h"
#include "preload/cli/help.h"
#include "preload/cli/run.h"
#include "runtime/config/options.h"
#include "runtime/os/process.h"

namespace heaptier::cli {
namespace {

// Usage errors are one line on standard error, nothing on standard output.
int usage(const std::string& what) {
  std::string line = "heaptier: " + what;
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  os::write_text((line + "\n").c_str());
  return kUsage;
}

// Parses the words after the command's name. Returns 0, an exit code, or -1 for --help.
int parse(CLI::App& app, int argc, char** argv) {
  app.set_help_flag("-h,--help");
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return -1;
  } catch (const CLI::ParseError& error) {
    return usage(std::string(argv[0]) + ": " + error.what());
  }
  return 0;
}

int doctor_command(int argc, char** argv) {
  CLI::App app;
  bool json = false;
  app.add_flag("--json", json);
  const int parsed = parse(app, argc, argv);
  if (parsed != 0) return parsed < 0 ? print_doctor_help() : parsed;
  return doctor(json);
}

int ctl_command(int argc, char** argv) {
  CLI::App app;
  CtlWords words;
  app.add_flag("--json", words.json);
  app.add_flag("--no-wait", words.no_wait);
  app.add_option("words", words.words);
  const int parsed = parse(app, argc, argv);
  if (parsed != 0) return parsed < 0 ? print_ctl_help() : parsed;
  return ctl(words);
}

int help_command(int argc, char** argv) {
  CLI::App app;
  bool markdown = false;
  std::string topic;
  app.add_flag("--markdown", markdown);
  app.add_option("topic", topic);
  const int parsed = parse(app, argc, argv);
  if (parsed != 0) return parsed < 0 ? print_overview() : parsed;
  if (topic == "options") return print_options(markdown);
  if (topic == "stats") return print_stats_table(markdown);
  if (markdown) return usage("help: --markdown is for `help options` and `help stats`");
  if (topic == "run") return print_run_help();
  if (topic == "doctor") return print_doctor_help();
  if (topic == "ctl") return print_ctl_help();
  if (topic.empty() || topic == "help" || topic == "version") return print_overview();
  return usage("help: no page named " + topic + "; there are run, doctor, ctl, options and stats");
}

int version_command(int argc, char** argv) {
  CLI::App app;
  const int parsed = parse(app, argc, argv);
  if (parsed != 0) return parsed < 0 ? print_overview() : parsed;
  return print_version();
}

// An option where a command is to be.
std::string misplaced(const std::string& word) {
  const std::string name = word.substr(0, word.find('='));
  if (name.starts_with("--") && find_flag(name.substr(2)) != OptionId::kCount) {
    return name + " is an option of run: heaptier run " + name + " ...";
  }
  return name + " is no option; there are --help and --version, and the options of each command";
}

int dispatch(int argc, char** argv) {
  if (argc < 2) return usage("no command given; `heaptier help` lists them");
  const std::string command = argv[1];
  if (command == "run") return run(argc - 1, argv + 1);
  if (command == "doctor") return doctor_command(argc - 1, argv + 1);
  if (command == "ctl") return ctl_command(argc - 1, argv + 1);
  if (command == "help" || command == "--help" || command == "-h") {
    return help_command(argc - 1, argv + 1);
  }
  if (command == "version" || command == "--version" || command == "-V" || command == "-v") {
    return version_command(argc - 1, argv + 1);
  }
  if (command.starts_with('-')) return usage(misplaced(command));
  return usage("there is no command " + command + "; there are run, ctl, doctor, help and version");
}

}  // namespace
}  // namespace heaptier::cli

int main(int argc, char** argv) {
  const int code = heaptier::cli::dispatch(argc, argv);
  // A full disk or a closed pipe must not look like success.
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    return code != 0 ? code : static_cast<int>(heaptier::cli::kFailure);
  }
  return code;
}
