#include "runtime/os/zone_files.h"

#include <algorithm>

namespace heaptier::os {
namespace {

constexpr unsigned kHugeOrder = kPageblockShift - kPageShift;

void skip_spaces(std::string_view* text) {
  while (!text->empty() && (text->front() == ' ' || text->front() == '\t')) text->remove_prefix(1);
}

bool skip_word(std::string_view* text, std::string_view word) {
  skip_spaces(text);
  if (!text->starts_with(word)) return false;
  text->remove_prefix(word.size());
  return true;
}

bool take_number(std::string_view* text, std::uint64_t* out) {
  skip_spaces(text);
  std::size_t digits = 0;
  std::uint64_t n = 0;
  for (; digits < text->size() && digits < 19; ++digits) {
    const char c = (*text)[digits];
    if (c < '0' || c > '9') break;
    n = n * 10 + static_cast<std::uint64_t>(c - '0');
  }
  text->remove_prefix(digits);
  *out = n;
  return digits > 0;
}

ZoneName zone_name(std::string_view word) {
  constexpr std::string_view kNames[] = {"DMA", "DMA32", "Normal", "HighMem", "Movable"};
  for (std::size_t i = 0; i < std::size(kNames); ++i) {
    if (word == kNames[i]) return static_cast<ZoneName>(i);
  }
  return ZoneName::kOther;
}

// The largest of "(0, 3019, 6987)": what the zone keeps from the allocations that have the most
// other zones to go to. Movable user memory is such.
std::uint64_t largest(std::string_view list) {
  std::uint64_t most = 0;
  std::uint64_t n = 0;
  while (skip_word(&list, "(") || skip_word(&list, ",")) {
    if (!take_number(&list, &n)) break;
    most = std::max(most, n);
  }
  return most;
}

}  // namespace

bool parse_zone(std::string_view line, ZoneId* zone, std::string_view* rest) {
  std::uint64_t node = 0;
  if (!line.starts_with("Node ")) return false;
  line.remove_prefix(5);
  if (!take_number(&line, &node) || !skip_word(&line, ",") || !skip_word(&line, "zone"))
    return false;
  skip_spaces(&line);
  const std::string_view word = line.substr(0, std::min(line.find_first_of(" \n"), line.size()));
  if (word.empty()) return false;
  zone->node = static_cast<unsigned>(node);
  zone->name = zone_name(word);
  *rest = line.substr(word.size());
  return true;
}

bool ZoneInfoReader::line(std::string_view text, ZoneId* zone, std::uint64_t* reserve) {
  std::string_view rest;
  if (text.starts_with("Node ")) {
    in_zone_ = parse_zone(text, &zone_, &rest);
    high_ = 0;
    return false;
  }
  if (!in_zone_) return false;
  rest = text;
  // "high" is also the start of per-CPU lines ("high:"), which come after the zone's own.
  if (skip_word(&rest, "high ")) {
    (void)take_number(&rest, &high_);
    return false;
  }
  rest = text;
  if (!skip_word(&rest, "protection:")) return false;
  in_zone_ = false;
  *zone = zone_;
  *reserve = high_ + largest(rest);
  return true;
}

void add_zone(std::string_view free_blocks, std::uint64_t reserve, NodeRoom* room) {
  std::uint64_t free = 0;
  std::uint64_t huge = 0;
  std::uint64_t count = 0;
  for (unsigned order = 0; order < 32 && take_number(&free_blocks, &count); ++order) {
    free += count << order;
    if (order >= kHugeOrder) huge += count << (order - kHugeOrder);
  }
  room->free_pages += free;
  if (free <= reserve) return;
  const std::uint64_t usable = free - reserve;
  room->pages += usable;
  room->huge_blocks += std::min(huge, usable / kPagesPerBlock);
}

}  // namespace heaptier::os
