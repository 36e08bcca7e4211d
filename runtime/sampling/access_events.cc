#include "runtime/sampling/access_events.h"

#include <charconv>
#include <cstdio>

#include "runtime/base/first_line.h"
#include "runtime/base/lines.h"
#include "runtime/base/words.h"

namespace heaptier {
namespace {

constexpr const char* kDevices = "/sys/bus/event_source/devices";
constexpr std::size_t kPath = 160;
// What the cores of Intel's are called; of mixed ones, those that are fast. The others have events
// of their own: what a thread does there is not seen.
constexpr const char* kCores[] = {"cpu", "cpu_core"};

// Takes what is before the next `end` from the text, and that with it.
std::string_view cut(std::string_view* text, char end) {
  const std::size_t at = text->find(end);
  const std::string_view piece = text->substr(0, at);
  text->remove_prefix(at == std::string_view::npos ? text->size() : at + 1);
  return piece;
}

bool number_of(std::string_view text, std::uint64_t* out) {
  if (!text.starts_with("0x")) return parse_decimal(text, out);
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data() + 2, end, *out, 16);
  return error == std::errc{} && stop == end;
}

class Device {
 public:
  Device(FileTree& files, const char* name) : files_(files), name_(name) {}

  bool type(std::uint32_t* out) {
    std::uint64_t n = 0;
    char path[kPath];
    std::snprintf(path, sizeof path, "%s/%s/type", kDevices, name_);
    if (!read_number(files_, path, &n) || n > UINT32_MAX) return false;
    *out = static_cast<std::uint32_t>(n);
    return true;
  }
  bool has(const char* folder, const char* file) {
    FirstLine line;
    return read(folder, file, &line);
  }
  bool put(std::string_view name, std::uint64_t value, AccessEvent* event) {
    char file[32];
    std::snprintf(file, sizeof file, "%.*s", static_cast<int>(name.size()), name.data());
    FirstLine format;
    return read("format", file, &format) && put_field(format.line(), value, event);
  }
  // "event=0xcd,umask=0x1,ldlat=3"
  bool event(const char* name, AccessEvent* out) {
    FirstLine line;
    if (!type(&out->type) || !read("events", name, &line)) return false;
    for (std::string_view terms = line.line(); !terms.empty();) {
      std::string_view value = cut(&terms, ',');
      const std::string_view term = cut(&value, '=');
      std::uint64_t n = 1;
      if (!value.empty() && !number_of(value, &n)) return false;
      if (!put(term, term == "ldlat" ? kLeastLatency : n, out)) return false;
    }
    return true;
  }

 private:
  bool read(const char* folder, const char* file, FirstLine* line) {
    char path[kPath];
    std::snprintf(path, sizeof path, "%s/%s/%s/%s", kDevices, name_, folder, file);
    return files_.read(path, *line).ok();
  }

  FileTree& files_;
  const char* name_;
};

// The event mem-loads-aux, which some of them have, is needed only by who asks from where each load
// was served.
bool find_intel(FileTree& files, AccessEvents* out) {
  for (const char* name : kCores) {
    Device cores(files, name);
    AccessEvent loads;
    if (!cores.event("mem-loads", &loads)) continue;
    loads.precise = 1;
    out->of[out->count++] = loads;
    AccessEvent stores;
    if (cores.event("mem-stores", &stores)) {
      stores.precise = 1;
      stores.tells_source = true;  // there is no least latency for them
      out->of[out->count++] = stores;
    }
    return true;
  }
  return false;
}

bool find_amd(FileTree& files, AccessEvents* out) {
  Device ibs(files, "ibs_op");
  AccessEvent all;
  if (!ibs.type(&all.type)) return false;
  // By operations and not by cycles, where it can: else what is slow counts more.
  if (ibs.has("format", "cnt_ctl") && !ibs.put("cnt_ctl", 1, &all)) return false;
  // Where it can leave out what a cache serves there is more to be had of each sample.
  if (ibs.has("format", "l3missonly") && !ibs.put("l3missonly", 1, &all)) return false;
  all.counts_kernel = !ibs.put("swfilt", 1, &all);
  all.tells_source = true;
  out->of[out->count++] = all;
  return true;
}

}  // namespace

bool put_field(std::string_view format, std::uint64_t value, AccessEvent* event) {
  const std::string_view word = cut(&format, ':');
  if (!word.starts_with("config") || word.size() > 7) return false;
  const std::size_t which = word.size() == 6 ? 0 : static_cast<std::size_t>(word[6] - '0');
  if (which > 2) return false;
  std::uint64_t mask = 0;
  while (!format.empty()) {
    std::string_view last = cut(&format, ',');
    const std::string_view first = cut(&last, '-');
    std::uint64_t from = 0;
    std::uint64_t to = 0;
    if (!number_of(first, &from) || !number_of(last.empty() ? first : last, &to)) return false;
    if (from > to || to > 63) return false;
    mask |= (~std::uint64_t{0} >> (63 - (to - from))) << from;
  }
  event->config[which] &= ~mask;
  for (; mask != 0; mask &= mask - 1, value >>= 1) {
    if ((value & 1) != 0) event->config[which] |= mask & (~mask + 1);
  }
  return value == 0;
}

Errno find_access_events(FileTree& files, AccessEvents* out, const char** why_not) {
  *out = {};
  if (find_intel(files, out) || find_amd(files, out)) return kOk;
  *out = {};
  bool arm = false;
  (void)each_name(files, kDevices,
                  [&arm](std::string_view name) { arm = arm || name.starts_with("arm_spe"); });
  *why_not = arm ? "what ARM's processors tell (SPE) cannot be read yet"
                 : "this processor, or virtual machine, tells no addresses of memory accesses";
  return {ENOTSUP};
}

}  // namespace heaptier
