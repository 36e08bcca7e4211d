// System calls that read and write memory which is parked or stored: the kernel takes the fault,
// and the call must work as if the page had never left. Every byte is checked, the neighbours' too.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "tests/support/managed.h"

namespace heaptier::test {
namespace {

// A deleted file of `bytes` bytes with the pattern of `seed`; 0 bytes: empty.
int pattern_file(std::size_t bytes, std::uint64_t seed, int flags = 0) {
  char name[] = "/tmp/heaptier-test-XXXXXX";
  const int fd = mkostemp(name, flags | O_CLOEXEC);
  unlink(name);
  std::vector<unsigned char> content(bytes);
  fill(content.data(), bytes, seed);
  EXPECT_EQ(write(fd, content.data(), bytes), static_cast<ssize_t>(bytes));
  lseek(fd, 0, SEEK_SET);
  return fd;
}

// Bytes read(2) back from the start of a file.
testing::AssertionResult file_holds(int fd, std::size_t bytes, std::uint64_t seed, std::size_t at) {
  std::vector<unsigned char> content(bytes);
  const ssize_t n = pread(fd, content.data(), bytes, 0);
  if (n != static_cast<ssize_t>(bytes))
    return testing::AssertionFailure() << "only " << n << " bytes";
  return pattern_holds(content.data(), bytes, seed, at);
}

// Odd on purpose: the buffers begin and end inside pages.
constexpr std::size_t kFrom = 5 * kPage + 123;
constexpr std::size_t kBytes = 70 * kKiB + 77;
constexpr std::uint64_t kOther = 4242;  // the seed of what comes from outside

class Syscalls : public testing::TestWithParam<Place> {
 protected:
  Area area_{kPageblock, 7};
  void put() { ASSERT_TRUE(area_.put_at(GetParam())); }
  // [kFrom, kFrom + kBytes) now holds `kOther` from its byte `at`, and nothing else changed.
  void expect_received(std::size_t at = 0) {
    EXPECT_TRUE(pattern_holds(area_.at(kFrom), kBytes, kOther, at));
    EXPECT_TRUE(area_.holds_outside(kFrom, kFrom + kBytes));
  }
};

TEST_P(Syscalls, Read) {
  const int fd = pattern_file(kBytes, kOther);
  put();
  ASSERT_EQ(read(fd, area_.at(kFrom), kBytes), static_cast<ssize_t>(kBytes)) << strerror(errno);
  expect_received();
  close(fd);
}

TEST_P(Syscalls, Write) {
  const int fd = pattern_file(0, 0);
  put();
  ASSERT_EQ(write(fd, area_.at(kFrom), kBytes), static_cast<ssize_t>(kBytes)) << strerror(errno);
  EXPECT_TRUE(file_holds(fd, kBytes, area_.seed(), kFrom));
  EXPECT_TRUE(area_.holds());
  close(fd);
}

TEST_P(Syscalls, ReadvWithItsVectorAway) {
  const int fd = pattern_file(kBytes, kOther);
  // The vector itself lies in managed memory that is away, and its parts are scattered and out of
  // order.
  Area vectors(kPageblock, 8);
  auto* const parts = reinterpret_cast<iovec*>(vectors.at(9 * kPage - 24));  // across a page's edge
  const std::size_t first = 30001;
  parts[0] = {area_.at(kFrom), first};
  parts[1] = {area_.at(kFrom + first), 1};
  parts[2] = {area_.at(kFrom + first + 1), kBytes - first - 1};
  put();
  ASSERT_TRUE(vectors.put_at(GetParam()));
  ASSERT_EQ(readv(fd, parts, 3), static_cast<ssize_t>(kBytes)) << strerror(errno);
  expect_received();
  close(fd);
}

TEST_P(Syscalls, WritevAndPwritev) {
  const int fd = pattern_file(0, 0);
  put();
  const iovec parts[] = {{area_.at(kFrom), 10000}, {area_.at(kFrom + 10000), kBytes - 10000}};
  ASSERT_EQ(writev(fd, parts, 2), static_cast<ssize_t>(kBytes)) << strerror(errno);
  EXPECT_TRUE(file_holds(fd, kBytes, area_.seed(), kFrom));
  put();
  ASSERT_EQ(pwritev(fd, parts, 2, 0), static_cast<ssize_t>(kBytes)) << strerror(errno);
  EXPECT_TRUE(file_holds(fd, kBytes, area_.seed(), kFrom));
  EXPECT_TRUE(area_.holds());
  close(fd);
}

TEST_P(Syscalls, Pread) {
  const int fd = pattern_file(kBytes + 1000, kOther);
  put();
  ASSERT_EQ(pread(fd, area_.at(kFrom), kBytes, 1000), static_cast<ssize_t>(kBytes));
  expect_received(1000);
  close(fd);
}

TEST_P(Syscalls, PipeBothEndsAway) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  Area sender(kPageblock, kOther);
  put();
  ASSERT_TRUE(sender.put_at(GetParam()));
  std::thread writer([&] {
    std::size_t done = 0;
    while (done < kBytes) {
      const ssize_t n = write(ends[1], sender.at(done), kBytes - done);
      if (n <= 0) break;
      done += static_cast<std::size_t>(n);
    }
    close(ends[1]);
  });
  std::size_t done = 0;
  ssize_t n;
  while ((n = read(ends[0], area_.at(kFrom + done), kBytes - done)) > 0) {
    done += static_cast<std::size_t>(n);
  }
  writer.join();
  close(ends[0]);
  ASSERT_EQ(done, kBytes) << strerror(errno);
  expect_received();
  EXPECT_TRUE(sender.holds());
}

TEST_P(Syscalls, SendAndRecv) {
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  Area sender(kPageblock, kOther);
  put();
  ASSERT_TRUE(sender.put_at(GetParam()));
  std::thread writer([&] {
    std::size_t done = 0;
    while (done < kBytes) {
      const ssize_t n = send(ends[1], sender.at(done), kBytes - done, MSG_NOSIGNAL);
      if (n <= 0) break;
      done += static_cast<std::size_t>(n);
    }
  });
  EXPECT_EQ(recv(ends[0], area_.at(kFrom), kBytes, MSG_WAITALL), static_cast<ssize_t>(kBytes));
  writer.join();
  close(ends[0]);
  close(ends[1]);
  expect_received();
  EXPECT_TRUE(sender.holds());
}

TEST_P(Syscalls, TcpSendmsgAndRecvmsgWithHeadersAway) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&address), length), 0);
  ASSERT_EQ(listen(listener, 1), 0);
  ASSERT_EQ(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length), 0);
  const int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  Area sender(kPageblock, kOther);
  Area headers(kPageblock, 3);
  // The address, the message headers and the vectors are in away memory, too.
  auto* const to = reinterpret_cast<sockaddr_in*>(headers.at(0));
  *to = address;
  auto* const out = reinterpret_cast<msghdr*>(headers.at(kPage));
  auto* const out_part = reinterpret_cast<iovec*>(headers.at(2 * kPage));
  auto* const in = reinterpret_cast<msghdr*>(headers.at(3 * kPage));
  auto* const in_part = reinterpret_cast<iovec*>(headers.at(4 * kPage));
  *out_part = {sender.data(), kBytes};
  *in_part = {area_.at(kFrom), kBytes};
  *out = {};
  out->msg_iov = out_part;
  out->msg_iovlen = 1;
  *in = {};
  in->msg_iov = in_part;
  in->msg_iovlen = 1;
  put();
  ASSERT_TRUE(sender.put_at(GetParam()));
  ASSERT_TRUE(headers.put_at(GetParam()));
  ASSERT_EQ(connect(client, reinterpret_cast<sockaddr*>(to), sizeof *to), 0) << strerror(errno);
  const int server = accept(listener, nullptr, nullptr);
  ASSERT_GE(server, 0);
  std::thread writer([&] {
    if (sendmsg(client, out, MSG_NOSIGNAL) != static_cast<ssize_t>(kBytes))
      shutdown(client, SHUT_RDWR);
  });
  EXPECT_EQ(recvmsg(server, in, MSG_WAITALL), static_cast<ssize_t>(kBytes)) << strerror(errno);
  writer.join();
  for (const int fd : {listener, client, server}) close(fd);
  expect_received();
  EXPECT_TRUE(sender.holds());
}

