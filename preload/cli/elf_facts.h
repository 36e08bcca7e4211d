// What a program file says about itself that decides whether a library can be preloaded into it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace heaptier::cli {

enum class Sanitizer : std::uint8_t { kNone, kAddress, kThread, kMemory };
const char* to_string(Sanitizer sanitizer);

struct ElfFacts {
  bool elf = false;
  bool foreign = false;  // another word size or machine than this command's
  bool dynamic = false;  // has an interpreter (ld.so), which is who reads LD_PRELOAD
  Sanitizer sanitizer = Sanitizer::kNone;
  std::string script;  // not ELF: the interpreter named after "#!", without arguments
};

// Reads `bytes` at `offset` into `to`; false: not all of it is there.
using ReadAt = std::function<bool(std::uint64_t offset, void* to, std::size_t bytes)>;

// Never fails: what is cut off or makes no sense counts as absent.
ElfFacts read_elf(const ReadAt& read_at);

struct ProgramFacts {
  ElfFacts elf;
  bool privileged =
      false;  // setuid, setgid or file capabilities that take effect: ld.so ignores LD_PRELOAD
};
// Of the file at `path`, following "#!" up to four times. `privileged` is of the file that is ELF.
ProgramFacts read_program(const std::string& path);

}  // namespace heaptier::cli
