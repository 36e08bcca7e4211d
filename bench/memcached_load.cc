// bench_memcached_load: a small load for memcached over a Unix socket. One thread, eight
// connections, sixteen requests in flight on each, one write to nine reads; every value read must
// be the one its key wants.
//
//   bench_memcached_load SOCKET KEYS VALUE_BYTES     (fills the cache, then is ready)
//
// Commands:  window MS   -> ops= wall_ns= wrong= missing=
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <string_view>

#include "bench/harness/clock.h"
#include "bench/harness/random.h"
#include "bench/harness/session.h"

namespace heaptier::bench {
namespace {

constexpr std::size_t kConnections = 8;
constexpr std::size_t kInFlight = 16;

class Connection {
 public:
  bool open(const char* path) {
    fd_ = socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (fd_ < 0 || std::strlen(path) >= sizeof address.sun_path) return false;
    std::strcpy(address.sun_path, path);
    return connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  }

  bool send_all(std::string_view text) {
    while (!text.empty()) {
      const ssize_t n = write(fd_, text.data(), text.size());
      if (n <= 0) return false;
      text.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
  }

  // The next line without its CR LF; false at the end of the stream. Valid until the next call.
  bool line(std::string_view& out) {
    std::size_t end;
    while ((end = buffer_.find("\r\n", at_)) == std::string::npos) {
      if (!fill()) return false;
    }
    out = std::string_view(buffer_).substr(at_, end - at_);
    at_ = end + 2;
    return true;
  }
  bool bytes(std::size_t n, std::string_view& out) {
    while (buffer_.size() - at_ < n + 2) {
      if (!fill()) return false;
    }
    out = std::string_view(buffer_).substr(at_, n);
    at_ += n + 2;
    return true;
  }

 private:
  bool fill() {
    buffer_.erase(0, at_);
    at_ = 0;
    char chunk[65536];
    const ssize_t n = read(fd_, chunk, sizeof chunk);
    if (n <= 0) return false;
    buffer_.append(chunk, static_cast<std::size_t>(n));
    return true;
  }

  int fd_ = -1;
  std::string buffer_;
  std::size_t at_ = 0;
};

class Load {
 public:
  Load(std::uint32_t keys, std::size_t value_bytes) : keys_(keys), value_bytes_(value_bytes) {
    for (std::size_t i = 0; filler_.size() < value_bytes; ++i) {
      filler_ += std::to_string(mix(i)) + " lorem ipsum ";
    }
  }

  bool open(const char* path) {
    for (Connection& c : connections_) {
      if (!c.open(path)) return false;
    }
    return true;
  }

  bool fill() {
    for (std::uint32_t key = 0; key < keys_;) {
      std::string batch;
      std::size_t n = 0;
      for (; n < kInFlight && key < keys_; ++n, ++key) append_set(batch, key);
      if (!connections_[0].send_all(batch)) return false;
      for (std::string_view answer; n > 0; --n) {
        if (!connections_[0].line(answer) || answer != "STORED") return false;
      }
    }
    return true;
  }

  // False when the server went away.
  bool window(std::uint64_t millis, Reply& reply) {
    std::uint64_t ops = 0;
    wrong_ = missing_ = 0;
    const std::uint64_t start = wall_nanos();
    std::uint64_t now = start;
    for (; now - start < millis * 1'000'000; now = wall_nanos()) {
      for (std::size_t c = 0; c < kConnections; ++c) {
        request_.clear();
        for (std::size_t i = 0; i < kInFlight; ++i) {
          asked_[c][i] = {random_.below(keys_), random_.below(10) == 0};
          if (asked_[c][i].write) {
            append_set(request_, asked_[c][i].key);
          } else {
            request_ += "get k" + std::to_string(asked_[c][i].key) + "\r\n";
          }
        }
        if (!connections_[c].send_all(request_)) return false;
      }
      for (std::size_t c = 0; c < kConnections; ++c) {
        for (const Asked& asked : asked_[c]) {
          if (!take(connections_[c], asked)) return false;
        }
      }
      ops += kConnections * kInFlight;
    }
    reply.add("ops", ops).add("wall_ns", now - start).add("wrong", wrong_).add("missing", missing_);
    return true;
  }

 private:
  struct Asked {
    std::uint32_t key;
    bool write;
  };

  bool take(Connection& connection, const Asked& asked) {
    std::string_view answer;
    if (!connection.line(answer)) return false;
    if (asked.write) {
      wrong_ += answer != "STORED";
      return true;
    }
    if (answer == "END") {
      ++missing_;
      return true;
    }
    if (!connection.bytes(value_bytes_, answer)) return false;
    wrong_ += answer.substr(0, answer.find(' ')) != std::to_string(asked.key);
    return connection.line(answer) && answer == "END";
  }

  void append_set(std::string& to, std::uint32_t key) const {
    const std::string name = std::to_string(key);
    to += "set k" + name + " 0 0 " + std::to_string(value_bytes_) + "\r\n" + name + " ";
    to.append(filler_, 0, value_bytes_ - name.size() - 1);
    to += "\r\n";
  }

  std::uint32_t keys_;
  std::size_t value_bytes_;
  std::string filler_;  // what follows the key in every value, made once: the load must be cheaper
                        // than the server
  Connection connections_[kConnections];
  Asked asked_[kConnections][kInFlight];
  std::string request_;
  Random random_{11};
  std::uint64_t wrong_ = 0;
  std::uint64_t missing_ = 0;
};

int serve(char** argv) {
  Load load(static_cast<std::uint32_t>(std::strtoul(argv[2], nullptr, 10)),
            std::strtoul(argv[3], nullptr, 10));
  if (!load.open(argv[1]) || !load.fill()) {
    std::fprintf(stderr, "bench_memcached_load: no answer at %s\n", argv[1]);
    return 1;
  }
  Reply().add("ready", std::uint64_t{1});
  for (std::string line; next_command(line);) {
    const Command command(line);
    if (command.empty()) continue;
    Reply reply;
    if (command.verb() != "window") {
      reply.add("error", std::string("unknown_command"));
    } else if (!load.window(command.number(1, 500), reply)) {
      reply.add("error", std::string("server_gone"));
      return 1;
    }
  }
  return 0;
}

}  // namespace
}  // namespace heaptier::bench

int main(int argc, char** argv) {
  if (argc != 4 || std::strtoul(argv[3], nullptr, 10) < 16) {
    std::fputs("usage: bench_memcached_load SOCKET KEYS VALUE_BYTES (16 or more)\n", stderr);
    return 2;
  }
  return heaptier::bench::serve(argv);
}
