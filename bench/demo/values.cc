#include "bench/demo/values.h"

#include <array>
#include <cstdio>
#include <cstring>

#include "bench/demo/random.h"
#include "bench/demo/resp.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace heaptier::demo {
namespace {

constexpr std::array<std::string_view, 7> kPrefixes = {
    "doc:", "page:", "log:", "session:", "feed:", "user:", "thumb:"};
// Out of 100 keys; thumbnails take the rest.
constexpr std::array<unsigned, 6> kShares = {30, 18, 12, 12, 10, 12};
constexpr unsigned kFeedLength = 40;
constexpr unsigned kUserFields = 16;

constexpr std::array<std::string_view, 64> kWords = {
    "account",  "address", "amount",   "archive", "balance", "billing",  "cancel",   "category",
    "checkout", "city",    "comment",  "company", "content", "country",  "created",  "currency",
    "customer", "daily",   "delivery", "detail",  "digital", "discount", "document", "email",
    "event",    "failed",  "featured", "feed",    "gallery", "group",    "history",  "image",
    "invoice",  "item",    "language", "limited", "list",    "location", "market",   "message",
    "monthly",  "network", "note",     "offer",   "online",  "order",    "partner",  "payment",
    "pending",  "people",  "picture",  "popular", "price",   "product",  "profile",  "public",
    "quantity", "rating",  "region",   "review",  "service", "shipping", "status",   "summary"};

constexpr std::array<std::string_view, kUserFields> kFields = {
    "id",   "name",   "email",  "city", "country", "language", "created",  "last_seen",
    "plan", "credit", "avatar", "bio",  "tags",    "visits",   "referrer", "settings"};

std::string_view word(Random& r) {
  return kWords[r.below(kWords.size())];
}

void add_number(std::uint64_t n, std::string* out) {
  char text[24];
  const int length = std::snprintf(text, sizeof text, "%llu", static_cast<unsigned long long>(n));
  out->append(text, static_cast<std::size_t>(length));
}

void add_words(Random& r, std::size_t count, std::string* out) {
  for (std::size_t i = 0; i < count; ++i) {
    if (i != 0) out->push_back(' ');
    out->append(word(r));
    // Names, codes, counts: text is not only dictionary words.
    if (r.below(5) == 0) {
      out->push_back(' ');
      add_number(r.below(100000), out);
    }
  }
}

void add_bytes(Random& r, std::size_t count, std::string* out) {
  for (; count >= 8; count -= 8) {
    const std::uint64_t bits = r.next();
    out->append(reinterpret_cast<const char*>(&bits), 8);
  }
}

void add_alphabet(Random& r, std::size_t count, std::string_view alphabet, std::string* out) {
  std::uint64_t bits = 0;
  for (std::size_t i = 0; i < count; ++i) {
    if (i % 10 == 0) bits = r.next();
    out->push_back(alphabet[bits & (alphabet.size() - 1)]);
    bits >>= 6;
  }
}

void add_hex(Random& r, std::size_t count, std::string* out) {
  add_alphabet(r, count, "0123456789abcdef", out);
}

void add_base64(Random& r, std::size_t count, std::string* out) {
  add_alphabet(r, count, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", out);
}

void add_document(Random& r, std::string* out) {
  const std::size_t items = 3 + r.below(14);
  out->append("{\"id\":");
  add_number(r.below(100000000), out);
  out->append(",\"customer\":{\"name\":\"");
  add_words(r, 2, out);
  out->append("\",\"email\":\"");
  out->append(word(r));
  add_number(r.below(100000), out);
  out->append("@example.com\"},\"items\":[");
  for (std::size_t i = 0; i < items; ++i) {
    out->append(i == 0 ? "{\"sku\":\"" : ",{\"sku\":\"");
    add_hex(r, 10, out);
    out->append("\",\"title\":\"");
    add_words(r, 2 + r.below(4), out);
    out->append("\",\"category\":\"");
    out->append(word(r));
    out->append("\",\"quantity\":");
    add_number(1 + r.below(9), out);
    out->append(",\"unit_price\":{\"amount\":");
    add_number(r.below(100000), out);
    out->append(",\"currency\":\"EUR\",\"vat_included\":true},\"available\":");
    out->append(r.below(4) == 0 ? "false" : "true");
    out->append(",\"discounts\":[],\"updated_at\":\"2024-03-");
    add_number(10 + r.below(20), out);
    out->append("T08:00:00Z\"}");
  }
  out->append("],\"status\":\"");
  out->append(word(r));
  out->append("\"}");
}

void add_page(Random& r, std::string* out) {
  const std::size_t blocks = 4 + r.below(16);
  out->append("<section class=\"listing\" data-id=\"");
  add_number(r.below(100000000), out);
  out->append("\">\n");
  for (std::size_t i = 0; i < blocks; ++i) {
    out->append(
        "  <article class=\"card card--wide\">\n    <h3 class=\"card__title\"><a href=\"/product/");
    add_number(r.below(1000000), out);
    out->append("\">");
    add_words(r, 4, out);
    out->append("</a></h3>\n    <p class=\"card__text\">");
    add_words(r, 6 + r.below(12), out);
    out->append(
        "</p>\n    <button class=\"button button--primary\" type=\"button\">Add</button>\n  "
        "</article>\n");
  }
  out->append("</section>\n");
}

void add_log(Random& r, std::string* out) {
  const std::size_t lines = 6 + r.below(20);
  std::uint64_t seconds = r.below(86400);
  const unsigned day = static_cast<unsigned>(1 + r.below(28));
  for (std::size_t i = 0; i < lines; ++i) {
    seconds += r.below(3);
    char head[64];
    const int length = std::snprintf(head, sizeof head, "2024-03-%02u %02u:%02u:%02u.%03u ", day,
                                     unsigned(seconds / 3600 % 24), unsigned(seconds / 60 % 60),
                                     unsigned(seconds % 60), unsigned(r.below(1000)));
    out->append(head, static_cast<std::size_t>(length));
    out->append(r.below(8) == 0 ? "WARN  " : "INFO  ");
    out->append(word(r));
    out->append("-worker [http-nio-8080-exec-");
    add_number(1 + r.below(16), out);
    out->append("] com.example.shop.OrderController request=");
    add_hex(r, 8, out);
    out->append(" status=200 took=");
    add_number(r.below(400), out);
    out->append("ms ");
    add_words(r, 4, out);
    out->push_back('\n');
  }
}

void add_session(Random& r, std::string* out) {
  const std::size_t length = 256 + 64 * r.below(12);
  if (r.below(2) == 0) {
    add_hex(r, length, out);
  } else {
    add_base64(r, length, out);
  }
}

void add_feed_element(std::uint32_t id, std::uint32_t position, std::string* out) {
  Random r(id, position + 0x10000);
  out->append("{\"at\":17");
  add_number(10000000 + std::uint64_t{position} * 61 + r.below(60), out);
  out->append(",\"by\":");
  add_number(r.below(1000000), out);
  out->append(",\"what\":\"");
  add_words(r, 2 + r.below(4), out);
  out->append("\"}");
}

// The last write, of the first `version` ones, that set this field (write v sets field v %
// kUserFields); 0: none.
std::uint32_t last_write_of_field(std::uint32_t version, unsigned field) {
  const std::uint32_t back = (version + kUserFields - field) % kUserFields;
  return version > back ? version - back : 0;
}

void add_user_value(std::uint32_t id, unsigned field, std::uint32_t version, std::string* out) {
  Random r(id, (std::uint64_t{field} << 32) + version);
  switch (field % 4) {
    case 0:
      add_number(r.below(100000000), out);
      break;
    case 1:
      add_words(r, 2, out);
      break;
    case 2:
      add_hex(r, 24, out);
      break;
    default:
      add_words(r, 4 + r.below(12), out);
      break;
  }
}

}  // namespace

std::string Digest::hex() const {
  char text[40];
  std::snprintf(text, sizeof text, "%016llx%016llx", static_cast<unsigned long long>(high),
                static_cast<unsigned long long>(low));
  return text;
}

Kind kind_of(std::uint32_t id) {
  Random r(id, 0xFFFFFFFFFFFF);
  std::uint64_t draw = r.below(100);
  for (std::size_t kind = 0; kind < kShares.size(); ++kind) {
    if (draw < kShares[kind]) return static_cast<Kind>(kind);
    draw -= kShares[kind];
  }
  return Kind::kThumbnail;
}

bool is_list(Kind kind) {
  return kind == Kind::kFeed;
}
bool is_hash(Kind kind) {
  return kind == Kind::kUser;
}

std::string key_of(std::uint32_t id) {
  char number[16];
  std::snprintf(number, sizeof number, "%08u", id);
  return std::string(kPrefixes[static_cast<std::size_t>(kind_of(id))]) + number;
}

bool parse_key(std::string_view key, std::uint32_t* id) {
  const std::size_t colon = key.find(':');
  if (colon == std::string_view::npos || key.size() != colon + 9) return false;
  std::uint32_t n = 0;
  for (const char c : key.substr(colon + 1)) {
    if (c < '0' || c > '9') return false;
    n = n * 10 + static_cast<std::uint32_t>(c - '0');
  }
  *id = n;
  return key.substr(0, colon + 1) == kPrefixes[static_cast<std::size_t>(kind_of(n))];
}

void make_content(std::uint32_t id, std::uint32_t version, Content* out) {
  out->clear();
  std::string& bytes = out->bytes();
  const Kind kind = kind_of(id);
  Random r(id, version);
  switch (kind) {
    case Kind::kDocument:
      add_document(r, &bytes);
      break;
    case Kind::kPage:
      add_page(r, &bytes);
      break;
    case Kind::kLog:
      add_log(r, &bytes);
      break;
    case Kind::kSession:
      add_session(r, &bytes);
      break;
    case Kind::kThumbnail:
      add_bytes(r, 1024 + 64 * r.below(40), &bytes);
      break;
    case Kind::kFeed:
      for (unsigned i = 0; i < kFeedLength; ++i) {
        add_feed_element(id, version + i, &bytes);
        out->close_part();
      }
      return;
    case Kind::kUser:
      for (unsigned field = 0; field < kUserFields; ++field) {
        bytes.append(kFields[field]);
        out->close_part();
        add_user_value(id, field, last_write_of_field(version, field), &bytes);
        out->close_part();
      }
      return;
  }
  out->close_part();
}

int append_load(std::uint32_t id, const Content& content, std::string* out) {
  const Kind kind = kind_of(id);
  append_command_head(2 + content.parts(), out);
  append_bulk(is_list(kind) ? "RPUSH" : is_hash(kind) ? "HSET" : "SET", out);
  append_bulk(key_of(id), out);
  for (std::size_t i = 0; i < content.parts(); ++i) append_bulk(content.part(i), out);
  return 1;
}

int append_write(std::uint32_t id, std::uint32_t version, const Content& content,
                 std::string* out) {
  const Kind kind = kind_of(id);
  const std::string key = key_of(id);
  if (is_list(kind)) {
    append_command({"RPUSH", key, content.part(content.parts() - 1)}, out);
    append_command({"LPOP", key}, out);
    return 2;
  }
  if (is_hash(kind)) {
    const std::size_t field = version % kUserFields;
    append_command({"HSET", key, content.part(2 * field), content.part(2 * field + 1)}, out);
    return 1;
  }
  append_command({"SET", key, content.part(0)}, out);
  return 1;
}

void append_read(std::uint32_t id, std::string* out) {
  const Kind kind = kind_of(id);
  const std::string key = key_of(id);
  if (is_list(kind)) {
    append_command({"LRANGE", key, "0", "-1"}, out);
  } else if (is_hash(kind)) {
    append_command({"HGETALL", key}, out);
  } else {
    append_command({"GET", key}, out);
  }
}

Digest digest_of(std::uint32_t id, const std::vector<std::string_view>& parts) {
  const bool pairs = is_hash(kind_of(id));
  Digest sum{parts.size(), id};
  for (std::size_t i = 0; i < parts.size(); ++i) {
    // The seed binds a part to its key and to its place: to its position in a list, to its field in
    // a hash.
    std::uint64_t place = i;
    if (pairs) place = i % 2 == 0 ? 1 : XXH3_64bits(parts[i - 1].data(), parts[i - 1].size());
    const std::uint64_t seed = (std::uint64_t{id} << 32) ^ (place * 0x9E3779B97F4A7C15u);
    const XXH128_hash_t h = XXH3_128bits_withSeed(parts[i].data(), parts[i].size(), seed);
    sum += Digest{h.low64, h.high64};
  }
  return sum;
}

Digest digest_of(std::uint32_t id, const Content& content) {
  std::vector<std::string_view> parts(content.parts());
  for (std::size_t i = 0; i < parts.size(); ++i) parts[i] = content.part(i);
  return digest_of(id, parts);
}

}  // namespace heaptier::demo
