// The little of the RESP protocol the loader speaks: commands out, replies in.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace heaptier::demo {

void append_command_head(std::size_t parts, std::string* out);
void append_bulk(std::string_view part, std::string* out);
void append_command(std::initializer_list<std::string_view> parts, std::string* out);

// A reply, flattened: the strings and numbers of nested arrays follow each other in `parts`. They
// point into the buffer that was parsed.
struct Reply {
  bool error = false;  // parts[0] is the server's message
  bool nil = false;
  std::vector<std::string_view> parts;
};

// Parses one reply at the start of `buffer`. Returns its length, 0 when it is not complete yet,
// npos when it is not RESP.
std::size_t parse_reply(std::string_view buffer, Reply* reply);
inline constexpr std::size_t kNotResp = static_cast<std::size_t>(-1);

}  // namespace heaptier::demo
