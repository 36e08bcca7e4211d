#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "bench/demo/connection.h"
#include "bench/demo/phases.h"
#include "bench/demo/progress.h"
#include "bench/demo/random.h"

namespace heaptier::demo {

namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kSampleEvery = std::chrono::milliseconds(100);
constexpr double kSaveLimitSeconds = 60;

// What a connection waits for.
struct Slot {
  Connection connection;
  std::uint32_t id = 0;
  bool write = false;
  int replies_due = 0;
  Clock::time_point sent{};
};

enum class Stage { kWarm, kSteady, kDraining, kForking, kSaving, kSteadyAgain, kOver };

std::uint64_t resident_bytes_of(int pid) {
  std::ifstream statm("/proc/" + std::to_string(pid) + "/statm");
  std::uint64_t size = 0;
  std::uint64_t resident = 0;
  statm >> size >> resident;
  return resident * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

// The number after "name:" in an INFO reply; -1 when it is not there.
long info_number(std::string_view info, std::string_view name) {
  const std::size_t at = info.find(name);
  return at == std::string_view::npos ? -1 : std::atol(info.data() + at + name.size() + 1);
}

class Traffic {
 public:
  Traffic(const std::string& socket_path, const TrafficOptions& options, Model* model)
      : options_(options),
        model_(*model),
        zipf_(model->keys(), options.zipf_theta),
        random_(20240229, 1),
        control_(socket_path),
        epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    watch(control_.fd(), kControl);
    slots_.reserve(static_cast<std::size_t>(options.connections));
    for (int i = 0; i < options.connections; ++i) {
      slots_.push_back(Slot{Connection(socket_path)});
      watch(slots_.back().connection.fd(), static_cast<std::uint32_t>(i));
    }
  }
  ~Traffic() { close(epoll_); }
  Traffic(const Traffic&) = delete;
  Traffic& operator=(const Traffic&) = delete;

  TrafficResult run() {
    Progress progress("reads and writes", options_.warm_seconds + options_.steady_seconds);
    begin_ = stage_start_ = next_sample_ = Clock::now();
    for (Slot& slot : slots_) send_next(&slot);
    epoll_event events[64];
    while (stage_ != Stage::kOver) {
      const int n = epoll_wait(epoll_, events, 64, 10);
      for (int i = 0; i < n; ++i) {
        if (events[i].data.u32 == kControl) {
          on_control();
        } else {
          on_answer(&slots_[events[i].data.u32]);
        }
      }
      const auto now = Clock::now();
      if (now >= next_sample_) {
        next_sample_ = now + kSampleEvery;
        sample();
        progress.show(progress_seconds(now), note());
      }
      advance(now);
    }
    progress.finish(std::to_string(static_cast<long>(result_.steady.throughput())) +
                    " requests/s, " + std::to_string(result_.reads_verified) + " answers verified");
    std::sort(samples_.begin(), samples_.end());
    if (!samples_.empty()) result_.resident_bytes = samples_[samples_.size() / 2];
    return result_;
  }

 private:
  static constexpr std::uint32_t kControl = 0xFFFFFFFF;

  void watch(int fd, std::uint32_t tag) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u32 = tag;
    if (epoll_ < 0 || epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) die("epoll failed");
  }

  // A key that no other request is writing, and none is reading if this one writes: so every answer
  // has exactly one right value.
  std::uint32_t draw_key(const Slot& mine, bool write) {
    for (;;) {
      const std::uint32_t id = zipf_.next(random_);
      const bool taken = std::any_of(slots_.begin(), slots_.end(), [&](const Slot& other) {
        return &other != &mine && other.replies_due > 0 && other.id == id && (write || other.write);
      });
      if (!taken) return id;
    }
  }

  void send_next(Slot* slot) {
    // The fork must happen between two writes, not during one: then the model knows exactly what it
    // sees.
    const bool may_write = stage_ != Stage::kDraining && stage_ != Stage::kForking;
    slot->write = random_.fraction() < options_.write_share && may_write;
    slot->id = draw_key(*slot, slot->write);
    commands_.clear();
    if (slot->write) {
      const std::uint32_t version = model_.version(slot->id) + 1;
      make_content(slot->id, version, &content_);
      slot->replies_due = append_write(slot->id, version, content_, &commands_);
      model_.write(slot->id, content_);
      ++writes_in_flight_;
      ++result_.writes;
    } else {
      append_read(slot->id, &commands_);
      slot->replies_due = 1;
    }
    slot->sent = Clock::now();
    slot->connection.send(commands_);
  }

