// Devices and pipes that hold on to pages while everything is evicted without a pause: O_DIRECT
// reads in flight (pread and Linux AIO), io_uring fixed buffers, vmsplice. A page discarded while a
// device still writes to its frame loses the device's bytes: this is the proof that none is
// (design: "Devices write without faulting").
#include <fcntl.h>
#include <liburing.h>
#include <linux/aio_abi.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "tests/support/managed.h"

namespace heaptier::test {
namespace {

constexpr std::size_t kChunk = 64 * kKiB;
constexpr std::size_t kChunks = 64;  // a 4 MiB file, every chunk with its own seed

// -1 where the file system has no O_DIRECT.
int direct_file() {
  char name[] = "/tmp/heaptier-direct-XXXXXX";
  const int fd = mkostemp(name, O_CLOEXEC);
  std::vector<unsigned char> chunk(kChunk);
  for (std::size_t i = 0; i < kChunks; ++i) {
    fill(chunk.data(), kChunk, 100 + i);
    EXPECT_EQ(write(fd, chunk.data(), kChunk), static_cast<ssize_t>(kChunk));
  }
  fsync(fd);
  close(fd);
  const int direct = open(name, O_RDWR | O_DIRECT | O_CLOEXEC);
  unlink(name);
  return direct;
}

#define DIRECT_FILE_OR_SKIP(fd) \
  const int fd = direct_file(); \
  if (fd < 0) GTEST_SKIP() << "the file system of /tmp has no O_DIRECT"

std::vector<Evictor::Range> whole(const Area& area) {
  return {{area.data(), area.size()}};
}

TEST(Pins, DirectReadsInFlight) {
  DIRECT_FILE_OR_SKIP(fd);
  Area area(2 * kPageblock, 1);
  {
    const Evictor evictor(whole(area));
    std::vector<std::thread> readers;
    for (std::size_t t = 0; t < 3; ++t) {
      readers.emplace_back([&, t] {
        unsigned char* const mine = area.at(t * kMiB + 128 * kKiB);
        for (std::size_t round = 0; round < 400; ++round) {
          const std::size_t chunk = (round * 7 + t * 13) % kChunks;
          ASSERT_EQ(pread(fd, mine, kChunk, static_cast<off_t>(chunk * kChunk)),
                    static_cast<ssize_t>(kChunk))
              << strerror(errno);
          if (round % 4 == 0) evictor.await_round();
          ASSERT_TRUE(pattern_holds(mine, kChunk, 100 + chunk)) << "round " << round;
        }
      });
    }
    for (auto& reader : readers) reader.join();
  }
  EXPECT_TRUE(area.holds(3 * kMiB, area.size()));
  close(fd);
}

TEST(Pins, DirectReadsRaceWithTheApplicationsOwnWrites) {
  // The halves of one page belong to a device and to the application: neither may overwrite the
  // other's half.
  DIRECT_FILE_OR_SKIP(fd);
  Area area(kPageblock, 2);
  unsigned char* const page = area.at(50 * kPage);
  const Evictor evictor(whole(area));
  for (std::uint64_t round = 0; round < 1000; ++round) {
    const std::size_t chunk = round % kChunks;
    std::thread device([&] {
      if (pread(fd, page, 2048, static_cast<off_t>(chunk * kChunk)) != 2048) {
        ADD_FAILURE() << strerror(errno);
      }
    });
    fill(page + 2048, 2048, 5000 + round);
    device.join();
    ASSERT_TRUE(pattern_holds(page, 2048, 100 + chunk)) << "device's half, round " << round;
    ASSERT_TRUE(pattern_holds(page + 2048, 2048, 5000 + round))
        << "application's half, round " << round;
  }
  close(fd);
}

TEST(Pins, DirectWritesInFlight) {
  DIRECT_FILE_OR_SKIP(fd);
  Area area(kPageblock, 3);
  std::vector<unsigned char> seen(kChunk + kPage);
  auto* const aligned = reinterpret_cast<unsigned char*>(
      (reinterpret_cast<std::uintptr_t>(seen.data()) + kPage - 1) & ~(kPage - 1));
  const Evictor evictor(whole(area));
  for (std::uint64_t round = 0; round < 200; ++round) {
    unsigned char* const from = area.at((round % 16) * kChunk);
    fill(from, kChunk, 9000 + round);
    ASSERT_EQ(pwrite(fd, from, kChunk, 0), static_cast<ssize_t>(kChunk)) << strerror(errno);
    ASSERT_EQ(pread(fd, aligned, kChunk, 0), static_cast<ssize_t>(kChunk)) << strerror(errno);
    ASSERT_TRUE(pattern_holds(aligned, kChunk, 9000 + round)) << "round " << round;
  }
  close(fd);
}

TEST(Pins, LinuxAio) {
  DIRECT_FILE_OR_SKIP(fd);
  aio_context_t context = 0;
  if (syscall(SYS_io_setup, 32, &context) != 0) GTEST_SKIP() << "no Linux AIO: " << strerror(errno);
  Area area(kPageblock, 4);
  const Evictor evictor(whole(area));
  constexpr std::size_t kDepth = 16;
  for (std::size_t round = 0; round < 60; ++round) {
    iocb blocks[kDepth] = {};
    iocb* list[kDepth];
    for (std::size_t i = 0; i < kDepth; ++i) {
      blocks[i].aio_lio_opcode = IOCB_CMD_PREAD;
      blocks[i].aio_fildes = static_cast<unsigned>(fd);
      blocks[i].aio_buf = reinterpret_cast<std::uintptr_t>(area.at(i * kChunk));
      blocks[i].aio_nbytes = kChunk;
      blocks[i].aio_offset = static_cast<long long>((i + round) % kChunks * kChunk);
      list[i] = &blocks[i];
    }
    ASSERT_EQ(syscall(SYS_io_submit, context, kDepth, list), static_cast<long>(kDepth));
    io_event events[kDepth];
    ASSERT_EQ(syscall(SYS_io_getevents, context, kDepth, kDepth, events, nullptr),
              static_cast<long>(kDepth));
    for (std::size_t i = 0; i < kDepth; ++i) {
      ASSERT_EQ(events[i].res, static_cast<long long>(kChunk));
      ASSERT_TRUE(pattern_holds(area.at(i * kChunk), kChunk, 100 + (i + round) % kChunks))
          << "round " << round << " chunk " << i;
    }
  }
  syscall(SYS_io_destroy, context);
  EXPECT_TRUE(area.holds(kDepth * kChunk, area.size()));
  close(fd);
}

TEST(Pins, FixedBuffersWhileEvicted) {
  io_uring ring{};
  if (const int r = io_uring_queue_init(32, &ring, 0); r < 0) {
    GTEST_SKIP() << "no io_uring on this host: " << strerror(-r);
  }
  DIRECT_FILE_OR_SKIP(fd);
  Area area(2 * kPageblock, 6);
  const Evictor evictor(whole(area));
  evictor.await_round();
  constexpr std::size_t kBuffers = 8;
  // Every other chunk: pinned and unpinned pages are neighbours.
  iovec buffers[kBuffers];
  for (std::size_t i = 0; i < kBuffers; ++i) buffers[i] = {area.at(i * 2 * kChunk), kChunk};
  for (int life = 0; life < 5; ++life) {
    const int registered = io_uring_register_buffers(&ring, buffers, kBuffers);
    if (registered == -ENOMEM) {
      io_uring_queue_exit(&ring);
      GTEST_SKIP() << "RLIMIT_MEMLOCK is too small for fixed buffers";
    }
    ASSERT_EQ(registered, 0) << strerror(-registered);
    for (std::size_t round = 0; round < 30; ++round) {
      for (std::size_t i = 0; i < kBuffers; ++i) {
        io_uring_prep_read_fixed(io_uring_get_sqe(&ring), fd, buffers[i].iov_base, kChunk,
                                 ((round + i) % kChunks) * kChunk, static_cast<int>(i));
      }
      ASSERT_EQ(io_uring_submit_and_wait(&ring, kBuffers), static_cast<int>(kBuffers));
      for (std::size_t i = 0; i < kBuffers; ++i) {
        io_uring_cqe* cqe = nullptr;
        ASSERT_EQ(io_uring_wait_cqe(&ring, &cqe), 0);
        EXPECT_EQ(cqe->res, static_cast<int>(kChunk));
        io_uring_cqe_seen(&ring, cqe);
      }
      if (round % 8 == 0) evictor.await_round();
      for (std::size_t i = 0; i < kBuffers; ++i) {
        ASSERT_TRUE(pattern_holds(buffers[i].iov_base, kChunk, 100 + (round + i) % kChunks))
            << "life " << life << " round " << round << " buffer " << i;
        if (life % 2 == 1)
          fill(buffers[i].iov_base, kChunk, round);  // the application writes between
      }
    }
    ASSERT_EQ(io_uring_unregister_buffers(&ring), 0);
    evictor.await_round();  // and out they go
  }
  io_uring_queue_exit(&ring);
  for (std::size_t i = 0; i + 1 < kBuffers; ++i) {
    EXPECT_TRUE(area.holds((2 * i + 1) * kChunk, (2 * i + 2) * kChunk));
  }
  close(fd);
}

TEST(Pins, SplicedPagesKeepTheirBytes) {
  // A page lent to a pipe by vmsplice and not touched since shows the same bytes to the pipe's
  // reader, whatever happens to it at home meanwhile.
  Area area(kPageblock, 8);
  const Evictor evictor(whole(area));
  std::vector<unsigned char> seen(8 * kPage);
  for (std::size_t round = 0; round < 150; ++round) {
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    const std::size_t from = (round * 11 % 500) * kPage;
    const iovec part{area.at(from), 8 * kPage};
    ASSERT_EQ(vmsplice(ends[1], &part, 1, 0), static_cast<ssize_t>(8 * kPage)) << strerror(errno);
    evictor.await_round();
    std::size_t done = 0;
    while (done < seen.size()) {
      const ssize_t n = read(ends[0], seen.data() + done, seen.size() - done);
      ASSERT_GT(n, 0);
      done += static_cast<std::size_t>(n);
    }
    ASSERT_TRUE(pattern_holds(seen.data(), seen.size(), area.seed(), from)) << "round " << round;
    close(ends[0]);
    close(ends[1]);
  }
  EXPECT_TRUE(area.holds());
}

TEST(Pins, SplicedPagesShowLaterWrites) {
  // Linux lends the page itself: what the application writes before the reader comes is seen by the
  // reader (this is how zero-copy senders fill a header late). A page moved away and back is
  // another matter only if its frame changed: a pinned page must stay.
  Area area(kPageblock, 9);
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  unsigned char* const page = area.at(100 * kPage);
  unsigned char seen[kPage];
  const Evictor evictor(whole(area));
  long stale = 0;
  constexpr int kRounds = 100;
  for (std::uint64_t round = 0; round < kRounds; ++round) {
    fill(page, kPage, 300 + round);
    const iovec part{page, kPage};
    ASSERT_EQ(vmsplice(ends[1], &part, 1, 0), static_cast<ssize_t>(kPage));
    evictor.await_round();
    page[10] = 0xee;
    ASSERT_EQ(read(ends[0], seen, kPage), static_cast<ssize_t>(kPage));
    if (seen[10] != 0xee) ++stale;
    seen[10] = pattern_byte(300 + round, 10);
    ASSERT_TRUE(pattern_holds(seen, kPage, 300 + round)) << "round " << round;
    ASSERT_EQ(page[10], 0xee);
  }
  // vmsplice takes a plain reference, which the kernel's own swap breaks in the same way: told, not
  // failed.
  if (stale != 0) std::printf("%ld of %d spliced pages changed their frame\n", stale, kRounds);
  close(ends[0]);
  close(ends[1]);
}

// A huge page of which a pipe holds a part, and of which only a part is to go: before Linux 6.18
// the kernel tried that for ever, with the mapping locked.
class HeldHugePage : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const auto start = reinterpret_cast<std::uintptr_t>(area_.data());
    block_ = area_.at((kPageblock - start % kPageblock) % kPageblock);
    if (madvise(block_, kPageblock, 25 /* MADV_COLLAPSE, Linux 6.1 */) != 0) {
      GTEST_SKIP() << "the kernel makes no huge page: " << strerror(errno);
    }
  }
  unsigned char* page(std::size_t i) const { return block_ + i * kPage; }

