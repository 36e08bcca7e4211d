// What a program file tells about preloading, on real files and on broken ones.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

#include "preload/cli/elf_facts.h"

namespace heaptier::cli {
namespace {

std::string read_all(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

ElfFacts facts_of(const std::string& bytes) {
  return read_elf([&bytes](std::uint64_t offset, void* to, std::size_t count) {
    if (offset > bytes.size() || count > bytes.size() - offset) return false;
    std::memcpy(to, bytes.data() + offset, count);
    return true;
  });
}

// The program that CMake linked under this name; skips where the compiler could not.
#define PROGRAM_OR_SKIP(path, name)     \
  const char* path = std::getenv(name); \
  if (path == nullptr || *path == '\0') GTEST_SKIP() << name << " could not be linked here"

TEST(ElfFacts, Dynamic) {
  const ProgramFacts facts = read_program("/proc/self/exe");
  EXPECT_TRUE(facts.elf.elf);
  EXPECT_TRUE(facts.elf.dynamic);
  EXPECT_FALSE(facts.elf.foreign);
  EXPECT_FALSE(facts.privileged);
  EXPECT_EQ(facts.elf.sanitizer, Sanitizer::kNone);
}

TEST(ElfFacts, Static) {
  PROGRAM_OR_SKIP(path, "cli_static");
  const ProgramFacts facts = read_program(path);
  EXPECT_TRUE(facts.elf.elf);
  EXPECT_FALSE(facts.elf.dynamic);
}

TEST(ElfFacts, StaticPieHasADynamicSectionButNoInterpreter) {
  PROGRAM_OR_SKIP(path, "cli_static_pie");
  const ProgramFacts facts = read_program(path);
  EXPECT_TRUE(facts.elf.elf);
  EXPECT_FALSE(facts.elf.dynamic);
}

TEST(ElfFacts, AddressSanitizer) {
  PROGRAM_OR_SKIP(path, "cli_asan");
  const ProgramFacts facts = read_program(path);
  EXPECT_TRUE(facts.elf.dynamic);
  EXPECT_EQ(facts.elf.sanitizer, Sanitizer::kAddress);
}

TEST(ElfFacts, ThreadSanitizer) {
  PROGRAM_OR_SKIP(path, "cli_tsan");
  EXPECT_EQ(read_program(path).elf.sanitizer, Sanitizer::kThread);
}

TEST(ElfFacts, Scripts) {
  EXPECT_EQ(facts_of("#!/bin/sh\nexit 0\n").script, "/bin/sh");
  EXPECT_EQ(facts_of("#! \t/usr/bin/env python3\n").script, "/usr/bin/env");
  EXPECT_EQ(facts_of("#!/bin/sh").script, "/bin/sh");
  EXPECT_EQ(facts_of("#!\n").script, "");
  EXPECT_EQ(facts_of("#!").script, "");
  EXPECT_LE(facts_of("#!" + std::string(10000, 'x')).script.size(), 256u);
}

TEST(ElfFacts, ScriptIsFollowedToItsInterpreter) {
  const std::string path = testing::TempDir() + "/heaptier_script";
  std::ofstream(path) << "#!/proc/self/exe\n";
  EXPECT_TRUE(read_program(path).elf.dynamic);
  std::ofstream(path) << "#!" << path << "\n";  // its own interpreter: ends all the same
  EXPECT_FALSE(read_program(path).elf.elf);
  std::remove(path.c_str());
  EXPECT_FALSE(read_program(path).elf.elf);
}

TEST(ElfFacts, NoProgram) {
  EXPECT_FALSE(facts_of("").elf);
  EXPECT_FALSE(facts_of("#").elf);
  EXPECT_FALSE(facts_of("hello, world, this is text").elf);
  EXPECT_TRUE(facts_of(std::string("\x7f"
                                   "ELF\x01",
                                   5) +
                       std::string(100, '\0'))
                  .foreign);  // 32 bits
}

// Cut off anywhere, any bytes changed: an answer, no crash, no memory beyond what the file has.
TEST(ElfFacts, BrokenFiles) {
  const std::string whole = read_all("/proc/self/exe");
  ASSERT_TRUE(facts_of(whole).dynamic);
  std::mt19937 random(3);
  for (std::size_t size = 0; size < 4096; size += 7) facts_of(whole.substr(0, size));
  std::string head = whole.substr(0, 8192);
  for (int round = 0; round < 20000; ++round) {
    std::string broken = head;
    for (int i = 0; i < 8; ++i) broken[random() % 1024] = static_cast<char>(random());
    facts_of(broken);
  }
  for (int round = 0; round < 300; ++round) {
    std::string broken = whole;
    for (int i = 0; i < 4; ++i) broken[random() % 1024] = static_cast<char>(random());
    facts_of(broken);
  }
}

}  // namespace
}  // namespace heaptier::cli
