// The control socket: `heaptier ctl` of the same user, or root, asks a process whose engine is
// awake. A request is one message of words ("drain 2"), the answer one message, a JSON object; then
// the server hangs up. {"error": "..."}: refused, and why.
//
// Thread rule: the background thread, between its rounds; leave() from any. A client that stalls or
// talks nonsense costs itself its connection and the thread nothing: no call waits.
#pragma once

#include <cstddef>
#include <string_view>

#include "runtime/base/units.h"
#include "runtime/config/options.h"
#include "runtime/config/stats.h"
#include "runtime/leaving.h"
#include "runtime/os/control_door.h"

namespace heaptier {

enum class ControlVerb : std::uint8_t {
  kStats,
  kTiers,
  kDrain,    // begins, or goes on
  kDrained,  // how far it is
  kUndrain,
  kNonsense,
};
struct ControlRequest {
  ControlVerb verb = ControlVerb::kNonsense;
  unsigned node = 0;  // of the last three but kNonsense
};
// "stats", "tiers", "drain N", "drained N", "undrain N"; nothing else.
ControlRequest parse_control(std::string_view text);

// Who knows the answers.
class ControlAnswers {
 public:
  // Writes the JSON object into `out`; its length, less than `room`.
  virtual std::size_t answer(const ControlRequest& request, char* out, std::size_t room) = 0;

 protected:
  ~ControlAnswers() = default;
};

class Control {
 public:
  static constexpr std::size_t kLongestRequest = 128;
  static constexpr std::size_t kAnswerRoom = kStatsTextBytes;
  static constexpr Nanos kLookEvery = millis(100);
  // A client's message must be there so long after it was let in.
  static constexpr Nanos kPatience = millis(200);
  static constexpr int kMostARound = 8;

  constexpr explicit Control(Stats& stats) : stats_(stats) {}

  // From now on the process can be reached; in a forked child only when it has lived for a while,
  // since most end soon. Failures are counted, and nothing is said.
  void open(const Options& options, bool in_child, Nanos now);
  // Serves who is there, some clients at a time.
  void round(ControlAnswers& answers, Nanos now);
  // Somebody waits to be served: the next round is to be soon.
  bool busy() const { return client_ >= 0 || waiting_; }
  // Not reached any more. Nothing if it was not.
  void close();
  // The process ends. True: there are names to be removed, by the background thread, which is to be
  // woken; the thread that ends the process may be in a sandbox of its own. await_left() waits for
  // it, for a moment.
  bool leave();
  void await_left() { leaving_.await(millis(50)); }
  // The other side of it, often called.
  void see_who_leaves() {
    if (leaving_.asked()) take_leave();
  }
  // In a forked child.
  void forget();

 private:
  void take_leave();
  bool sandbox_changed() const;
  void try_open();
  bool let_in(Nanos now);
  bool serve(ControlAnswers& answers, Nanos now);
  void hang_up();

  Stats& stats_;
  os::ControlDoor door_;
  const char* runtime_dir_ = "";
  Nanos open_at_{};  // 0: not to be opened, or done
  bool probed_ = false;
  bool sandbox_kills_ = false;
  unsigned filters_ = 0;  // when that was found out
  Nanos next_look_{};
  bool waiting_ = false;
  int client_ = -1;
  Nanos client_until_{};
  Leaving leaving_;
};

}  // namespace heaptier
