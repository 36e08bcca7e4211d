// bench_fork: how long fork() takes, and how soon a child reads a page that was stored. A heap of
// 64 KiB blocks is filled with compressible data; under heaptier every second MiB of it is demoted
// to the store; then the program forks a child that exits at once (or reads one block first), again
// and again.
//
//   bench_fork [HEAP_MIB]
//
// Commands:  fork   -> fork_ns=                     the parent's time in fork(), child exits at
// once
//            read   -> fork_ns= read_ns= right=     read_ns: from before fork() until the child has
//            read one byte of a
//                                                   block that is stored (heaptier) or resident
//                                                   (otherwise)
//            state  -> heap_mib= resident_mib= stored_pages= heaptier=
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "bench/harness/clock.h"
#include "bench/harness/optional_heaptier.h"
#include "bench/harness/random.h"
#include "bench/harness/session.h"

namespace heaptier::bench {
namespace {

constexpr std::size_t kBlock = 65536;
constexpr std::size_t kBlocksPerMiB = (1u << 20) / kBlock;
constexpr std::size_t kPage = 4096;

// What the child tells its parent; in memory shared by both.
struct Told {
  std::uint64_t read_at;
  std::uint64_t right;
};

class ForkHeap {
 public:
  explicit ForkHeap(std::size_t mib) : blocks_(mib * kBlocksPerMiB) {
    void* shared = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) std::_Exit(1);
    told_ = static_cast<Told*>(shared);
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      blocks_[i] = static_cast<unsigned char*>(std::malloc(kBlock));
      if (blocks_[i] == nullptr) std::_Exit(1);
      for (std::size_t at = 0; at < kBlock; ++at) blocks_[i][at] = byte_of(i, at);
    }
    if (under_heaptier() && heaptier_wake() < 0) {
      std::fputs("bench_fork: heaptier cannot wake up\n", stderr);
    }
  }

  // Blocks in every second MiB are the stored half.
  static bool stored_half(std::size_t block) { return (block / kBlocksPerMiB) % 2 == 1; }

  void demote_half() {
    if (heaptier_demote == nullptr) return;
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      if (stored_half(i)) (void)heaptier_demote(blocks_[i], kBlock);
    }
  }

  std::uint64_t stored_pages() const {
    if (heaptier_where == nullptr) return 0;
    std::uint64_t stored = 0;
    unsigned char places[kBlock / kPage + 1];
    for (unsigned char* block : blocks_) {
      const int n = heaptier_where(block, kBlock, places);
      for (int i = 0; i < n; ++i)
        stored += places[i] == HEAPTIER_STORED || places[i] == HEAPTIER_FILLED;
    }
    return stored;
  }

  void fork_once(bool child_reads, Reply& reply) {
    // The middle of a block of the stored half: its page is wholly the block's own.
    std::size_t block =
        random_.below(static_cast<std::uint32_t>(blocks_.size() / kBlocksPerMiB / 2));
    block = (2 * block + 1) * kBlocksPerMiB + random_.below(kBlocksPerMiB);
    const std::size_t at = kBlock / 2 + 123;
    *told_ = {};
    const std::uint64_t start = wall_nanos();
    const pid_t child = fork();
    const std::uint64_t end = wall_nanos();
    if (child == 0) {
      if (child_reads) {
        const unsigned char got = *const_cast<volatile unsigned char*>(blocks_[block] + at);
        told_->read_at = wall_nanos();
        told_->right = got == byte_of(block, at);
      }
      _exit(0);
    }
    int status = -1;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
      reply.add("error", "child_status_" + std::to_string(status));
      return;
    }
    reply.add("fork_ns", end - start);
    if (child_reads) reply.add("read_ns", told_->read_at - start).add("right", told_->right);
  }

  std::size_t mib() const { return blocks_.size() / kBlocksPerMiB; }

 private:
  // Text-like: half of the bytes repeat, so that a page is worth storing.
  static unsigned char byte_of(std::size_t block, std::size_t at) {
    return static_cast<unsigned char>(at % 64 < 40 ? 'a' + at % 64 % 26
                                                   : mix(block * kBlock + at) % 251);
  }

  std::vector<unsigned char*> blocks_;
  Told* told_ = nullptr;
  Random random_{7};
};

std::uint64_t resident_mib() {
  std::uint64_t size = 0;
  std::uint64_t resident = 0;
  if (std::FILE* f = std::fopen("/proc/self/statm", "r")) {
    if (std::fscanf(f, "%lu %lu", &size, &resident) != 2) resident = 0;
    std::fclose(f);
  }
  return resident * kPage >> 20;
}

int serve(std::size_t mib) {
  ForkHeap heap(mib);
  heap.demote_half();
  Reply().add("ready", std::uint64_t{1});
  for (std::string line; next_command(line);) {
    const Command command(line);
    if (command.empty()) continue;
    Reply reply;
    if (command.verb() == "fork" || command.verb() == "read") {
      heap.fork_once(command.verb() == "read", reply);
    } else if (command.verb() == "state") {
      reply.add("heap_mib", static_cast<std::uint64_t>(heap.mib()))
          .add("resident_mib", resident_mib());
      reply.add("stored_pages", heap.stored_pages());
      reply.add("heaptier", std::uint64_t{under_heaptier()});
    } else {
      reply.add("error", std::string("unknown_command"));
    }
  }
  return 0;
}

}  // namespace
}  // namespace heaptier::bench

int main(int argc, char** argv) {
  const unsigned long mib = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 400;
  if (mib < 2 || mib > 65536) {
    std::fputs("usage: bench_fork [HEAP_MIB]  (2 to 65536)\n", stderr);
    return 2;
  }
  return heaptier::bench::serve(mib);
}
