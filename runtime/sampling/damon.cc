#include "runtime/sampling/damon.h"

#include <charconv>
#include <cstdio>
#include <cstring>

#include "runtime/base/first_line.h"
#include "runtime/base/lines.h"
#include "runtime/sampling/event_records.h"

namespace heaptier {
namespace {

constexpr std::string_view kFirstPidNamespace = "pid:[4026531836]";
constexpr const char* kAdmin = "/sys/kernel/mm/damon/admin/kdamonds/";
constexpr const char* kCount = "/sys/kernel/mm/damon/admin/kdamonds/nr_kdamonds";
constexpr const char* kState = "0/state";
constexpr const char* kStateFile = "/sys/kernel/mm/damon/admin/kdamonds/0/state";
constexpr const char* kThread = "/sys/kernel/mm/damon/admin/kdamonds/0/pid";
constexpr const char* kProcess =
    "/sys/kernel/mm/damon/admin/kdamonds/0/contexts/0/targets/0/pid_target";
// Where tracefs is mounted, by systemd or of old.
constexpr const char* kTracing[] = {"/sys/kernel/tracing", "/sys/kernel/debug/tracing"};
constexpr std::size_t kPath = 160;

bool first_line_is(FileTree& files, const char* path, std::string_view text) {
  FirstLine line;
  return files.read(path, line).ok() && line.line() == text;
}

// The number after `key` in a line of a tracepoint's format: "field:...;\toffset:24;\tsize:8;".
std::uint32_t number_after(std::string_view line, std::string_view key) {
  const std::size_t at = line.find(key);
  std::uint32_t n = 0;
  if (at != std::string_view::npos) {
    const char* const from = line.data() + at + key.size();
    std::from_chars(from, line.data() + line.size(), n);
  }
  return n;
}

bool declares(std::string_view line, std::string_view name) {
  const std::size_t end = line.find(';');
  if (line.find("field:") == std::string_view::npos || end == std::string_view::npos) return false;
  const std::string_view declared = line.substr(0, end);
  return declared.ends_with(name) && declared.size() > name.size() &&
         declared[declared.size() - name.size() - 1] == ' ';
}

// A process that is not there has no such file.
bool lives(FileTree& files, std::uint64_t process) {
  char path[kPath];
  std::snprintf(path, sizeof path, "/proc/%llu/stat", static_cast<unsigned long long>(process));
  FirstLine line;
  return files.read(path, line).code != ENOENT;
}

}  // namespace

Errno Damon::refuse(Errno e, const char* why) {
  why_not_ = why;
  return e.failed() ? e : Errno{EIO};
}

Errno Damon::order(const char* file, const char* text) {
  char path[kPath];
  std::snprintf(path, sizeof path, "%s%s", kAdmin, file);
  return files_.write(path, text);
}

Errno Damon::order(const char* file, std::uint64_t n) {
  char text[24];
  std::snprintf(text, sizeof text, "%llu", static_cast<unsigned long long>(n));
  return order(file, text);
}

Errno Damon::find_tracepoint() {
  for (const char* root : kTracing) {
    char path[kPath];
    std::uint64_t id = 0;
    std::snprintf(path, sizeof path, "%s/events/damon/damon_aggregated/id", root);
    if (!read_number(files_, path, &id) || id == 0 || id > UINT32_MAX) continue;
    Layout layout;
    std::snprintf(path, sizeof path, "%s/events/damon/damon_aggregated/format", root);
    const auto note = [&](std::string_view line) {
      const Field field{number_after(line, "offset:"), number_after(line, "size:")};
      if (field.bytes != 4 && field.bytes != 8) return;
      if (declares(line, "start")) layout.start = field;
      if (declares(line, "end")) layout.end = field;
      if (declares(line, "nr_accesses")) layout.used = field;
    };
    if (each_line(files_, path, note).failed() || !layout.whole()) continue;
    tracepoint_ = static_cast<std::uint32_t>(id);
    layout_ = layout;
    return kOk;
  }
  return refuse({ENOENT},
                "what DAMON finds cannot be read: no tracepoint damon:damon_aggregated "
                "(mount -t tracefs tracefs /sys/kernel/tracing)");
}

// Whether what the kdamond was to look at is gone, or is this process itself before it began to run
// another program.
bool Damon::stale(std::uint64_t kdamond, int process) {
  char path[kPath];
  std::uint64_t target = 0;
  std::snprintf(path, sizeof path, "%s%llu/contexts/0/targets/0/pid_target", kAdmin,
                static_cast<unsigned long long>(kdamond));
  if (!read_number(files_, path, &target) || target == 0) return false;
  if (target == static_cast<std::uint64_t>(process)) return true;
  std::snprintf(path, sizeof path, "%s%llu/state", kAdmin,
                static_cast<unsigned long long>(kdamond));
  return first_line_is(files_, path, "off") && !lives(files_, target);
}

Errno Damon::look_for_others(int process) {
  std::uint64_t kdamonds = 0;
  if (!read_number(files_, kCount, &kdamonds)) {
    return refuse({EACCES}, "DAMON is for root: /sys/kernel/mm/damon/admin cannot be read");
  }
  constexpr std::uint64_t kMost = 64;
  bool all_stale = kdamonds <= kMost;
  for (std::uint64_t i = 0; all_stale && i < kdamonds; ++i) all_stale = stale(i, process);
  if (all_stale) return kOk;
  return refuse({EBUSY},
                "somebody else uses DAMON (if nobody does: echo 0 > "
                "/sys/kernel/mm/damon/admin/kdamonds/nr_kdamonds)");
}

Errno Damon::look(int process) {
  // Its files have process numbers as who wrote them sees them.
  char space[32];
  if (files_.link("/proc/self/ns/pid", space, sizeof space).failed() ||
      std::string_view(space) != kFirstPidNamespace) {
    return refuse({EPERM}, "DAMON cannot be used from inside a container");
  }
  FirstLine any;
  if (const Errno e = files_.list("/sys/kernel/mm/damon/admin", any); e.failed()) {
    return refuse(e, e.code == EACCES ? "DAMON is for root"
                                      : "this kernel has no DAMON (CONFIG_DAMON_SYSFS)");
  }
  if (Errno e = look_for_others(process); e.failed()) return e;
  return find_tracepoint();
}

Errno Damon::describe(int process, const DamonPace& pace, std::span<const SampledRange> ranges) {
  const auto us = [](Nanos t) { return static_cast<std::uint64_t>(t.v / 1000); };
  struct Line {
    const char* file;
    std::uint64_t number;
  };
  const Line lines[] = {
      {"0/contexts/0/monitoring_attrs/intervals/sample_us", us(pace.look)},
      {"0/contexts/0/monitoring_attrs/intervals/aggr_us", us({pace.look.v * pace.looks})},
      {"0/contexts/0/monitoring_attrs/nr_regions/max", pace.most_regions},
      {"0/contexts/0/monitoring_attrs/nr_regions/min", pace.least_regions},
      {"0/contexts/0/targets/nr_targets", 1},
      {"0/contexts/0/targets/0/pid_target", static_cast<std::uint64_t>(process)},
      {"0/contexts/0/targets/0/regions/nr_regions", ranges.size()},
  };
  if (Errno e = order("0/contexts/nr_contexts", 1); e.failed()) return e;
  if (Errno e = order("0/contexts/0/operations", "fvaddr"); e.failed()) {
    why_not_ = "this kernel's DAMON cannot look at the memory of processes (CONFIG_DAMON_VADDR)";
    return e;
  }
  for (const Line& line : lines) {
    if (Errno e = order(line.file, line.number); e.failed()) return e;
    named_ = named_ || std::string_view(line.file).ends_with("pid_target");
  }
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    char file[kPath];
    std::snprintf(file, sizeof file, "0/contexts/0/targets/0/regions/%zu/start", i);
    if (Errno e = order(file, ranges[i].start); e.failed()) return e;
    std::snprintf(file, sizeof file, "0/contexts/0/targets/0/regions/%zu/end", i);
    if (Errno e = order(file, ranges[i].end); e.failed()) return e;
  }
  return kOk;
}

