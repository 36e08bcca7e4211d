// One line that shows how far a long part has come: a bar on a terminal, a line at each quarter
// elsewhere.
#pragma once

#include <chrono>
#include <string>

namespace heaptier::demo {

class Progress {
 public:
  Progress(std::string title, double total);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `note` stands behind the bar ("312 of 520 MB"). Cheap enough to be called thousands of times a
  // second.
  void show(double done, const std::string& note);
  // The closing line: what came out.
  void finish(const std::string& result);

 private:
  using Clock = std::chrono::steady_clock;
  std::string title_;
  double total_;
  bool terminal_;
  bool finished_ = false;
  int quarters_shown_ = 0;
  Clock::time_point last_shown_{};
};

}  // namespace heaptier::demo
