// What happens when the application touches a page that is not there: the other half of every
// demotion.
//
// Where pages are hidden and not away (protection.h) the same is asked about access that was
// denied: then kLost says that it was not us who took it.
//
// Thread rule: on_fault from any number of threads, each with a worker of its own. It never waits
// for a page: locked pages are answered kBusy. It touches no managed memory and allocates nothing.
#pragma once

#include <cstdint>

#include "runtime/core.h"
#include "uffd/fault_sink.h"

namespace heaptier {

class FaultService final : public FaultSink {
 public:
  // A fetch brings at most this many pages.
  static constexpr std::uint32_t kMaxWindow = 32;

  explicit FaultService(Core& core) : core_(core) {}

  // `workers`: one for each number on_fault is called with; they outlive the service.
  void use_workers(Worker* workers, unsigned count) {
    workers_ = workers;
    worker_count_ = count;
  }
  FaultReply on_fault(const FaultEvent& event, unsigned worker) override;

 private:
  FaultReply resolve(PageIndex p, PageWord was, const FaultEvent& event, Worker& w);
  FaultReply first_touch(PageIndex p, PageWord was, const FaultEvent& event, Worker& w);
  FaultReply lost(PageIndex p, PageWord was, const FaultEvent& event, Worker& w);
  bool filled_again(PageIndex p, Worker& w);
  FaultReply unpark(PageIndex p, PageWord was, const Worker& w);
  bool touch_joined(PageIndex p, Worker& w, FaultReply* reply);
  FaultReply unpark_huge(PageIndex p, PageWord was, const Worker& w);
  FaultReply came_apart(PageIndex p, PageWord was, RunResult moved, const Worker& w);
  FaultReply came_home(Pageblock& block, PageIndex first);
  PageWord note_touch(Pageblock& block, PageWord was, const Worker& w);
  void note_toucher(Pageblock& block, const Worker& w);
  bool note_huge_touch(Pageblock& block, PageWord touched, const Worker& w);
  PageWord note_wanted(PageWord was, const Worker& w);
  FaultReply fetch(PageIndex p, PageWord was, const FaultEvent& event, Worker& w);
  FaultReply refill(PageIndex p, PageWord was, Worker& w);
  FaultReply written(PageIndex p, PageWord was);
  FaultReply emptied_under_us(std::uintptr_t address);
  FaultReply denied(PageIndex p, const FaultEvent& event, Worker& w);

  std::uint32_t window_for(PageIndex p);
  bool throttled(Worker& w);
  FaultReply wake(PageIndex p, std::uint32_t pages = 1) const {
    return {FaultVerdict::kWake, core_.home(p), std::size_t{pages} * kPageSize};
  }
  FaultReply try_again(PageIndex p, PageWord was);

  Core& core_;
  Worker* workers_ = nullptr;
  unsigned worker_count_ = 0;
};

}  // namespace heaptier