TEST_P(Syscalls, DatagramsWithTheirSenderAddressAway) {
  const int a = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const int b = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  ASSERT_EQ(bind(a, reinterpret_cast<sockaddr*>(&address), length), 0);
  ASSERT_EQ(getsockname(a, reinterpret_cast<sockaddr*>(&address), &length), 0);
  ASSERT_EQ(bind(b, reinterpret_cast<const sockaddr*>(&address), 0),
            -1);  // EINVAL: b stays unbound
  ASSERT_TRUE(area_.put_at(GetParam()));
  ASSERT_EQ(sendto(b, area_.at(kPage), 1400, 0, reinterpret_cast<sockaddr*>(&address), length),
            1400);
  auto* const from = reinterpret_cast<sockaddr_in*>(area_.at(40 * kPage));
  auto* const from_length = reinterpret_cast<socklen_t*>(area_.at(60 * kPage));
  *from_length = sizeof *from;
  put();
  ASSERT_EQ(recvfrom(a, area_.at(100 * kPage + 3000), 1400, 0, reinterpret_cast<sockaddr*>(from),
                     from_length),
            1400)
      << strerror(errno);
  EXPECT_EQ(from->sin_addr.s_addr, htonl(INADDR_LOOPBACK));
  EXPECT_EQ(*from_length, sizeof *from);
  EXPECT_TRUE(pattern_holds(area_.at(100 * kPage + 3000), 1400, area_.seed(), kPage));
  close(a);
  close(b);
}

