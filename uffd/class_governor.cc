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
  watch.stalled = sample.pending;
  watch.since = now;
  watch.cpu_then = sample.cpu;
  watch.progress = sample.progress;
  return false;
}

void ClassGovernor::enter(HandlerClass next, Nanos now) {
  class_ = next;
  entered_ = now;
  ++switches_;
  counting_ = false;
  for (Watch& watch : watch_) watch = {};
}

HandlerClass ClassGovernor::decide(Nanos now, const WorkerSample* samples, unsigned count,
                                   std::uint64_t answered) {
  const bool blind = now - looked_ > kBlind;
  looked_ = now;
  if (class_ == HandlerClass::kNormal) {
    if (now - entered_ >= hold_) enter(HandlerClass::kIdle, now);
    return class_;
  }
  if (blind) {
    for (Watch& watch : watch_) watch.stalled = false;
  }
  if (!counting_) counted_from_ = answered;
  counting_ = true;
  bool any = false;
  for (unsigned i = 0; i < std::min(count, kMostSamples); ++i) {
    any = starved(watch_[i], now, samples[i]) || any;
  }
  if (!any) return class_;
  const bool was_worth_it = hold_.v == 0 || answered - counted_from_ >= kWorthStarving;
  hold_ = was_worth_it ? kFirstHold : std::min(hold_ + hold_, kLongestHold);
  enter(HandlerClass::kNormal, now);
  return class_;
}

}  // namespace heaptier
