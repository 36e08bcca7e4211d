// One connection to the server over a unix socket. Any failure ends the program with one line: the
// demo's claim is that the server does not fail.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "bench/demo/resp.h"

namespace heaptier::demo {

[[noreturn]] void die(const std::string& message);

class Connection {
 public:
  explicit Connection(const std::string& socket_path);
  ~Connection();
  Connection(Connection&& other) noexcept;
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  Connection& operator=(Connection&&) = delete;

  int fd() const { return fd_; }
  void send(std::string_view commands);
  // Reads what is there, waiting for at least one byte.
  void receive();
  // Takes the next complete reply out of what was received; false: receive() more first. The
  // reply's parts are valid until the next receive(). A reply that is an error ends the program.
  bool next_reply(Reply* reply);
  // Waits for it.
  void wait_reply(Reply* reply);
  void ask(std::string_view commands, Reply* reply) {
    send(commands);
    wait_reply(reply);
  }

 private:
  int fd_;
  std::string buffer_;
  std::size_t taken_ = 0;
};

}  // namespace heaptier::demo