TEST_P(Syscalls, SmallAnswersOfTheKernel) {
  // stat, getcwd, uname, gettimeofday, getrandom, readlink, getsockopt: a few bytes, often across a
  // page's edge.
  struct stat plain {};
  ASSERT_EQ(stat("/proc/self/exe", &plain), 0);
  char here[4096];
  ASSERT_NE(getcwd(here, sizeof here), nullptr);
  put();
  auto* const info = reinterpret_cast<struct stat*>(area_.at(10 * kPage - 48));
  ASSERT_EQ(stat("/proc/self/exe", info), 0) << strerror(errno);
  EXPECT_EQ(info->st_ino, plain.st_ino);
  EXPECT_EQ(info->st_size, plain.st_size);
  auto* const cwd = reinterpret_cast<char*>(area_.at(20 * kPage - 3));
  ASSERT_EQ(getcwd(cwd, 4096), cwd) << strerror(errno);
  EXPECT_STREQ(cwd, here);
  auto* const name = reinterpret_cast<utsname*>(area_.at(30 * kPage - 100));
  ASSERT_EQ(uname(name), 0) << strerror(errno);
  EXPECT_STREQ(name->sysname, "Linux");
  auto* const random = area_.at(40 * kPage - 64);
  ASSERT_EQ(getrandom(random, 128, 0), 128) << strerror(errno);
  auto* const link = reinterpret_cast<char*>(area_.at(50 * kPage - 2));
  ASSERT_GT(readlink("/proc/self/exe", link, 4096), 0) << strerror(errno);
  EXPECT_EQ(link[0], '/');
  auto* const when = reinterpret_cast<itimerval*>(area_.at(60 * kPage - 8));
  ASSERT_EQ(getitimer(ITIMER_VIRTUAL, when), 0) << strerror(errno);
  EXPECT_EQ(when->it_value.tv_sec, 0);
  EXPECT_TRUE(area_.holds(60 * kPage + 32, area_.size()));
}

TEST_P(Syscalls, PathsAndArgumentsAway) {
  char name[] = "/tmp/heaptier-path-XXXXXX";
  const int made = mkstemp(name);
  ASSERT_GE(made, 0);
  close(made);
  auto* const path = reinterpret_cast<char*>(area_.at(11 * kPage - 7));  // across a page's edge
  std::strcpy(path, name);
  put();
  const int fd = open(path, O_RDWR | O_CLOEXEC);
  EXPECT_GE(fd, 0) << strerror(errno);
  close(fd);
  put();
  EXPECT_EQ(unlink(path), 0) << strerror(errno);
  EXPECT_EQ(access(name, F_OK), -1);
}

