// A kernel with DAMON that is not here: its files, as far as they are used, with what writing to
// them does; and the ring that its reports come by.
#pragma once

#include <cerrno>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "runtime/base/event_port.h"
#include "runtime/base/file_tree.h"

namespace heaptier {

class FakeEvents final : public EventPort {
 public:
  Errno refuses{};
  int opened = 0;
  int closed = 0;
  int thread = 0;
  std::uint32_t id = 0;
  bool is_open() const { return opened > closed; }

  Errno open_tracepoint(std::uint32_t tracepoint, int of, EventRing* ring) override {
    if (refuses.failed()) return refuses;
    ++opened;
    id = tracepoint;
    thread = of;
    *ring = {data_, sizeof data_, &head_, &tail_};
    return kOk;
  }
  void close() override { ++closed; }
  void forget() override { ++closed; }

  void add(std::uint32_t type, const void* body, std::size_t bytes) {
    const struct {
      std::uint32_t type;
      std::uint16_t misc;
      std::uint16_t bytes;
    } header{type, 0, static_cast<std::uint16_t>(8 + bytes)};
    put(&header, sizeof header);
    put(body, bytes);
  }
  // As damon:damon_aggregated lays it out.
  void report(std::uint64_t start, std::uint64_t end, std::uint32_t used) {
    unsigned char body[4 + 48 + 4] = {};
    const std::uint32_t raw = 48 + 4;
    std::memcpy(body, &raw, sizeof raw);
    std::memcpy(body + 4 + 24, &start, sizeof start);
    std::memcpy(body + 4 + 32, &end, sizeof end);
    std::memcpy(body + 4 + 40, &used, sizeof used);
    add(9, body, sizeof body);
  }
  void lose(std::uint64_t records) {
    const std::uint64_t body[] = {1, records};
    add(2, body, sizeof body);
  }
  std::uint64_t unread() const { return head_ - tail_; }
  void tear() { head_ += 3; }

 private:
  void put(const void* from, std::size_t bytes) {
    for (std::size_t i = 0; i < bytes; ++i, ++head_) {
      data_[head_ % sizeof data_] = static_cast<const unsigned char*>(from)[i];
    }
  }

  unsigned char data_[4096] = {};
  std::uint64_t head_ = 0;
  std::uint64_t tail_ = 0;
};

class FakeDamon final : public OrderTree {
 public:
  static constexpr const char* kFolder = "/sys/kernel/mm/damon/admin/kdamonds/";

  std::map<std::string, std::string> files;  // but for what is below kFolder
  bool has_fvaddr = true;
  bool exclusive = false;  // a part of the kernel has it for itself
  int fail_from = -1;      // the n-th order fails, and all after it; -1: none
  Errno fails_with{EIO};
  std::vector<std::string> orders;  // all that were given, "file=text"

  FakeDamon() {
    files["/sys/kernel/tracing/events/damon/damon_aggregated/id"] = "734\n";
    files["/sys/kernel/tracing/events/damon/damon_aggregated/format"] =
        "name: damon_aggregated\nID: 734\nformat:\n"
        "\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n"
        "\tfield:unsigned long target_id;\toffset:8;\tsize:8;\tsigned:0;\n"
        "\tfield:unsigned int nr_regions;\toffset:16;\tsize:4;\tsigned:0;\n"
        "\tfield:unsigned long start;\toffset:24;\tsize:8;\tsigned:0;\n"
        "\tfield:unsigned long end;\toffset:32;\tsize:8;\tsigned:0;\n"
        "\tfield:unsigned int nr_accesses;\toffset:40;\tsize:4;\tsigned:0;\n"
        "\tfield:unsigned int age;\toffset:44;\tsize:4;\tsigned:0;\n";
    set("nr_kdamonds", "0");
  }

  // Below kFolder.
  void set(const std::string& file, const std::string& text) { own_[file] = text; }
  std::string get(const std::string& file) const {
    const auto found = own_.find(file);
    return found == own_.end() ? "" : found->second;
  }
  // Somebody's kdamond number i.
  void add_kdamond(int i, int process, bool on) {
    set("nr_kdamonds", std::to_string(i + 1));
    const std::string at = std::to_string(i) + "/";
    set(at + "state", on ? "on" : "off");
    set(at + "pid", on ? "4000" : "-1");
    set(at + "contexts/nr_contexts", "1");
    if (process >= 0) set(at + "contexts/0/targets/0/pid_target", std::to_string(process));
  }
  void live(int process) { files["/proc/" + std::to_string(process) + "/stat"] = "1"; }
  bool on() const { return get("0/state") == "on"; }
  std::uint64_t number(const std::string& file) const {
    const std::string text = get(file);
    return text.empty() ? 0 : std::stoull(text);
  }