  void on_answer(Slot* slot) {
    slot->connection.receive();
    while (slot->replies_due > 0) {
      if (!slot->connection.next_reply(&reply_)) return;
      --slot->replies_due;
    }
    const auto nanos = std::chrono::nanoseconds(Clock::now() - slot->sent).count();
    if (Part* part = current_part(); part != nullptr) {
      part->latency.add(static_cast<std::uint64_t>(nanos));
    }
    if (slot->write) {
      --writes_in_flight_;
    } else {
      if (reply_.nil || !(digest_of(slot->id, reply_.parts) == model_.digest(slot->id))) {
        die("WRONG ANSWER: " + key_of(slot->id) + " is not what was written");
      }
      ++result_.reads_verified;
    }
    send_next(slot);
  }

  Part* current_part() {
    switch (stage_) {
      case Stage::kSteady:
      case Stage::kSteadyAgain:
        return &result_.steady;
      case Stage::kForking:
      case Stage::kSaving:
        return &result_.saving;
      default:
        return nullptr;
    }
  }

  void enter(Stage stage, Clock::time_point now) {
    if (Part* part = current_part(); part != nullptr) part->seconds += seconds(now - stage_start_);
    stage_ = stage;
    stage_start_ = now;
  }

  void advance(Clock::time_point now) {
    const double here = seconds(now - stage_start_);
    switch (stage_) {
      case Stage::kWarm:
        if (here >= options_.warm_seconds) enter(Stage::kSteady, now);
        break;
      case Stage::kSteady:
        if (here >= options_.steady_seconds / 2) enter(Stage::kDraining, now);
        break;
      case Stage::kDraining:
        if (writes_in_flight_ == 0) {
          result_.at_save = model_.total();
          enter(Stage::kForking, now);
          save_start_ = now;
          control_.send("*1\r\n$6\r\nBGSAVE\r\n");
        }
        break;
      case Stage::kSaving:
        if (here > kSaveLimitSeconds) die("BGSAVE does not come to an end");
        break;
      case Stage::kSteadyAgain:
        if (here >= options_.steady_seconds / 2) enter(Stage::kOver, now);
        break;
      case Stage::kForking:
      case Stage::kOver:
        break;
    }
  }

  void on_control() {
    control_.receive();
    while (control_.next_reply(&reply_)) on_control_reply(Clock::now());
  }

  void on_control_reply(Clock::time_point now) {
    if (stage_ == Stage::kForking) {  // "Background saving started": the child has its snapshot
      enter(Stage::kSaving, now);
      return;
    }
    if (stage_ != Stage::kSaving)
      return;  // an answer too many: it was asked for before the last one came
    const std::string info(reply_.parts.at(0));
    if (info_number(info, "rdb_bgsave_in_progress") != 0) return;
    if (info.find("rdb_last_bgsave_status:ok") == std::string::npos) die("BGSAVE failed");
    result_.save_seconds = seconds(now - save_start_);
    result_.fork_seconds = static_cast<double>(info_number(info, "latest_fork_usec")) * 1e-6;
    enter(Stage::kSteadyAgain, now);
  }

  void sample() {
    if (stage_ == Stage::kSaving) control_.send("*2\r\n$4\r\nINFO\r\n$10\r\neverything\r\n");
    if (stage_ == Stage::kSteady && options_.server_pid != 0) {
      samples_.push_back(resident_bytes_of(options_.server_pid));
    }
  }

  // Where the bar stands: the save takes as long as it takes, and the bar waits for it.
  double progress_seconds(Clock::time_point now) const {
    const double here = seconds(now - stage_start_);
    const double half = options_.steady_seconds / 2;
    switch (stage_) {
      case Stage::kWarm:
        return here;
      case Stage::kSteady:
        return options_.warm_seconds + here;
      case Stage::kSteadyAgain:
        return options_.warm_seconds + half + here;
      default:
        return options_.warm_seconds + half;
    }
  }

  std::string note() const {
    switch (stage_) {
      case Stage::kWarm:
        return "warming up";
      case Stage::kDraining:
      case Stage::kForking:
      case Stage::kSaving:
        return "BGSAVE is running";
      default:
        return "measuring";
    }
  }

  static double seconds(Clock::duration d) { return std::chrono::duration<double>(d).count(); }

  const TrafficOptions options_;
  Model& model_;
  const Zipf zipf_;
  Random random_;
  Connection control_;
  std::vector<Slot> slots_;
  int epoll_;

  Stage stage_ = Stage::kWarm;
  Clock::time_point begin_{}, stage_start_{}, save_start_{}, next_sample_{};
  int writes_in_flight_ = 0;
  std::vector<std::uint64_t> samples_;
  TrafficResult result_;
  Content content_;
  Reply reply_;
  std::string commands_;
};

}  // namespace

TrafficResult run_traffic(const std::string& socket_path, const TrafficOptions& options,
                          Model* model) {
  return std::make_unique<Traffic>(socket_path, options, model)->run();
}

}  // namespace heaptier::demo