TEST_P(Syscalls, PollEpollAndSelectArrays) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  ASSERT_EQ(write(ends[1], "x", 1), 1);
  auto* const fds = reinterpret_cast<pollfd*>(area_.at(12 * kPage - 4));
  fds[0] = {ends[0], POLLIN, 0};
  fds[1] = {ends[1], POLLOUT, 0};
  put();
  ASSERT_EQ(poll(fds, 2, 1000), 2) << strerror(errno);
  EXPECT_EQ(fds[0].revents, POLLIN);
  EXPECT_EQ(fds[1].revents, POLLOUT);
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = 0x1122334455667788u;
  ASSERT_EQ(epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event), 0);
  put();
  auto* const events = reinterpret_cast<epoll_event*>(area_.at(80 * kPage - 6));
  ASSERT_EQ(epoll_wait(epoll, events, 4, 1000), 1) << strerror(errno);
  std::uint64_t data;
  std::memcpy(&data, reinterpret_cast<char*>(events) + offsetof(epoll_event, data), 8);
  EXPECT_EQ(data, 0x1122334455667788u);
  close(epoll);
  close(ends[0]);
  close(ends[1]);
}

TEST_P(Syscalls, SignalSetsAndActions) {
  auto* const wanted = reinterpret_cast<sigset_t*>(area_.at(13 * kPage - 64));
  sigemptyset(wanted);
  sigaddset(wanted, SIGUSR2);
  put();
  ASSERT_EQ(sigprocmask(SIG_BLOCK, wanted, nullptr), 0) << strerror(errno);
  ASSERT_EQ(raise(SIGUSR2), 0);
  put();
  auto* const pending = reinterpret_cast<sigset_t*>(area_.at(70 * kPage - 64));
  ASSERT_EQ(sigpending(pending), 0) << strerror(errno);
  EXPECT_EQ(sigismember(pending, SIGUSR2), 1);
  put();
  auto* const what = reinterpret_cast<siginfo_t*>(area_.at(90 * kPage - 64));
  EXPECT_EQ(sigwaitinfo(wanted, what), SIGUSR2) << strerror(errno);
  EXPECT_EQ(what->si_signo, SIGUSR2);
  sigprocmask(SIG_UNBLOCK, wanted, nullptr);
}

TEST_P(Syscalls, SpliceFamilyFromAway) {
  // vmsplice maps the pages into the pipe; read(2) takes them out again.
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  put();
  iovec part{area_.at(8 * kPage), 8 * kPage};
  ASSERT_EQ(vmsplice(ends[1], &part, 1, 0), static_cast<ssize_t>(8 * kPage)) << strerror(errno);
  // The pages in the pipe may refuse to leave; the bytes may not change.
  try_put(area_.data(), area_.size(), GetParam());
  std::vector<unsigned char> seen(8 * kPage);
  ASSERT_EQ(read(ends[0], seen.data(), seen.size()), static_cast<ssize_t>(seen.size()));
  EXPECT_TRUE(pattern_holds(seen.data(), seen.size(), area_.seed(), 8 * kPage));
  EXPECT_TRUE(area_.holds());
  close(ends[0]);
  close(ends[1]);
}

TEST_P(Syscalls, DirectWriteAndRead) {
  const int fd = pattern_file(0, 0, O_DIRECT);
  put();
  const ssize_t wrote = pwrite(fd, area_.at(16 * kPage), 64 * kPage, 0);
  if (wrote < 0 && errno == EINVAL) GTEST_SKIP() << "the file system of /tmp has no O_DIRECT";
  ASSERT_EQ(wrote, static_cast<ssize_t>(64 * kPage)) << strerror(errno);
  EXPECT_TRUE(area_.holds());
  put();
  ASSERT_EQ(pread(fd, area_.at(200 * kPage), 64 * kPage, 0), static_cast<ssize_t>(64 * kPage))
      << strerror(errno);
  EXPECT_TRUE(pattern_holds(area_.at(200 * kPage), 64 * kPage, area_.seed(), 16 * kPage));
  EXPECT_TRUE(area_.holds_outside(200 * kPage, 264 * kPage));
  close(fd);
}

TEST_P(Syscalls, FailingCallsStillFail) {
  // A true EFAULT stays one; memory that is away never makes one.
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  put();
  void* volatile nowhere = reinterpret_cast<void*>(8);
  EXPECT_EQ(write(ends[1], nowhere, 16), -1);
  EXPECT_EQ(errno, EFAULT);
  EXPECT_EQ(write(ends[1], area_.at(0), 16), 16);
  close(ends[0]);
  close(ends[1]);
}

INSTANTIATE_TEST_SUITE_P(At, Syscalls, testing::ValuesIn(kPlaces), place_name);

}  // namespace
}  // namespace heaptier::test