Errno Damon::turn_on(int process) {
  if (Errno e = order(kState, "on"); e.failed()) {
    why_not_ = e.code == EBUSY ? "somebody else uses DAMON" : "DAMON does not start";
    return e;
  }
  process_ = process;
  std::uint64_t thread = 0;
  // Who did the same at the same time may have written over what we had.
  if (!read_number(files_, kThread, &thread) || thread == 0 || thread > INT32_MAX || !runs()) {
    return refuse({EBUSY}, "somebody else uses DAMON");
  }
  const Errno e = events_.open_tracepoint(tracepoint_, static_cast<int>(thread), &ring_);
  if (e.failed()) {
    return refuse(e, e.code == ESRCH
                         ? "what DAMON finds cannot be read from inside a container"
                         : "what DAMON finds cannot be read: perf_event_open is refused");
  }
  thread_ = static_cast<int>(thread);
  return kOk;
}

Errno Damon::start(int process, const DamonPace& pace, std::span<const SampledRange> ranges) {
  stop();
  if (Errno e = look_for_others(process); e.failed()) return e;
  // It can only be this process' own, from before it began to run another program.
  if (first_line_is(files_, kStateFile, "on")) (void)order(kState, "off");
  why_not_ = "DAMON refuses what it was asked";
  if (Errno e = order("nr_kdamonds", "1"); e.failed()) {
    return refuse(e, e.code == EBUSY ? "somebody else uses DAMON" : "DAMON is for root");
  }
  process_ = process;
  named_ = false;
  Errno e = describe(process, pace, ranges);
  if (e.ok()) e = turn_on(process);
  if (e.failed()) stop();
  return e;
}

