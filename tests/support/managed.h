// The bridge between a test and the heaptier in its process, if there is one. The tests of
// tests/kernel are ordinary programs that hold for any allocator: run plain, every call here does
// nothing; under LD_PRELOAD they park and store the memory under test first, and assert that it is
// away at the moment when the system call is made.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/support/pattern.h"

namespace heaptier::test {

inline constexpr std::size_t kKiB = 1024;
inline constexpr std::size_t kMiB = 1024 * kKiB;
inline constexpr std::size_t kPage = 4 * kKiB;
inline constexpr std::size_t kPageblock = 2 * kMiB;

// Whether libheaptier is in this process.
bool preloaded();
// Preloaded, and its engine is awake: pages do move.
bool tiered();
// Wakes the engine. 0: awake, or nothing to wake (plain); otherwise a negative errno.
int wake();

// Where the test wants a page to be.
enum class Place { kResident, kParked, kStored };
const char* to_string(Place place);
// All three, for INSTANTIATE_TEST_SUITE_P; `place_name` names the instances.
inline constexpr Place kPlaces[] = {Place::kResident, Place::kParked, Place::kStored};
inline std::string place_name(const testing::TestParamInfo<Place>& info) {
  return to_string(info.param);
}

// Moves the whole pages inside [p, p + bytes) to `place`, and fails with a picture of the places
// when some page is elsewhere afterwards. Does nothing, successfully, in a plain run.
testing::AssertionResult put_at(void* p, std::size_t bytes, Place place);
// One character a page: . resident, c clean, p parked, s stored, f filled, X lost, u unmanaged.
// Empty in a plain run.
std::string places_of(const void* p, std::size_t bytes);
// Demotes (and, every other time, parks) without looking at the outcome. Safe on freed memory, from
// any thread.
void shove(void* p, std::size_t bytes);
// One attempt to put the range at `place`, whatever comes of it: for pages that may refuse
// (pinned).
void try_put(void* p, std::size_t bytes, Place place);
// Pages seen away by put_at and shove so far, plus what note_away was told (by a test whose
// eviction happens in another process). 0 at the end of a tiered run: it proved nothing.
long put_away_count();
void note_away(long pages);
// Brings the range back; does nothing in a plain run.
void fetch(void* p, std::size_t bytes);

// Writes one byte to an address that may well not be there; in a function of its own, so that no
// compiler reasons.
void write_to(std::uintptr_t address);

// A counter of heaptier_stats_json by its key, at any depth (the first of that name); -1: not
// there.
long long counter(const char* key);

// Memory under test: whole 2 MiB pageblocks from aligned_alloc, filled with the pattern of `seed`.
class Area {
 public:
  explicit Area(std::size_t bytes = kPageblock, std::uint64_t seed = 1);
  ~Area();
  Area(const Area&) = delete;
  Area& operator=(const Area&) = delete;

  unsigned char* data() const { return data_; }
  unsigned char* at(std::size_t offset) const { return data_ + offset; }
  std::size_t size() const { return bytes_; }
  std::uint64_t seed() const { return seed_; }

  testing::AssertionResult put_at(Place place) { return test::put_at(data_, bytes_, place); }
  // Every byte of [from, to) is the pattern's.
  testing::AssertionResult holds(std::size_t from, std::size_t to) const;
  testing::AssertionResult holds() const { return holds(0, bytes_); }
  // Every byte is the pattern's except in [from, to), which somebody else wrote.
  testing::AssertionResult holds_outside(std::size_t from, std::size_t to) const;
  // The test gave the memory, or a part of it, away (munmap, mremap): it is not freed.
  void leak() { data_ = nullptr; }

 private:
  unsigned char* data_;
  std::size_t bytes_;
  std::uint64_t seed_;
};

testing::AssertionResult pattern_holds(const void* p, std::size_t bytes, std::uint64_t seed,
                                       std::size_t at = 0);

// A thread that shoves the given ranges out without a pause while it lives.
class Evictor {
 public:
  using Range = std::pair<void*, std::size_t>;
  explicit Evictor(std::vector<Range> ranges);
  ~Evictor();
  Evictor(const Evictor&) = delete;
  Evictor& operator=(const Evictor&) = delete;
  // Full rounds done.
  long rounds() const { return rounds_.load(std::memory_order_relaxed); }
  // Waits until at least one more full round was begun and ended (plain: returns at once).
  void await_round() const;

 private:
  std::vector<Range> ranges_;
  std::atomic<bool> stop_{false};
  std::atomic<long> rounds_{0};
  std::thread thread_;
};

}  // namespace heaptier::test
