#include "preload/cli/elf_facts.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstring>
#include <string_view>
#include <vector>

namespace heaptier::cli {
namespace {

#if defined(__x86_64__)
constexpr std::uint16_t kMachine = EM_X86_64;
#elif defined(__aarch64__)
constexpr std::uint16_t kMachine = EM_AARCH64;
#else
#error "which ELF machine is this?"
#endif

// More would be no program that anybody runs; bounds the work on a hostile file.
constexpr std::size_t kMaxSegments = 512;
constexpr std::size_t kMaxDynamic = 4096;
constexpr std::size_t kMaxStrings = std::size_t{64} << 20;

struct Program {
  std::vector<Elf64_Phdr> segments;

  // Where the byte that is mapped at `address` lies in the file.
  bool file_offset(std::uint64_t address, std::uint64_t* offset) const {
    for (const Elf64_Phdr& segment : segments) {
      if (segment.p_type != PT_LOAD || address < segment.p_vaddr) continue;
      if (address - segment.p_vaddr >= segment.p_filesz) continue;
      *offset = address - segment.p_vaddr + segment.p_offset;
      return true;
    }
    return false;
  }
};

// The string table tells both: gcc names the sanitizer's library in it (DT_NEEDED), clang links the
// runtime in and exports its entry points.
Sanitizer find_sanitizer(const std::string& strings) {
  static constexpr struct {
    std::string_view prefix;
    Sanitizer sanitizer;
  } kSigns[] = {{"libasan.so", Sanitizer::kAddress},  {"libclang_rt.asan", Sanitizer::kAddress},
                {"libtsan.so", Sanitizer::kThread},   {"libclang_rt.tsan", Sanitizer::kThread},
                {"__asan_init", Sanitizer::kAddress}, {"__tsan_init", Sanitizer::kThread},
                {"__msan_init", Sanitizer::kMemory}};
  for (const auto& sign : kSigns) {
    std::size_t at = strings.find(sign.prefix);
    for (; at != std::string::npos; at = strings.find(sign.prefix, at + 1)) {
      if (at == 0 || strings[at - 1] == '\0') return sign.sanitizer;
    }
  }
  return Sanitizer::kNone;
}

Sanitizer read_dynamic(const ReadAt& read_at, const Program& program, const Elf64_Phdr& segment) {
  std::uint64_t strings_at = 0;
  std::uint64_t strings_size = 0;
  for (std::size_t i = 0; i < kMaxDynamic && i < segment.p_filesz / sizeof(Elf64_Dyn); ++i) {
    Elf64_Dyn entry;
    if (!read_at(segment.p_offset + i * sizeof entry, &entry, sizeof entry)) break;
    if (entry.d_tag == DT_NULL) break;
    if (entry.d_tag == DT_STRTAB) strings_at = entry.d_un.d_ptr;
    if (entry.d_tag == DT_STRSZ) strings_size = entry.d_un.d_val;
  }
  std::uint64_t offset = 0;
  if (strings_size == 0 || strings_size > kMaxStrings) return Sanitizer::kNone;
  if (!program.file_offset(strings_at, &offset)) return Sanitizer::kNone;
  // The last byte first: a size that the file does not have must not cost its memory.
  char last = 0;
  if (!read_at(offset + strings_size - 1, &last, 1)) return Sanitizer::kNone;
  std::string strings(strings_size, '\0');
  if (!read_at(offset, strings.data(), strings.size())) return Sanitizer::kNone;
  return find_sanitizer(strings);
}

std::string read_script_line(const ReadAt& read_at) {
  std::string line;
  for (std::uint64_t at = 2; at < 256; ++at) {
    char c = 0;
    if (!read_at(at, &c, 1) || c == '\n' || c == '\0') break;
    if ((c == ' ' || c == '\t') && line.empty()) continue;
    if (c == ' ' || c == '\t') break;
    line.push_back(c);
  }
  return line;
}

class File {
 public:
  explicit File(const std::string& path)
      : fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {}
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int fd() const { return fd_; }

 private:
  int fd_;
};

bool is_privileged(int fd) {
  struct stat status;
  if (fstat(fd, &status) != 0) return false;
  if ((status.st_mode & S_ISUID) != 0 && status.st_uid != geteuid()) return true;
  if ((status.st_mode & S_ISGID) != 0 && status.st_gid != getegid()) return true;
  return geteuid() != 0 && fgetxattr(fd, "security.capability", nullptr, 0) > 0;
}

}  // namespace

const char* to_string(Sanitizer sanitizer) {
  switch (sanitizer) {
    case Sanitizer::kNone:
      return "no sanitizer";
    case Sanitizer::kAddress:
      return "AddressSanitizer";
    case Sanitizer::kThread:
      return "ThreadSanitizer";
    case Sanitizer::kMemory:
      return "MemorySanitizer";
  }
  return "?";
}

ElfFacts read_elf(const ReadAt& read_at) {
  ElfFacts facts;
  unsigned char ident[EI_NIDENT] = {};
  if (!read_at(0, ident, 2)) return facts;
  if (ident[0] == '#' && ident[1] == '!') {
    facts.script = read_script_line(read_at);
    return facts;
  }
  if (!read_at(0, ident, sizeof ident) || std::memcmp(ident, ELFMAG, SELFMAG) != 0) return facts;
  facts.elf = true;
  Elf64_Ehdr header;
  if (ident[EI_CLASS] != ELFCLASS64 || !read_at(0, &header, sizeof header) ||
      header.e_machine != kMachine) {
    facts.foreign = true;
    return facts;
  }
  if (header.e_phentsize != sizeof(Elf64_Phdr)) return facts;

  Program program;
  for (std::size_t i = 0; i < header.e_phnum && i < kMaxSegments; ++i) {
    Elf64_Phdr segment;
    if (!read_at(header.e_phoff + i * sizeof segment, &segment, sizeof segment)) break;
    program.segments.push_back(segment);
    if (segment.p_type == PT_INTERP) facts.dynamic = true;
  }
  for (const Elf64_Phdr& segment : program.segments) {
    if (segment.p_type == PT_DYNAMIC) facts.sanitizer = read_dynamic(read_at, program, segment);
  }
  return facts;
}

ProgramFacts read_program(const std::string& path) {
  std::string at = path;
  ProgramFacts facts;
  for (int depth = 0; depth < 5; ++depth) {
    const File file(at);
    if (file.fd() < 0) return facts;
    facts.elf = read_elf([&file](std::uint64_t offset, void* to, std::size_t bytes) {
      return offset <= INT64_MAX &&
             pread(file.fd(), to, bytes, static_cast<off_t>(offset)) == static_cast<ssize_t>(bytes);
    });
    if (facts.elf.script.empty()) {
      facts.privileged = is_privileged(file.fd());
      return facts;
    }
    at = facts.elf.script;
  }
  return facts;
}

}  // namespace heaptier::cli