  Area area_{3 * kPageblock, 31};
  unsigned char* block_ = nullptr;
};

TEST_P(HeldHugePage, IsNotWaitedFor) {
  const std::string how = GetParam();
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const iovec part{page(3), kPage};
  ASSERT_EQ(vmsplice(ends[1], &part, 1, 0), static_cast<ssize_t>(kPage)) << strerror(errno);
  if (how == "in_two_mappings") {
    ASSERT_EQ(mprotect(page(300), kPage, PROT_READ), 0);
    ASSERT_EQ(mprotect(page(300), kPage, PROT_READ | PROT_WRITE), 0);
  }
  if (how == "without_a_part") {
    ASSERT_EQ(madvise(page(500), 12 * kPage, MADV_DONTNEED), 0);
    fill(page(500), 12 * kPage, area_.seed(), static_cast<std::size_t>(page(500) - area_.data()));
  }
  {
    const Evictor evictor({{page(0), 16 * kPage}, {page(100), 16 * kPage}});
    for (int i = 0; i < 3; ++i) {
      evictor.await_round();
      // Nobody waits for the address space.
      void* const other = mmap(nullptr, kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      ASSERT_NE(other, MAP_FAILED);
      munmap(other, kPage);
      EXPECT_TRUE(area_.holds());
    }
    unsigned char seen[kPage];
    ASSERT_EQ(read(ends[0], seen, kPage), static_cast<ssize_t>(kPage));
    ASSERT_TRUE(
        pattern_holds(seen, kPage, area_.seed(), static_cast<std::size_t>(page(3) - area_.data())));
    evictor.await_round();
  }
  EXPECT_TRUE(area_.holds());
  close(ends[0]);
  close(ends[1]);
}

INSTANTIATE_TEST_SUITE_P(Of, HeldHugePage,
                         testing::Values("whole", "in_two_mappings", "without_a_part"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace heaptier::test
