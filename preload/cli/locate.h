// Where things are: the library that belongs to this command, and the program that the user means.
#pragma once

#include <optional>
#include <string>

namespace heaptier::cli {

// The directory that this command's own file lies in; empty when /proc does not say.
std::string own_directory();

// libheaptier.so as an absolute path: HEAPTIER_LIB if set (nothing else is tried then), else ../lib
// beside this command, else the library directory of the installation. On failure *problem is one
// line's worth of why.
std::optional<std::string> find_library(std::string* problem);

// What execvp(3) would run.
struct Located {
  int exit_code = 0;    // 0, or kNotFound, kNotExecutable
  std::string path;     // exit_code 0
  std::string problem;  // else: "command not found"
};
Located find_program(const std::string& name);

}  // namespace heaptier::cli
