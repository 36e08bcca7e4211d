// What heaptier writes, where nobody reads it or it may not be written: no signal comes of it, and
// the application's own stay as they were.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "runtime/os/process.h"

namespace heaptier::os {
namespace {

volatile sig_atomic_t g_handled;
void count(int) {
  g_handled = g_handled + 1;
}

// A pipe that nobody reads, and handlers that count what comes.
class Output : public testing::Test {
 protected:
  void SetUp() override {
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    close(ends[0]);
    pipe_ = ends[1];
    sigemptyset(&both_);
    sigaddset(&both_, SIGPIPE);
    sigaddset(&both_, SIGXFSZ);
    g_handled = 0;
    pipe_before_ = signal(SIGPIPE, count);
    size_before_ = signal(SIGXFSZ, count);
    ASSERT_EQ(pthread_sigmask(SIG_UNBLOCK, &both_, &mask_before_), 0);
  }
  void TearDown() override {
    pthread_sigmask(SIG_SETMASK, &mask_before_, nullptr);
    signal(SIGPIPE, pipe_before_);
    signal(SIGXFSZ, size_before_);
    close(pipe_);
  }
  static bool blocked(int signal) {
    sigset_t now;
    pthread_sigmask(SIG_SETMASK, nullptr, &now);
    return sigismember(&now, signal) == 1;
  }
  static bool pending(int signal) {
    sigset_t now;
    sigpending(&now);
    return sigismember(&now, signal) == 1;
  }
  [[nodiscard]] Errno write_line() const { return write_all(pipe_, "line\n", 5); }

  int pipe_ = -1;
  sigset_t both_;
  sigset_t mask_before_;
  void (*pipe_before_)(int) = nullptr;
  void (*size_before_)(int) = nullptr;
};

TEST_F(Output, NobodyReadsThePipe) {
  EXPECT_EQ(write_line(), Errno{EPIPE});
  EXPECT_EQ(g_handled, 0);
  EXPECT_FALSE(pending(SIGPIPE));
  EXPECT_FALSE(blocked(SIGPIPE));
  // The application's own write still raises it.
  EXPECT_EQ(write(pipe_, "x", 1), -1);
  EXPECT_EQ(g_handled, 1);
}

TEST_F(Output, NobodyReadsTheSocket) {
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  close(ends[0]);
  EXPECT_EQ(write_all(ends[1], "line\n", 5), Errno{EPIPE});
  EXPECT_EQ(g_handled, 0);
  close(ends[1]);
}

TEST_F(Output, BlockedStaysBlockedAndNothingIsLeft) {
  ASSERT_EQ(pthread_sigmask(SIG_BLOCK, &both_, nullptr), 0);
  EXPECT_EQ(write_line(), Errno{EPIPE});
  EXPECT_TRUE(blocked(SIGPIPE));
  EXPECT_TRUE(blocked(SIGXFSZ));
  EXPECT_FALSE(pending(SIGPIPE));
  ASSERT_EQ(pthread_sigmask(SIG_UNBLOCK, &both_, nullptr), 0);
  EXPECT_EQ(g_handled, 0);
}

TEST_F(Output, WhatWasSentToTheProcessStays) {
  ASSERT_EQ(pthread_sigmask(SIG_BLOCK, &both_, nullptr), 0);
  ASSERT_EQ(kill(getpid(), SIGPIPE), 0);
  EXPECT_EQ(write_line(), Errno{EPIPE});
  EXPECT_TRUE(pending(SIGPIPE));
  ASSERT_EQ(pthread_sigmask(SIG_UNBLOCK, &both_, nullptr), 0);
  EXPECT_GE(g_handled, 1);
}

TEST_F(Output, WhatWasSentToTheThreadStays) {
  ASSERT_EQ(pthread_sigmask(SIG_BLOCK, &both_, nullptr), 0);
  ASSERT_EQ(raise(SIGPIPE), 0);
  EXPECT_EQ(write_line(), Errno{EPIPE});
  EXPECT_TRUE(pending(SIGPIPE));
  ASSERT_EQ(pthread_sigmask(SIG_UNBLOCK, &both_, nullptr), 0);
  EXPECT_EQ(g_handled, 1);
}

TEST_F(Output, IgnoredStaysIgnored) {
  signal(SIGPIPE, SIG_IGN);
  EXPECT_EQ(write_line(), Errno{EPIPE});
  EXPECT_FALSE(pending(SIGPIPE));
  EXPECT_EQ(signal(SIGPIPE, count), SIG_IGN);
  EXPECT_EQ(g_handled, 0);
}

TEST_F(Output, AFileMayNotBeSoLong) {
  char path[] = "/tmp/heaptier_output_XXXXXX";
  const int fd = mkstemp(path);
  ASSERT_GE(fd, 0);
  close(fd);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit short_files = before;
  short_files.rlim_cur = 100;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &short_files), 0);
  const std::string text(300, 'x');
  const Errno whole = write_file(path, text.data(), 99);
  const Errno cut = write_file(path, text.data(), text.size());  // first 100 bytes, then the limit
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  unlink(path);
  EXPECT_EQ(whole, kOk);
  EXPECT_EQ(cut, Errno{EFBIG});
  EXPECT_EQ(g_handled, 0);
  EXPECT_FALSE(pending(SIGXFSZ));
  EXPECT_FALSE(blocked(SIGXFSZ));
}

TEST_F(Output, NoSuchFolder) {
  EXPECT_EQ(write_file("/nowhere/at/all", "x", 1), Errno{ENOENT});
}

}  // namespace
}  // namespace heaptier::os
