// The kernel's access monitor, by its files (Documentation/admin-guide/mm/damon/usage.rst). One
// kernel thread of it, a kdamond, looks at address ranges of this process ("fvaddr": at given
// ranges and at no others) and reports by a tracepoint, damon:damon_aggregated, what it has found.
// The other way to get at its results, `tried_regions`, makes the writer wait for 100 ms or more
// each time, in which no fork could go on.
//
// The files are the machine's: whoever sets the number of kdamonds makes all of them anew. So ours
// is the only one, and nobody else's is touched: if there are any, DAMON is not to be had, unless
// all that they were to look at is gone. The kernel ends a kdamond when the process that it looks
// at is gone, so that one of a process that was killed is found stale.
//
// Thread rule: the background thread; no call waits longer than two looks. Allocates nothing.
#pragma once

#include <cstdint>
#include <span>

#include "runtime/base/event_port.h"
#include "runtime/base/file_tree.h"
#include "runtime/base/units.h"

namespace heaptier {

struct SampledRange {
  std::uintptr_t start = 0;
  std::uintptr_t end = 0;
};

// How often to look, how often to report, and the bounds of how many ranges DAMON may make of those
// that it is given. All the same and it keeps to these.
struct DamonPace {
  Nanos look = millis(5);
  std::uint32_t looks = 20;  // to a report
  std::uint32_t least_regions = 10;
  std::uint32_t most_regions = 1000;
};

// What it reports of a region: in how many of the looks it was found used.
struct DamonRegion {
  std::uintptr_t start = 0;
  std::uintptr_t end = 0;
  std::uint32_t used = 0;
};

class Damon {
 public:
  Damon(OrderTree& files, EventPort& events) : files_(files), events_(events) {}

  // Whether this host has it, for us, at this moment. Changes nothing.
  Errno look(int process);
  // Why it is not to be had, after a call has failed: one clause, without an end.
  const char* why_not() const { return why_not_; }

  // Starts it for the ranges, which are in order and do not overlap; ends what ran before. On
  // failure nothing runs, and what there was before is there again.
  Errno start(int process, const DamonPace& pace, std::span<const SampledRange> ranges);
  bool started() const { return thread_ > 0; }
  // Whether the kernel says that it runs, and for us: somebody else may have ended it.
  bool runs();
  // CPU time that it has used since start(); 0: not known.
  Nanos cpu_time();
  // Hands on what was reported since the last time; counts what was lost.
  template <class Sink>
  void read(Sink sink, std::uint64_t* lost);
  // Ends it and gives the kdamond back. Nothing if it was not started.
  void stop();
  // In a forked child: the parent's goes on.
  void forget();

 private:
  // Where the fields of the tracepoint lie.
  struct Field {
    std::uint32_t offset = 0;
    std::uint32_t bytes = 0;
  };
  struct Layout {
    Field start, end, used;
    bool whole() const { return start.bytes != 0 && end.bytes != 0 && used.bytes != 0; }
  };

  Errno refuse(Errno e, const char* why);
  Errno find_tracepoint();
  Errno look_for_others(int process);
  bool stale(std::uint64_t kdamond, int process);
  Errno order(const char* file, const char* text);
  Errno order(const char* file, std::uint64_t number);
  Errno describe(int process, const DamonPace& pace, std::span<const SampledRange> ranges);
  Errno turn_on(int process);
  static std::uint64_t value(const unsigned char* body, const Field& field);
  bool decode(const unsigned char* body, std::size_t bytes, DamonRegion* out) const;
  std::uint64_t drain(void (*take)(void*, const DamonRegion&), void* sink);

  OrderTree& files_;
  EventPort& events_;
  EventRing ring_;
  Layout layout_;
  std::uint32_t tracepoint_ = 0;
  int process_ = 0;
  bool named_ = false;  // it was told whose memory it is about
  int thread_ = 0;      // the kdamond's, 0: not started
  const char* why_not_ = "";
};

template <class Sink>
void Damon::read(Sink sink, std::uint64_t* lost) {
  const auto take = [](void* to, const DamonRegion& r) { (*static_cast<Sink*>(to))(r); };
  *lost += drain(take, &sink);
}

}  // namespace heaptier
