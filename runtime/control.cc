#include "runtime/control.h"

#include "runtime/base/node_set.h"
#include "runtime/bootstrap_heap.h"
#include "runtime/os/sandbox.h"

namespace heaptier {
namespace {

// A child that has lived for so long is not about to call exec, and will be asked something.
constexpr Nanos kChildIsThere = seconds(1);

constexpr std::string_view kTooLong =
    "{\"error\": \"the request is longer than a request can be\"}";

bool take_word(std::string_view* text, std::string_view word) {
  if (!text->starts_with(word)) return false;
  text->remove_prefix(word.size());
  return true;
}

// A node's number of one or two digits and nothing behind it.
bool parse_node(std::string_view text, unsigned* out) {
  if (text.empty() || text.size() > 2) return false;
  *out = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return false;
    *out = *out * 10 + static_cast<unsigned>(c - '0');
  }
  return *out < kMaxNodes;
}

}  // namespace

ControlRequest parse_control(std::string_view text) {
  if (text == "stats") return {ControlVerb::kStats, 0};
  if (text == "tiers") return {ControlVerb::kTiers, 0};
  ControlRequest request;
  if (take_word(&text, "drain ")) {
    request.verb = ControlVerb::kDrain;
  } else if (take_word(&text, "drained ")) {
    request.verb = ControlVerb::kDrained;
  } else if (take_word(&text, "undrain ")) {
    request.verb = ControlVerb::kUndrain;
  }
  if (!parse_node(text, &request.node)) return {};
  return request;
}

void Control::open(const Options& options, bool in_child, Nanos now) {
  if (options.control == ControlMode::kOff) return;
  runtime_dir_ = options.runtime_dir;
  open_at_ = in_child ? now + kChildIsThere : now;
  if (!in_child) try_open();
}

void Control::try_open() {
  open_at_ = Nanos{};
  // Finding out takes a process: a forked child believes its parent.
  if (const unsigned filters = os::seccomp_filters(); !probed_ || filters != filters_) {
    sandbox_kills_ = os::filter_would_kill_control();
    filters_ = filters;
    probed_ = true;
  }
  if (sandbox_kills_ || door_.open(runtime_dir_).failed()) {
    stats_.control_failed.add();
  }
}

void Control::hang_up() {
  if (client_ >= 0) os::ControlDoor::hang_up(client_);
  client_ = -1;
}

// The application has gone into a sandbox since: this thread may be in it, too, and what that
// thinks of accept() or unlink() is not to be found out by calling them.
bool Control::sandbox_changed() const {
  return os::seccomp_filters() != filters_;
}

void Control::close() {
  open_at_ = Nanos{};
  hang_up();
  waiting_ = false;
  if (!door_.is_open()) return;
  if (sandbox_changed()) {
    door_.abandon();
  } else {
    door_.close();
  }
}

bool Control::leave() {
  if (!door_.is_named()) return false;
  leaving_.ask();
  return true;
}

void Control::take_leave() {
  close();
  leaving_.done();
}

void Control::forget() {
  door_.forget();
  client_ = -1;
  waiting_ = false;
  open_at_ = Nanos{};
  leaving_.forget();
}

void Control::round(ControlAnswers& answers, Nanos now) {
  if (!door_.is_open()) {
    if (open_at_.v != 0 && now >= open_at_) try_open();
    return;
  }
  if (!busy()) {
    if (now < next_look_) return;
    next_look_ = now + kLookEvery;
    if (!door_.rung()) return;
    waiting_ = true;
  }
  if (sandbox_changed()) {
    stats_.control_failed.add();
    return close();
  }
  for (int n = 0; n < kMostARound; ++n) {
    if (client_ < 0 && !let_in(now)) return;
    if (client_ >= 0 && !serve(answers, now)) return;
  }
}

// False: nobody waits any more.
bool Control::let_in(Nanos now) {
  const int client = door_.accept();
  if (client == -EPERM) {
    stats_.control_dropped.add();
    return true;
  }
  waiting_ = client >= 0;
  client_ = client;
  client_until_ = now + kPatience;
  return waiting_;
}

// False: the client has not said yet what it wants.
bool Control::serve(ControlAnswers& answers, Nanos now) {
  char text[kLongestRequest];
  const long n = os::ControlDoor::receive(client_, text, sizeof text);
  if (n == -EAGAIN && now < client_until_) return false;
  if (n <= 0) {
    stats_.control_dropped.add();
    hang_up();
    return true;
  }
  char* out = static_cast<char*>(bootstrap::allocate(kAnswerRoom));
  bool sent = false;
  if (static_cast<std::size_t>(n) > sizeof text) {
    sent = os::ControlDoor::send(client_, kTooLong.data(), kTooLong.size());
  } else if (out != nullptr) {
    const ControlRequest request = parse_control({text, static_cast<std::size_t>(n)});
    const std::size_t length = answers.answer(request, out, kAnswerRoom);
    sent = os::ControlDoor::send(client_, out, length < kAnswerRoom ? length : kAnswerRoom - 1);
  }
  if (out != nullptr) bootstrap::release(out, kAnswerRoom);
  (sent ? stats_.control_answers : stats_.control_dropped).add();
  hang_up();
  return true;
}

}  // namespace heaptier
