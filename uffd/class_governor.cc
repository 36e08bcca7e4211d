#include "uffd/class_governor.h"

#include <algorithm>

namespace heaptier {

const char* to_string(HandlerClass c) {
  switch (c) {
    case HandlerClass::kIdle:
      return "idle";
    case HandlerClass::kNormal:
      return "normal";
  }
  return "?";
}

// Starved: a message waits, none has been finished and the worker was hardly on a CPU, all that for
// kStarved.
bool ClassGovernor::starved(Watch& watch, Nanos now, const WorkerSample& sample) {
  const bool still_waiting = watch.stalled && sample.pending && sample.progress == watch.progress;
  if (still_waiting && now - watch.since < kStarved) return false;
  const Nanos waited = now - watch.since;
  const Nanos used = sample.cpu - watch.cpu_then;
  if (still_waiting && 2 * used.v < waited.v) return true;
  watch = {sample.pending, now, sample.cpu, sample.progress};
  return false;
}

void ClassGovernor::enter(HandlerClass next, Nanos now) {
  class_ = next;
  entered_ = now;
  ++switches_;
  for (Watch& watch : watch_) watch = {};
}

HandlerClass ClassGovernor::decide(Nanos now, const WorkerSample* samples, unsigned count) {
  if (class_ == HandlerClass::kNormal) {
    if (now - entered_ >= hold_) enter(HandlerClass::kIdle, now);
    return class_;
  }
  bool any = false;
  for (unsigned i = 0; i < std::min(count, kMaxShards); ++i) {
    any = starved(watch_[i], now, samples[i]) || any;
  }
  if (!any) return class_;
  // Idle did not even last as long as the normal class before it: wait longer for the next try.
  const bool again_too_soon = hold_.v > 0 && now - entered_ < hold_;
  hold_ = again_too_soon ? std::min(hold_ + hold_, kLongestHold) : kFirstHold;
  enter(HandlerClass::kNormal, now);
  return class_;
}

}  // namespace heaptier
