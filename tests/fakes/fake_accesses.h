// A processor that tells of memory accesses and is not here: threads whose accesses are made by
// hand, and the rings that their samples come by.
#pragma once

#include <cerrno>
#include <cstring>
#include <list>
#include <map>
#include <vector>

#include "runtime/base/event_port.h"

namespace heaptier {

class FakeAccesses final : public ThreadEventPort {
 public:
  struct Event {
    AccessEvent event;
    SamplePace pace;
    int thread = 0;
    std::vector<unsigned char> data;
    std::uint64_t head = 0;
    std::uint64_t tail = 0;
  };

  std::list<Event> open_events;
  Errno refuses{};                      // all
  std::map<int, Errno> refuses_thread;  // of one
  std::map<std::uint8_t, Errno> refuses_precise;
  std::uint32_t most_rate = UINT32_MAX;  // EINVAL above
  std::size_t lockable = SIZE_MAX;       // bytes in all
  int opened = 0;
  int closed = 0;
  std::size_t locked() const {
    std::size_t bytes = 0;
    for (const Event& e : open_events) bytes += e.data.size();
    return bytes;
  }

  Errno open(const AccessEvent& event, SamplePace pace, int thread, std::size_t bytes,
             EventRing* ring) override {
    if (refuses.failed()) return refuses;
    if (const auto r = refuses_thread.find(thread); r != refuses_thread.end()) return r->second;
    if (const auto r = refuses_precise.find(event.precise); r != refuses_precise.end()) {
      return r->second;
    }
    if (pace.per_second > most_rate) return {EINVAL};
    if ((bytes & (bytes - 1)) != 0 || bytes < 4096) return {EINVAL};
    if (locked() + bytes > lockable) return {ENOMEM};
    ++opened;
    Event& e = open_events.emplace_back();
    e.event = event;
    e.pace = pace;
    e.thread = thread;
    e.data.resize(bytes);
    *ring = {e.data.data(), bytes, &e.head, &e.tail};
    return kOk;
  }
  void close(EventRing* ring) override {
    ++closed;
    const auto before = open_events.size();
    open_events.remove_if([ring](const Event& e) { return e.data.data() == ring->data; });
    if (open_events.size() + 1 != before) ++wrongly_closed;
    *ring = {};
  }
  int wrongly_closed = 0;

  // Of the thread, for its n-th event.
  Event* of(int thread, unsigned n = 0) {
    for (Event& e : open_events) {
      if (e.thread == thread && n-- == 0) return &e;
    }
    return nullptr;
  }
  std::size_t threads() const {
    std::map<int, int> all;
    for (const Event& e : open_events) ++all[e.thread];
    return all.size();
  }
  // False: the ring is full, and it is lost.
  static bool access(Event* e, std::uint64_t address, std::uint64_t accesses = 1,
                     std::uint64_t source = 0) {
    const std::uint64_t body[] = {address, accesses, source};
    return add(e, 9, body, e->event.tells_source ? 24 : 16);
  }
  static bool add(Event* e, std::uint32_t type, const void* body, std::size_t bytes) {
    const struct {
      std::uint32_t type;
      std::uint16_t misc;
      std::uint16_t bytes;
    } header{type, 0, static_cast<std::uint16_t>(8 + bytes)};
    if (e->head + 8 + bytes - e->tail > e->data.size()) return false;
    put(e, &header, sizeof header);
    put(e, body, bytes);
    return true;
  }
  static void lose(Event* e, std::uint64_t records) {
    const std::uint64_t body[] = {1, records};
    add(e, 2, body, sizeof body);
  }
  static void throttle(Event* e) {
    const std::uint64_t body[] = {1, 2, 3};
    add(e, 5, body, sizeof body);
  }

 private:
  static void put(Event* e, const void* from, std::size_t bytes) {
    for (std::size_t i = 0; i < bytes; ++i, ++e->head) {
      e->data[e->head % e->data.size()] = static_cast<const unsigned char*>(from)[i];
    }
  }
};

}  // namespace heaptier
