#include "bench/demo/connection.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace heaptier::demo {

namespace {
constexpr std::size_t kReadSize = 256 * 1024;
}

void die(const std::string& message) {
  std::fprintf(stderr, "\ndemo_load: %s\n", message.c_str());
  std::exit(1);
}

Connection::Connection(const std::string& socket_path)
    : fd_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (fd_ < 0 || socket_path.size() >= sizeof address.sun_path) {
    die("no socket at " + socket_path);
  }
  std::memcpy(address.sun_path, socket_path.c_str(), socket_path.size() + 1);
  if (connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    die("cannot reach the server at " + socket_path + ": " + std::strerror(errno));
  }
}

Connection::~Connection() {
  if (fd_ >= 0) close(fd_);
}

Connection::Connection(Connection&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      buffer_(std::move(other.buffer_)),
      taken_(std::exchange(other.taken_, 0)) {}

void Connection::send(std::string_view commands) {
  while (!commands.empty()) {
    const ssize_t n = ::send(fd_, commands.data(), commands.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) die(std::string("the server went away: ") + std::strerror(errno));
    commands.remove_prefix(static_cast<std::size_t>(n));
  }
}

void Connection::receive() {
  buffer_.erase(0, taken_);
  taken_ = 0;
  const std::size_t had = buffer_.size();
  buffer_.resize(had + kReadSize);
  ssize_t n = 0;
  do {
    n = recv(fd_, buffer_.data() + had, kReadSize, 0);
  } while (n < 0 && errno == EINTR);
  if (n < 0) die(std::string("the server went away: ") + std::strerror(errno));
  if (n == 0) die("the server closed the connection");
  buffer_.resize(had + static_cast<std::size_t>(n));
}

bool Connection::next_reply(Reply* reply) {
  const std::string_view rest = std::string_view(buffer_).substr(taken_);
  if (rest.empty()) return false;
  const std::size_t length = parse_reply(rest, reply);
  if (length == kNotResp) die("the server's answer is not RESP");
  if (length == 0) return false;
  taken_ += length;
  if (reply->error) die("the server refuses: " + std::string(reply->parts.at(0)));
  return true;
}

void Connection::wait_reply(Reply* reply) {
  while (!next_reply(reply)) receive();
}

}  // namespace heaptier::demo
