// io_uring on memory that is away: plain and vectored reads and writes, sockets, fixed buffers, and
// the rings' own memory supplied by the application.
#include <fcntl.h>
#include <liburing.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <thread>

#include "tests/support/managed.h"

namespace heaptier::test {
namespace {

constexpr std::uint64_t kOther = 77;
constexpr std::size_t kFrom = 9 * kPage + 512;
constexpr std::size_t kBytes = 96 * kKiB;

int scratch_file(int flags = 0) {
  char name[] = "/tmp/heaptier-uring-XXXXXX";
  const int fd = mkostemp(name, flags | O_CLOEXEC);
  unlink(name);
  return fd;
}

int scratch_file_with(std::uint64_t seed, std::size_t bytes) {
  const int fd = scratch_file();
  std::vector<unsigned char> content(bytes);
  fill(content.data(), bytes, seed);
  EXPECT_EQ(pwrite(fd, content.data(), bytes, 0), static_cast<ssize_t>(bytes));
  return fd;
}

class IoUring : public testing::TestWithParam<Place> {
 protected:
  void SetUp() override {
    const int r = io_uring_queue_init(32, &ring_, 0);
    if (r < 0) GTEST_SKIP() << "no io_uring on this host: " << strerror(-r);
    ready_ = true;
  }
  void TearDown() override {
    if (ready_) io_uring_queue_exit(&ring_);
  }
  io_uring_sqe* entry() { return io_uring_get_sqe(&ring_); }
  // Submits what was prepared and waits for one result.
  int result() {
    if (const int r = io_uring_submit_and_wait(&ring_, 1); r < 0) return r;
    io_uring_cqe* cqe = nullptr;
    if (const int r = io_uring_wait_cqe(&ring_, &cqe); r < 0) return r;
    const int res = cqe->res;
    io_uring_cqe_seen(&ring_, cqe);
    return res;
  }
  void put() { ASSERT_TRUE(area_.put_at(GetParam())); }
  Area area_{kPageblock, 21};
  io_uring ring_{};
  bool ready_ = false;
};

TEST_P(IoUring, Read) {
  const int fd = scratch_file_with(kOther, kBytes);
  put();
  io_uring_prep_read(entry(), fd, area_.at(kFrom), kBytes, 0);
  ASSERT_EQ(result(), static_cast<int>(kBytes));
  EXPECT_TRUE(pattern_holds(area_.at(kFrom), kBytes, kOther));
  EXPECT_TRUE(area_.holds_outside(kFrom, kFrom + kBytes));
  close(fd);
}

TEST_P(IoUring, ReadByAWorkerThreadOfTheKernel) {
  const int fd = scratch_file_with(kOther, kBytes);
  put();
  io_uring_sqe* const sqe = entry();
  io_uring_prep_read(sqe, fd, area_.at(kFrom), kBytes, 0);
  sqe->flags |= IOSQE_ASYNC;
  ASSERT_EQ(result(), static_cast<int>(kBytes));
  EXPECT_TRUE(pattern_holds(area_.at(kFrom), kBytes, kOther));
  EXPECT_TRUE(area_.holds_outside(kFrom, kFrom + kBytes));
  close(fd);
}

TEST_P(IoUring, Write) {
  for (const unsigned flags : {0u, unsigned{IOSQE_ASYNC}}) {
    const int fd = scratch_file();
    put();
    io_uring_sqe* const sqe = entry();
    io_uring_prep_write(sqe, fd, area_.at(kFrom), kBytes, 0);
    sqe->flags |= static_cast<unsigned char>(flags);
    ASSERT_EQ(result(), static_cast<int>(kBytes));
    std::vector<unsigned char> seen(kBytes);
    ASSERT_EQ(pread(fd, seen.data(), kBytes, 0), static_cast<ssize_t>(kBytes));
    EXPECT_TRUE(pattern_holds(seen.data(), kBytes, area_.seed(), kFrom));
    EXPECT_TRUE(area_.holds());
    close(fd);
  }
}

TEST_P(IoUring, ReadvWithItsVectorAway) {
  const int fd = scratch_file_with(kOther, kBytes);
  Area vectors(kPageblock, 22);
  auto* const parts = reinterpret_cast<iovec*>(vectors.at(100 * kPage - 8));
  parts[0] = {area_.at(kFrom), 50000};
  parts[1] = {area_.at(kFrom + 50000), kBytes - 50000};
  put();
  ASSERT_TRUE(vectors.put_at(GetParam()));
  io_uring_prep_readv(entry(), fd, parts, 2, 0);
  ASSERT_EQ(result(), static_cast<int>(kBytes));
  EXPECT_TRUE(pattern_holds(area_.at(kFrom), kBytes, kOther));
  EXPECT_TRUE(area_.holds_outside(kFrom, kFrom + kBytes));
  close(fd);
}

TEST_P(IoUring, ReceiveThatWaits) {
  // The receive is armed first, then its buffer leaves, then the data comes: the kernel completes
  // it from a poll wake-up in the task's own context.
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  std::vector<unsigned char> content(16 * kKiB);
  fill(content.data(), content.size(), kOther);
  io_uring_prep_recv(entry(), ends[0], area_.at(kFrom), content.size(), MSG_WAITALL);
  ASSERT_EQ(io_uring_submit(&ring_), 1);
  put();
  ASSERT_EQ(send(ends[1], content.data(), content.size(), 0), static_cast<ssize_t>(content.size()));
  ASSERT_EQ(result(), static_cast<int>(content.size()));
  EXPECT_TRUE(pattern_holds(area_.at(kFrom), content.size(), kOther));
  EXPECT_TRUE(area_.holds_outside(kFrom, kFrom + content.size()));
  close(ends[0]);
  close(ends[1]);
}

TEST_P(IoUring, FixedBuffersRegisteredWhileAway) {
  put();
  const iovec buffers[] = {{area_.at(32 * kPage), 64 * kPage}};
  const int registered = io_uring_register_buffers(&ring_, buffers, 1);
  if (registered == -ENOMEM) GTEST_SKIP() << "RLIMIT_MEMLOCK is too small for fixed buffers";
  ASSERT_EQ(registered, 0) << strerror(-registered);
  const int fd = scratch_file_with(kOther, 64 * kPage);
  // From now on the kernel writes through its own reference to the frames: whatever is evicted
  // around it, the application must see the bytes.
  for (int round = 0; round < 10; ++round) {
    try_put(area_.data(), area_.size(), GetParam());
    std::memset(area_.at(32 * kPage), 0, 64 * kPage);
    try_put(area_.data(), area_.size(), GetParam());
    io_uring_prep_read_fixed(entry(), fd, area_.at(32 * kPage), 64 * kPage, 0, 0);
    ASSERT_EQ(result(), static_cast<int>(64 * kPage));
    try_put(area_.data(), area_.size(), GetParam());
    ASSERT_TRUE(pattern_holds(area_.at(32 * kPage), 64 * kPage, kOther)) << "round " << round;
  }
  EXPECT_EQ(io_uring_unregister_buffers(&ring_), 0);
  EXPECT_TRUE(area_.holds_outside(32 * kPage, 96 * kPage));
  close(fd);
}

TEST_P(IoUring, FixedBuffersWrittenFrom) {
  put();
  const iovec buffers[] = {{area_.at(32 * kPage), 64 * kPage}};
  const int registered = io_uring_register_buffers(&ring_, buffers, 1);
  if (registered == -ENOMEM) GTEST_SKIP() << "RLIMIT_MEMLOCK is too small for fixed buffers";
  ASSERT_EQ(registered, 0) << strerror(-registered);
  const int fd = scratch_file();
  std::vector<unsigned char> seen(64 * kPage);
  for (std::uint64_t round = 0; round < 10; ++round) {
    // The application writes through its mapping; the kernel must read these bytes, not an older
    // frame's.
    fill(area_.at(32 * kPage), 64 * kPage, 1000 + round);
    try_put(area_.data(), area_.size(), GetParam());
    io_uring_prep_write_fixed(entry(), fd, area_.at(32 * kPage), 64 * kPage, 0, 0);
    ASSERT_EQ(result(), static_cast<int>(64 * kPage));
    ASSERT_EQ(pread(fd, seen.data(), seen.size(), 0), static_cast<ssize_t>(seen.size()));
    ASSERT_TRUE(pattern_holds(seen.data(), seen.size(), 1000 + round)) << "round " << round;
  }
  EXPECT_EQ(io_uring_unregister_buffers(&ring_), 0);
  close(fd);
}

TEST_P(IoUring, SubmissionPolledByAKernelThread) {
  io_uring polled{};
  io_uring_params params{};
  params.flags = IORING_SETUP_SQPOLL;
  params.sq_thread_idle = 50;
  const int r = io_uring_queue_init_params(8, &polled, &params);
  if (r < 0) GTEST_SKIP() << "no SQPOLL: " << strerror(-r);
  const int fd = scratch_file_with(kOther, kBytes);
  put();
  io_uring_prep_read(io_uring_get_sqe(&polled), fd, area_.at(kFrom), kBytes, 0);
  ASSERT_EQ(io_uring_submit(&polled), 1);
  io_uring_cqe* cqe = nullptr;
  ASSERT_EQ(io_uring_wait_cqe(&polled, &cqe), 0);
  EXPECT_EQ(cqe->res, static_cast<int>(kBytes));
  io_uring_cqe_seen(&polled, cqe);
  EXPECT_TRUE(pattern_holds(area_.at(kFrom), kBytes, kOther));
  EXPECT_TRUE(area_.holds_outside(kFrom, kFrom + kBytes));
  io_uring_queue_exit(&polled);
  close(fd);
}

INSTANTIATE_TEST_SUITE_P(At, IoUring, testing::ValuesIn(kPlaces), place_name);

}  // namespace
}  // namespace heaptier::test
