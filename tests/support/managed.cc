#include "tests/support/managed.h"

#include <dlfcn.h>
#include <signal.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>

#include "runtime/include/heaptier/heaptier.h"

namespace heaptier::test {
namespace {

// The library is not linked: preloading brings it in, and without it these are null.
struct Symbol {
  const char* name;
  template <typename F>
  operator F*() const {  // NOLINT: converts to whichever function the symbol is
    return reinterpret_cast<F*>(dlsym(RTLD_DEFAULT, name));
  }
};
struct Api {
  decltype(&heaptier_state) state = Symbol{"heaptier_state"};
  decltype(&heaptier_wake) wake = Symbol{"heaptier_wake"};
  decltype(&heaptier_where) where = Symbol{"heaptier_where"};
  decltype(&heaptier_demote) demote = Symbol{"heaptier_demote"};
  decltype(&heaptier_park) park = Symbol{"heaptier_park"};
  decltype(&heaptier_fetch) fetch = Symbol{"heaptier_fetch"};
  decltype(&heaptier_stats_json) stats_json = Symbol{"heaptier_stats_json"};
};
const Api& api() {
  static const Api found;
  return found;
}

std::atomic<long> g_away{0};

void sleep_ms(long ms) {
  const timespec t{ms / 1000, ms % 1000 * 1000000};
  nanosleep(&t, nullptr);
}

bool is_at(unsigned char where, Place place) {
  switch (place) {
    case Place::kResident:
      return where == HEAPTIER_RESIDENT || where == HEAPTIER_CLEAN;
    case Place::kParked:
      return where == HEAPTIER_PARKED;
    case Place::kStored:
      return where == HEAPTIER_STORED || where == HEAPTIER_FILLED;
  }
  return false;
}

// The whole pages inside the range.
std::pair<std::uintptr_t, std::uintptr_t> narrowed(const void* p, std::size_t bytes) {
  const auto at = reinterpret_cast<std::uintptr_t>(p);
  const std::uintptr_t from = (at + kPage - 1) & ~(kPage - 1);
  const std::uintptr_t to = (at + bytes) & ~(kPage - 1);
  return {from, to < from ? from : to};
}

}  // namespace

bool preloaded() {
  return api().state != nullptr;
}
bool tiered() {
  return preloaded() && api().state() == 1;
}
int wake() {
  return preloaded() ? api().wake() : 0;
}

const char* to_string(Place place) {
  switch (place) {
    case Place::kResident:
      return "resident";
    case Place::kParked:
      return "parked";
    case Place::kStored:
      return "stored";
  }
  return "?";
}

std::string places_of(const void* p, std::size_t bytes) {
  if (!preloaded()) return {};
  const std::size_t pages = bytes / kPage + 2;
  std::vector<unsigned char> where(pages, HEAPTIER_UNMANAGED);
  const int n = api().where(p, bytes, where.data());
  if (n < 0) return "where: errno " + std::to_string(-n);
  std::string picture;
  for (int i = 0; i < n; ++i)
    picture += where[static_cast<std::size_t>(i)] < 7
                   ? ".cpsfXu"[where[static_cast<std::size_t>(i)]]
                   : '?';
  return picture;
}

testing::AssertionResult put_at(void* p, std::size_t bytes, Place place) {
  if (!tiered()) return testing::AssertionSuccess();
  const auto [from, to] = narrowed(p, bytes);
  if (from == to) return testing::AssertionFailure() << "no whole page in the range";
  auto* const start = reinterpret_cast<void*>(from);
  const std::size_t pages = (to - from) / kPage;
  int answer = 0;
  // The engine runs beside us and may bring a page back, or find it locked: a few tries, not one.
  for (int attempt = 0; attempt < 40; ++attempt) {
    if (attempt > 0) sleep_ms(attempt);
    switch (place) {
      case Place::kResident:
        answer = api().fetch(start, to - from);
        break;
      case Place::kParked:
        if (attempt > 0) api().fetch(start, to - from);
        answer = api().park(start, to - from);
        break;
      case Place::kStored:
        answer = api().demote(start, to - from);
        break;
    }
    std::vector<unsigned char> where(pages + 1, HEAPTIER_UNMANAGED);
    if (api().where(start, to - from, where.data()) != static_cast<int>(pages)) continue;
    std::size_t right = 0;
    while (right < pages && is_at(where[right], place)) ++right;
    if (right == pages) {
      if (place != Place::kResident) note_away(static_cast<long>(pages));
      return testing::AssertionSuccess();
    }
  }
  std::string picture = places_of(start, to - from);
  if (picture.size() > 600) picture = picture.substr(0, 600) + "...";
  return testing::AssertionFailure() << "not all of " << pages << " pages are " << to_string(place)
                                     << " (last answer " << answer << "): " << picture;
}

void shove(void* p, std::size_t bytes) {
  if (!tiered()) return;
  static std::atomic<unsigned> turn{0};
  const bool park = turn.fetch_add(1, std::memory_order_relaxed) % 4 == 3;
  try_put(p, bytes, park ? Place::kParked : Place::kStored);
}

void try_put(void* p, std::size_t bytes, Place place) {
  if (!tiered() || place == Place::kResident) return;
  const int away = place == Place::kParked ? api().park(p, bytes) : api().demote(p, bytes);
  if (away > 0) note_away(away);
}

long put_away_count() {
  return g_away.load(std::memory_order_relaxed);
}
void note_away(long pages) {
  g_away.fetch_add(pages, std::memory_order_relaxed);
}

void fetch(void* p, std::size_t bytes) {
  if (tiered()) api().fetch(p, bytes);
}

void write_to(std::uintptr_t address) {
  *reinterpret_cast<volatile char*>(address) = 1;
}

long long counter(const char* key) {
  if (api().stats_json == nullptr) return -1;
  std::string text(api().stats_json(nullptr, 0) + 4096, '\0');
  api().stats_json(text.data(), text.size());
  const std::string quoted = std::string("\"") + key + "\"";
  const std::size_t at = text.find(quoted);
  if (at == std::string::npos) return -1;
  const std::size_t colon = text.find(':', at + quoted.size());
  if (colon == std::string::npos) return -1;
  return std::strtoll(text.c_str() + colon + 1, nullptr, 10);
}

Area::Area(std::size_t bytes, std::uint64_t seed)
    : data_(static_cast<unsigned char*>(std::aligned_alloc(kPageblock, bytes))),
      bytes_(bytes),
      seed_(seed) {
  if (data_ == nullptr) {
    std::fprintf(stderr, "Area: no memory for %zu bytes\n", bytes);
    std::_Exit(1);
  }
  fill(data_, bytes_, seed_);
}

Area::~Area() {
  std::free(data_);
}

testing::AssertionResult pattern_holds(const void* p, std::size_t bytes, std::uint64_t seed,
                                       std::size_t at) {
  const std::size_t wrong = first_wrong(p, bytes, seed, at);
  if (wrong == bytes) return testing::AssertionSuccess();
  const auto* byte = static_cast<const unsigned char*>(p) + wrong;
  return testing::AssertionFailure()
         << "byte " << wrong << " of " << bytes << " at " << static_cast<const void*>(byte)
         << " is " << int{*byte} << ", not " << int{pattern_byte(seed, at + wrong)} << ", and "
         << first_nonzero(byte, bytes - wrong) << " bytes from there are zero";
}

testing::AssertionResult Area::holds(std::size_t from, std::size_t to) const {
  return pattern_holds(data_ + from, to - from, seed_, from);
}

testing::AssertionResult Area::holds_outside(std::size_t from, std::size_t to) const {
  const auto before = holds(0, from);
  return before ? holds(to, bytes_) : before;
}

// Blocks every signal: one sent to the process is for the thread under test, and a handler that
// jumps must not run here.
Evictor::Evictor(std::vector<Range> ranges) : ranges_(std::move(ranges)) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] {
    while (!stop_.load(std::memory_order_relaxed)) {
      for (const auto& [p, bytes] : ranges_) shove(p, bytes);
      rounds_.fetch_add(1, std::memory_order_relaxed);
      if (!tiered()) sleep_ms(1);
    }
  });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Evictor::~Evictor() {
  stop_.store(true, std::memory_order_relaxed);
  thread_.join();
}

void Evictor::await_round() const {
  if (!tiered()) return;
  const long target = rounds() + 2;  // the round that runs may have begun before the call
  while (rounds() < target) sleep_ms(1);
}

}  // namespace heaptier::test
