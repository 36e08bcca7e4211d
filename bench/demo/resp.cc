#include "bench/demo/resp.h"

#include <charconv>

namespace heaptier::demo {
namespace {

constexpr std::string_view kEnd = "\r\n";

void append_length(char sign, std::size_t n, std::string* out) {
  char digits[24];
  const auto end = std::to_chars(digits, digits + sizeof digits, n).ptr;
  out->push_back(sign);
  out->append(digits, static_cast<std::size_t>(end - digits));
  out->append(kEnd);
}

// One value at buffer[*at], nested arrays included. 1: done, 0: incomplete, -1: not RESP.
int parse_value(std::string_view buffer, std::size_t* at, Reply* reply) {
  const std::size_t line_end = buffer.find(kEnd, *at);
  if (line_end == std::string_view::npos) return 0;
  const char sign = buffer[*at];
  const std::string_view line = buffer.substr(*at + 1, line_end - *at - 1);
  *at = line_end + kEnd.size();
  if (sign == '+' || sign == ':' || sign == '-') {
    reply->error = reply->error || sign == '-';
    reply->parts.push_back(line);
    return 1;
  }
  long long n = 0;
  const auto [end, failure] = std::from_chars(line.data(), line.data() + line.size(), n);
  if (failure != std::errc{} || end != line.data() + line.size() || n < -1) return -1;
  if (n == -1 && (sign == '$' || sign == '*')) {
    reply->nil = true;
    return 1;
  }
  const auto count = static_cast<std::size_t>(n);
  if (sign == '$') {
    if (buffer.size() < *at + count + kEnd.size()) return 0;
    if (buffer.substr(*at + count, kEnd.size()) != kEnd) return -1;
    reply->parts.push_back(buffer.substr(*at, count));
    *at += count + kEnd.size();
    return 1;
  }
  if (sign != '*') return -1;
  for (std::size_t i = 0; i < count; ++i) {
    if (const int state = parse_value(buffer, at, reply); state != 1) return state;
  }
  return 1;
}

}  // namespace

void append_command_head(std::size_t parts, std::string* out) {
  append_length('*', parts, out);
}

void append_bulk(std::string_view part, std::string* out) {
  append_length('$', part.size(), out);
  out->append(part);
  out->append(kEnd);
}

void append_command(std::initializer_list<std::string_view> parts, std::string* out) {
  append_command_head(parts.size(), out);
  for (const std::string_view part : parts) append_bulk(part, out);
}

std::size_t parse_reply(std::string_view buffer, Reply* reply) {
  reply->error = reply->nil = false;
  reply->parts.clear();
  std::size_t at = 0;
  switch (parse_value(buffer, &at, reply)) {
    case 1:
      return at;
    case 0:
      return 0;
    default:
      return kNotResp;
  }
}

}  // namespace heaptier::demo
