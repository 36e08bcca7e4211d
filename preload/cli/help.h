// What `heaptier help` prints. All return the exit code.
#pragma once

namespace heaptier::cli {

int print_overview();
int print_run_help();
int print_doctor_help();
int print_ctl_help();
// The table of options: aligned text, or the README's Markdown.
int print_options(bool markdown);
int print_stats_table(bool markdown);
int print_version();

}  // namespace heaptier::cli
