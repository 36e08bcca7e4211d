#include "bench/demo/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

namespace heaptier::demo {

namespace {
constexpr int kBarWidth = 28;
constexpr int kTitleWidth = 24;
constexpr auto kRedraw = std::chrono::milliseconds(100);
constexpr auto kLineEvery = std::chrono::seconds(2);
}  // namespace

Progress::Progress(std::string title, double total)
    : title_(std::move(title)),
      total_(total > 0 ? total : 1),
      terminal_(isatty(STDERR_FILENO) == 1) {
  show(0, "");
  if (!terminal_) last_shown_ = Clock::now();
}

Progress::~Progress() {
  if (terminal_ && !finished_) std::fputs("\n", stderr);
}

void Progress::show(double done, const std::string& note) {
  const double share = std::clamp(done / total_, 0.0, 1.0);
  const auto now = Clock::now();
  if (!terminal_) {
    const int quarters = static_cast<int>(share * 4);
    if (quarters <= quarters_shown_ || quarters == 4 || now - last_shown_ < kLineEvery) return;
    quarters_shown_ = quarters;
    last_shown_ = now;
    std::fprintf(stderr, "    %s: %d %%\n", title_.c_str(), quarters * 25);
    return;
  }
  if (now - last_shown_ < kRedraw) return;
  last_shown_ = now;
  const int filled = static_cast<int>(share * kBarWidth);
  std::string bar(static_cast<std::size_t>(filled), '#');
  bar.resize(kBarWidth, '.');
  std::fprintf(stderr, "\r\033[K    %-*s [%s] %3.0f %%  %s", kTitleWidth, title_.c_str(),
               bar.c_str(), share * 100, note.c_str());
}

void Progress::finish(const std::string& result) {
  finished_ = true;
  std::fprintf(stderr, "%s    %-*s %s\n", terminal_ ? "\r\033[K" : "", kTitleWidth, title_.c_str(),
               result.c_str());
}

}  // namespace heaptier::demo