  Errno read(const char* path, TextSink& sink) override {
    const std::string name = path;
    if (name.starts_with(kFolder)) {
      const auto found = own_.find(name.substr(std::strlen(kFolder)));
      if (found == own_.end()) return {ENOENT};
      sink.take(found->second + "\n");
      return kOk;
    }
    const auto found = files.find(name);
    if (found == files.end()) return {ENOENT};
    sink.take(found->second);
    return kOk;
  }
  Errno list(const char*, TextSink& names) override {
    if (own_.empty()) return {ENOENT};
    names.take("kdamonds");
    return kOk;
  }
  std::string pid_namespace = "pid:[4026531836]";  // the machine's own
  Errno link(const char* path, char* out, std::size_t room) override {
    if (std::string(path) != "/proc/self/ns/pid" || pid_namespace.size() >= room) return {ENOENT};
    std::memcpy(out, pid_namespace.c_str(), pid_namespace.size() + 1);
    return kOk;
  }

  Errno write(const char* path, std::string_view text) override {
    const std::string name = path;
    if (!name.starts_with(kFolder)) return {ENOENT};
    const std::string file = name.substr(std::strlen(kFolder));
    if (fail_from >= 0 && static_cast<int>(orders.size()) >= fail_from) {
      orders.push_back("");
      return fails_with;
    }
    orders.push_back(file + "=" + std::string(text));
    return obey(file, std::string(text));
  }

 private:
  Errno obey(const std::string& file, const std::string& text) {
    if (file == "nr_kdamonds") return make_kdamonds(std::stoi(text));
    if (!own_.contains(file)) return {ENOENT};
    if (file == "0/state") return turn(text);
    if (file == "0/contexts/0/operations" && text == "fvaddr" && !has_fvaddr) return {EINVAL};
    own_[file] = text;
    if (file == "0/contexts/nr_contexts") make_context();
    if (file == "0/contexts/0/targets/nr_targets") {
      set("0/contexts/0/targets/0/pid_target", "0");
      set("0/contexts/0/targets/0/regions/nr_regions", "0");
    }
    if (file == "0/contexts/0/targets/0/regions/nr_regions") {
      for (int i = 0; i < std::stoi(text); ++i) {
        const std::string at = "0/contexts/0/targets/0/regions/" + std::to_string(i);
        set(at + "/start", "0");
        set(at + "/end", "0");
      }
    }
    return kOk;
  }
  Errno make_kdamonds(int n) {
    for (const auto& [file, text] : own_) {
      if (file.ends_with("/state") && text == "on") return {EBUSY};
    }
    own_.clear();
    set("nr_kdamonds", std::to_string(n));
    for (int i = 0; i < n; ++i) {
      set(std::to_string(i) + "/state", "off");
      set(std::to_string(i) + "/pid", "-1");
      set(std::to_string(i) + "/contexts/nr_contexts", "0");
    }
    return kOk;
  }
  void make_context() {
    for (const char* file :
         {"operations", "monitoring_attrs/intervals/sample_us",
          "monitoring_attrs/intervals/aggr_us", "monitoring_attrs/nr_regions/min",
          "monitoring_attrs/nr_regions/max", "targets/nr_targets"}) {
      set(std::string("0/contexts/0/") + file, "0");
    }
  }
  // What the kernel itself holds against it: mm/damon/core.c, mm/damon/sysfs.c.
  Errno turn(const std::string& text) {
    if (text == "off") {
      if (!on()) return {EINVAL};
      set("0/state", "off");
      set("0/pid", "-1");
      return kOk;
    }
    if (on() || exclusive) return {EBUSY};
    const std::string attrs = "0/contexts/0/monitoring_attrs/";
    const std::uint64_t least = number(attrs + "nr_regions/min");
    if (least < 3 || least > number(attrs + "nr_regions/max")) return {EINVAL};
    if (number(attrs + "intervals/sample_us") > number(attrs + "intervals/aggr_us"))
      return {EINVAL};
    std::uint64_t before = 0;
    const std::string regions = "0/contexts/0/targets/0/regions/";
    for (std::uint64_t i = 0; i < number(regions + "nr_regions"); ++i) {
      const std::string at = regions + std::to_string(i);
      const std::uint64_t start = number(at + "/start");
      if (start < before || start >= number(at + "/end")) return {EINVAL};
      before = number(at + "/end");
    }
    set("0/state", "on");
    set("0/pid", "777");
    return kOk;
  }

  std::map<std::string, std::string> own_;
};

}  // namespace heaptier
