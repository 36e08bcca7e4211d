#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "bench/demo/connection.h"
#include "bench/demo/phases.h"
#include "bench/demo/progress.h"

namespace heaptier::demo {

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::size_t kBatchBytes = 256 * 1024;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string megabytes(double bytes) {
  return std::to_string(static_cast<long>(bytes / 1e6));
}

std::string seconds_text(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f s", seconds);
  return text;
}

std::uint64_t count_keys(Connection* server) {
  Reply reply;
  server->ask("*1\r\n$6\r\nDBSIZE\r\n", &reply);
  return std::stoull(std::string(reply.parts.at(0)));
}

}  // namespace

FillResult fill(const std::string& socket_path, std::uint64_t bytes, Model* model) {
  Connection server(socket_path);
  if (count_keys(&server) != 0) die("the server is not empty");
  FillResult result;
  Progress progress("loading", static_cast<double>(bytes));
  const auto start = Clock::now();
  Content content;
  std::string batch;
  Reply reply;
  // One batch is always under way while the next is made; the replies are a few bytes each, so
  // neither side blocks.
  int due_now = 0;
  int due_before = 0;
  while (result.payload_bytes < bytes) {
    const std::uint32_t id = model->keys();
    make_content(id, 0, &content);
    model->add(content);
    result.payload_bytes += content.payload_bytes();
    due_now += append_load(id, content, &batch);
    if (batch.size() < kBatchBytes && result.payload_bytes < bytes) continue;
    server.send(batch);
    batch.clear();
    for (; due_before > 0; --due_before) server.wait_reply(&reply);
    due_before = due_now;
    due_now = 0;
    progress.show(
        static_cast<double>(result.payload_bytes),
        megabytes(double(result.payload_bytes)) + " of " + megabytes(double(bytes)) + " MB");
  }
  for (; due_before > 0; --due_before) server.wait_reply(&reply);
  result.seconds = seconds_since(start);
  progress.finish(megabytes(double(result.payload_bytes)) + " MB in " +
                  std::to_string(model->keys()) + " keys, " + seconds_text(result.seconds));
  return result;
}

DigestResult read_digest(const std::string& socket_path, const std::string& title) {
  Connection server(socket_path);
  DigestResult result;
  const std::uint64_t expected = count_keys(&server);
  Progress progress(title, static_cast<double>(expected));
  const auto start = Clock::now();
  std::vector<bool> seen;  // SCAN may name a key twice
  std::vector<std::uint32_t> ids;
  std::string cursor = "0";
  std::string commands;
  Reply reply;
  do {
    commands.clear();
    append_command({"SCAN", cursor, "COUNT", "200"}, &commands);
    server.ask(commands, &reply);
    cursor = std::string(reply.parts.at(0));
    ids.clear();
    commands.clear();
    for (std::size_t i = 1; i < reply.parts.size(); ++i) {
      std::uint32_t id = 0;
      if (!parse_key(reply.parts[i], &id)) {
        die("a key that nobody wrote: " + std::string(reply.parts[i]));
      }
      if (id >= seen.size()) seen.resize(id + 1);
      if (seen[id]) continue;
      seen[id] = true;
      ids.push_back(id);
      append_read(id, &commands);
    }
    server.send(commands);
    for (const std::uint32_t id : ids) {
      server.wait_reply(&reply);
      if (reply.nil) die("a key vanished while it was read: " + key_of(id));
      result.digest += digest_of(id, reply.parts);
      ++result.keys;
    }
    progress.show(static_cast<double>(result.keys), std::to_string(result.keys) + " keys");
  } while (cursor != "0");
  result.seconds = seconds_since(start);
  if (result.keys != expected) {
    die("the server counts " + std::to_string(expected) + " keys and names " +
        std::to_string(result.keys));
  }
  progress.finish(result.digest.hex() + ", " + seconds_text(result.seconds));
  return result;
}

}  // namespace heaptier::demo
