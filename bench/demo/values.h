// What every key of the demo holds: a pure function of the key's number and its version, so that
// the loader can say at any moment what the server must answer without keeping a copy of the data.
//
// The mix is meant to look like the heap of a service: JSON documents, HTML fragments, log text,
// session tokens (hex and base64, which only an entropy coder shrinks), activity feeds (lists),
// user records (hashes), and some thumbnails that nothing shrinks.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace heaptier::demo {

enum class Kind : std::uint8_t { kDocument, kPage, kLog, kSession, kFeed, kUser, kThumbnail };

// 128 bits, added lane by lane: the sum over all keys does not depend on their order.
struct Digest {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  friend bool operator==(const Digest&, const Digest&) = default;
  Digest& operator+=(const Digest& d) {
    low += d.low;
    high += d.high;
    return *this;
  }
  Digest& operator-=(const Digest& d) {
    low -= d.low;
    high -= d.high;
    return *this;
  }
  std::string hex() const;
};

// One key's content: a string is one part, a list its elements, a hash its fields and values in
// turn.
class Content {
 public:
  void clear() {
    bytes_.clear();
    ends_.clear();
  }
  // The string to append the next part to; close_part() ends it.
  std::string& bytes() { return bytes_; }
  void close_part() { ends_.push_back(bytes_.size()); }
  std::size_t parts() const { return ends_.size(); }
  std::string_view part(std::size_t i) const {
    const std::size_t start = i == 0 ? 0 : ends_[i - 1];
    return std::string_view(bytes_).substr(start, ends_[i] - start);
  }
  std::size_t payload_bytes() const { return bytes_.size(); }

 private:
  std::string bytes_;
  std::vector<std::size_t> ends_;
};

Kind kind_of(std::uint32_t id);
// "doc:00000017"; its prefix tells the kind.
std::string key_of(std::uint32_t id);
// False when it is no key of ours.
bool parse_key(std::string_view key, std::uint32_t* id);

bool is_list(Kind kind);
bool is_hash(Kind kind);

// The content after `version` writes (0: as loaded). A write replaces a string, pushes one element
// to a feed and drops its oldest, or sets one field of a user.
void make_content(std::uint32_t id, std::uint32_t version, Content* out);

// The commands that load the key (version 0) and that make version `version` of version - 1, as
// RESP, appended to *out. Returns how many replies they have.
int append_load(std::uint32_t id, const Content& content, std::string* out);
int append_write(std::uint32_t id, std::uint32_t version, const Content& content, std::string* out);
// The one command that reads the whole key.
void append_read(std::uint32_t id, std::string* out);

// Of a key with its content, however it came about: made here or read from the server. Lists depend
// on the order of their elements, hashes do not on that of their fields.
Digest digest_of(std::uint32_t id, const std::vector<std::string_view>& parts);
Digest digest_of(std::uint32_t id, const Content& content);

}  // namespace heaptier::demo
