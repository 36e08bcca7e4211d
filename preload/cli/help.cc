#include "preload/cli/help.h"

#include <cstdio>
#include <cstring>
#include <string>

#include "preload/cli/exit_codes.h"
#include "runtime/config/options.h"
#include "runtime/config/stats.h"

namespace heaptier::cli {
namespace {

int print(const char* text) {
  std::fputs(text, stdout);
  return kSuccess;
}

// "--stats[=VALUE]", "--fast VALUE"
std::string flag_form(const OptionInfo& option) {
  const std::string flag = std::string("--") + option.flag;
  if (option.bare == nullptr) return flag + " VALUE";
  return std::strcmp(option.accepted, "0 or 1") == 0 ? flag : flag + "[=VALUE]";
}

// A cell of a Markdown table: '|' would end it, '<' begin a tag.
std::string cell(const char* text) {
  std::string out;
  for (const char* p = text; *p != '\0'; ++p) {
    if (*p == '|') out.push_back('\\');
    if (*p == '<') {
      out += "&lt;";
    } else {
      out.push_back(*p);
    }
  }
  return out;
}

// Where a flow leads, for the documentation.
std::string help_of(const StatInfo& stat) {
  std::string text = stat.help;
  if (stat.kind == StatKind::kFlow) {
    text += std::string(" (") + to_string(stat.from) + " -> " + to_string(stat.to) + ")";
  }
  return text;
}

const char* kind_of(const StatInfo& stat) {
  return stat.kind == StatKind::kGauge ? "gauge" : "counter";
}

}  // namespace

int print_overview() {
  return print(
      "heaptier keeps the hot part of a program's heap in fast memory and the rest compressed.\n"
      "\n"
      "  heaptier run [options] -- command [args]   run a program with heaptier\n"
      "  heaptier doctor [--json]                   what this host can do, and how to enable the "
      "rest\n"
      "  heaptier ctl [PID command]                 what runs with heaptier, and what it does\n"
      "  heaptier help [run|doctor|ctl|options|stats]  this page, or one of its own\n"
      "  heaptier version\n"
      "\n"
      "Example: heaptier run --fast 50% --stats -- redis-server\n");
}

int print_run_help() {
  std::printf(
      "heaptier run [options] -- command [args]\n"
      "\n"
      "Runs the command with libheaptier.so preloaded. Each option is also an environment "
      "variable, which\n"
      "the flag overrides: `heaptier help options`. HEAPTIER_LIB names another library.\n"
      "\n");
  for (const OptionInfo& option : option_table()) {
    std::printf("  %-20s  %s\n  %-20s  accepted: %s; default: %s\n", flag_form(option).c_str(),
                option.help, "", option.accepted, option.fallback);
  }
  return print(
      "\n"
      "Exit status: the command's; 2 an option is not accepted, 125 heaptier cannot be preloaded,\n"
      "126 the command cannot be executed, 127 it was not found.\n");
}

int print_doctor_help() {
  return print(
      "heaptier doctor [--json]\n"
      "\n"
      "Looks at this host and says line by line what works (ok), what works less well (limited) "
      "and what\n"
      "does not (missing), with the exact command or setting that would change it; then the tiers "
      "of memory\n"
      "nodes, fastest first, and why they are ranked so (HEAPTIER_TIERS, if set, says otherwise). "
      "Changes nothing.\n"
      "Exit status: 0 tiering works here, 1 it does not.\n");
}

int print_ctl_help() {
  return print(
      "heaptier ctl [--json]\n"
      "heaptier ctl PID stats|tiers [--json]\n"
      "heaptier ctl PID drain node:N [--no-wait] [--json]\n"
      "heaptier ctl PID undrain node:N [--json]\n"
      "\n"
      "Asks processes of this user (root: of every user) that run with heaptier and are awake. "
      "Alone: which\n"
      "there are, with the size of their heap, what of it is in memory, on slow memory nodes, and "
      "stored.\n"
      "\n"
      "  stats    the numbers of the exit report, now (`heaptier help stats`)\n"
      "  tiers    the chain of tiers: what of the heap is on each, and its room\n"
      "  drain    vacates a memory node of the chain: its pages go to the other nodes, and new "
      "memory stays\n"
      "           off it while those have room. Waits until all that can go has gone; with "
      "--no-wait it\n"
      "           goes on by itself. What it is interrupted in goes on, too, until undrain.\n"
      "  undrain  lets memory come from there again\n"
      "\n"
      "Exit status: 0 done, and after drain the node holds nothing of the heap; 1 something is "
      "left there\n"
      "(which, and why, is said), or the process cannot be reached; 2 a command, process id or "
      "node that is\n"
      "not accepted.\n");
}

int print_options(bool markdown) {
  if (markdown) {
    std::printf(
        "| variable | flag of `heaptier run` | default | accepted | what it does "
        "|\n|---|---|---|---|---|\n");
    for (const OptionInfo& option : option_table()) {
      std::printf("| `%s` | `%s` | `%s` | %s | %s |\n", option.env, flag_form(option).c_str(),
                  option.fallback, cell(option.accepted).c_str(), cell(option.help).c_str());
    }
    return kSuccess;
  }
  for (const OptionInfo& option : option_table()) {
    std::printf("%s  (%s)\n    %s\n    accepted: %s\n    default:  %s\n", option.env,
                flag_form(option).c_str(), option.help, option.accepted, option.fallback);
  }
  return print(
      "\nSizes need a unit: K, M, G or T (powers of 1024; KiB and KB are the same). An empty "
      "variable counts as not\n"
      "set. Under LD_PRELOAD a value that is not accepted costs one line and leaves the "
      "default.\n");
}

int print_stats_table(bool markdown) {
  if (markdown) std::printf("| name | group | kind | unit | meaning |\n|---|---|---|---|---|\n");
  const char* group = "";
  for (const StatInfo& stat : stats_table()) {
    if (markdown) {
      std::printf("| `%s` | %s | %s | %s | %s |\n", stat.name, stat.group, kind_of(stat), stat.unit,
                  cell(help_of(stat).c_str()).c_str());
      continue;
    }
    if (std::strcmp(group, stat.group) != 0) std::printf("%s%s\n", *group ? "\n" : "", stat.group);
    group = stat.group;
    std::printf("  %-24s %-7s %-5s  %s\n", stat.name, kind_of(stat), stat.unit,
                help_of(stat).c_str());
  }
  if (markdown) return kSuccess;
  return print(
      "\nPages are of 4 KiB. For every state, the counters that lead to it minus those that lead "
      "away from it are the\n"
      "pages in it now; imbalance_pages in the JSON says by how many pages the engine's own ledger "
      "differs.\n");
}

int print_version() {
  std::printf("heaptier %s\n", HEAPTIER_VERSION);
  return kSuccess;
}

}  // namespace heaptier::cli