bool Damon::runs() {
  std::uint64_t target = 0;
  return process_ != 0 && read_number(files_, kProcess, &target) &&
         target == static_cast<std::uint64_t>(process_) && first_line_is(files_, kStateFile, "on");
}

Nanos Damon::cpu_time() {
  if (thread_ == 0) return {};
  char path[kPath];
  std::snprintf(path, sizeof path, "/proc/%d/schedstat", thread_);
  FirstLine line;
  if (files_.read(path, line).failed()) return {};
  const std::string_view text = line.line();
  std::int64_t used = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), used);
  return {error == std::errc{} && used > 0 ? used : 0};
}

// Only where it is ours still: others may have set up their own since.
void Damon::stop() {
  if (ring_.is_open()) events_.close();
  ring_ = {};
  thread_ = 0;
  if (process_ == 0) return;
  std::uint64_t target = 0;
  std::uint64_t kdamonds = 0;
  const bool described = read_number(files_, kProcess, &target);
  const bool ours =
      read_number(files_, kCount, &kdamonds) && kdamonds == 1 &&
      (target == static_cast<std::uint64_t>(process_) || (!named_ && (!described || target == 0)));
  // The kernel does not wait for whoever is at these files at the same moment. What it will not end
  // ends with the process.
  constexpr int kTries = 20;
  for (int tries = 0; ours && tries < kTries; ++tries) {
    if (runs()) (void)order(kState, "off");
    if (order("nr_kdamonds", "0").code != EBUSY) break;
  }
  process_ = 0;
}

void Damon::forget() {
  events_.forget();
  ring_ = {};
  thread_ = 0;
  process_ = 0;
}

std::uint64_t Damon::value(const unsigned char* body, const Field& field) {
  std::uint64_t wide = 0;
  std::uint32_t narrow = 0;
  if (field.bytes == sizeof wide) {
    std::memcpy(&wide, body + field.offset, sizeof wide);
    return wide;
  }
  std::memcpy(&narrow, body + field.offset, sizeof narrow);
  return narrow;
}

// A sample is the length of the raw data, and these.
bool Damon::decode(const unsigned char* body, std::size_t bytes, DamonRegion* out) const {
  std::uint32_t raw = 0;
  if (bytes < sizeof raw) return false;
  std::memcpy(&raw, body, sizeof raw);
  if (raw > bytes - sizeof raw) return false;
  for (const Field& field : {layout_.start, layout_.end, layout_.used}) {
    if (field.offset > raw || field.bytes > raw - field.offset) return false;
  }
  const unsigned char* const data = body + sizeof raw;
  out->start = value(data, layout_.start);
  out->end = value(data, layout_.end);
  out->used = static_cast<std::uint32_t>(value(data, layout_.used));
  return out->start < out->end;
}

std::uint64_t Damon::drain(void (*take)(void*, const DamonRegion&), void* sink) {
  if (!ring_.is_open()) return 0;
  const RecordTally tally = read_records(ring_, [&](const EventRecord& record) {
    DamonRegion region;
    if (decode(record.body, record.bytes, &region)) take(sink, region);
  });
  return tally.lost + (tally.broken ? 1 : 0);
}

}  // namespace heaptier
