// Everything at once: threads that write memory and check every byte of it, free it, take new and
// fork, while others move, park, store, pin, interleave and vacate at random whatever is there, and
// the engine places by itself. Whatever is asked, no byte may change. Run under the library, in a
// machine with a fast node 0 and a slow node 1 and a chain that ends in a store; where there is but
// one node, what is about nodes is refused and the rest goes on.
//
// CHURN_SECONDS says how long (60), CHURN_SEED from where the dice start (1).
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "runtime/include/heaptier/heaptier.h"
#include "tests/support/managed.h"

extern "C" {
[[gnu::weak]] int heaptier_advise(void* p, size_t bytes, int advice);
[[gnu::weak]] int heaptier_demote(void* p, size_t bytes);
[[gnu::weak]] int heaptier_park(void* p, size_t bytes);
[[gnu::weak]] int heaptier_fetch(void* p, size_t bytes);
[[gnu::weak]] int heaptier_tiers(void);
[[gnu::weak]] int heaptier_move(void* const* pages, const int* tiers, int* status, size_t count,
                                unsigned flags);
[[gnu::weak]] int heaptier_move_lazy(void* p, size_t bytes, int tier);
[[gnu::weak]] int heaptier_nodes(const void* p, size_t bytes, int* nodes);
[[gnu::weak]] int heaptier_drain(int node);
[[gnu::weak]] int heaptier_undrain(int node);
}

namespace heaptier::test {
namespace {

using Random = std::mt19937_64;

constexpr int kWriters = 3;
constexpr int kAreas = 4;  // of a writer
constexpr std::size_t kChunk = 16 * kKiB;
constexpr std::size_t kLargest = 3 * kPageblock;

long number_of(const char* name, long otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::atol(text);
}

// What went wrong first, and that everybody is to end for it.
class Verdict {
 public:
  explicit Verdict(int seconds) : all_(seconds), end_(std::chrono::steady_clock::now() + all_) {}
  bool over() const { return wrong() || std::chrono::steady_clock::now() >= end_; }
  // Some more time, at most four times as much in all.
  bool goes_on() const { return !wrong() && std::chrono::steady_clock::now() < end_ + 3 * all_; }
  bool wrong() const { return wrong_.load(); }
  void fail(const std::string& what) {
    if (!wrong_.exchange(true)) std::fprintf(stderr, "churn: %s\n", what.c_str());
  }

 private:
  std::chrono::seconds all_;
  std::chrono::steady_clock::time_point end_;
  std::atomic<bool> wrong_{false};
};

// Memory of one writer, which alone reads and writes it: chunks with patterns of their own, whose
// seeds lie elsewhere. Others only know where it is, and may come too late.
class Patch {
 public:
  Patch() = default;
  ~Patch() { std::free(data_.load()); }
  Patch(const Patch&) = delete;
  Patch& operator=(const Patch&) = delete;

  void renew(Random& random) {
    std::free(data_.exchange(nullptr));
    const std::size_t bytes = (1 + random() % (kLargest / kChunk)) * kChunk;
    // Huge pages and small ones, and objects that begin within a page.
    auto* data = static_cast<unsigned char*>(
        random() % 4 == 0 ? std::malloc(bytes) : std::aligned_alloc(kPageblock, bytes));
    ASSERT_NE(data, nullptr);
    if (bytes >= kPageblock) give_advice(random, data, bytes);
    seeds_.assign(bytes / kChunk, 0);
    for (std::size_t i = 0; i < seeds_.size(); ++i) write(data, i, random());
    bytes_ = bytes;
    data_ = data;
  }
  // Another tier for all of it, at once.
  void move_all(int tier) const {
    std::vector<void*> pages(bytes_ / kPage);
    for (std::size_t i = 0; i < pages.size(); ++i) pages[i] = data_ + i * kPage;
    const std::vector<int> tiers(pages.size(), tier);
    std::vector<int> status(pages.size(), 0);
    (void)heaptier_move(pages.data(), tiers.data(), status.data(), pages.size(), 0);
  }
  void rewrite(Random& random) { write(data_, random() % seeds_.size(), random()); }
  // The first byte that is wrong, or -1.
  long check(std::size_t chunk) const {
    const std::size_t good = first_wrong(data_ + chunk * kChunk, kChunk, seeds_[chunk]);
    return good == kChunk ? -1 : static_cast<long>(chunk * kChunk + good);
  }
  long check_all() const {
    for (std::size_t i = 0; i < seeds_.size(); ++i) {
      if (const long at = check(i); at >= 0) return at;
    }
    return -1;
  }
  // By the kernel's hand: what it reads must be there, too.
  long check_by_system_call(std::size_t chunk) const {
    int pipes[2];
    if (pipe(pipes) != 0) return -1;
    long wrong = -1;
    unsigned char back[kPage];
    for (std::size_t at = 0; at < kChunk && wrong < 0; at += kPage) {
      const unsigned char* from = data_ + chunk * kChunk + at;
      if (::write(pipes[1], from, kPage) != static_cast<ssize_t>(kPage) ||
          ::read(pipes[0], back, kPage) != static_cast<ssize_t>(kPage)) {
        wrong = static_cast<long>(chunk * kChunk + at);
        break;
      }
      const std::size_t good = first_wrong(back, kPage, seeds_[chunk], at);
      if (good != kPage) wrong = static_cast<long>(chunk * kChunk + at + good);
    }
    close(pipes[0]);
    close(pipes[1]);
    return wrong;
  }
  std::size_t chunks() const { return seeds_.size(); }
  unsigned char* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  static void give_advice(Random& random, unsigned char* data, std::size_t bytes) {
    const auto at = reinterpret_cast<std::uintptr_t>(data) & ~(kPage - 1);
    if (random() % 2 == 0) {
      (void)madvise(reinterpret_cast<void*>(at), bytes & ~(kPage - 1),
                    random() % 2 == 0 ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
    }
    // Given back, and written anew. (The page where it begins may be another object's, too.)
    if (random() % 4 == 0) {
      const std::size_t others = (kPage - reinterpret_cast<std::uintptr_t>(data) % kPage) % kPage;
      (void)madvise(data + others, (bytes - others) & ~(kPage - 1), MADV_DONTNEED);
    }
  }
  void write(unsigned char* data, std::size_t chunk, std::uint64_t seed) {
    seeds_[chunk] = seed;
    fill(data + chunk * kChunk, kChunk, seed);
  }
  std::atomic<unsigned char*> data_{nullptr};
  std::atomic<std::size_t> bytes_{0};
  std::vector<std::uint64_t> seeds_;
};

class Writer {
 public:
  Writer(Verdict& verdict, std::uint64_t seed) : verdict_(verdict), random_(seed) {
    for (Patch& patch : patches_) {
      patch.renew(random_);
      // Huge pages are whole now; the movers leave few of them so.
      patch.move_all(1);
    }
  }
  Patch& any(Random& random) { return patches_[random() % kAreas]; }
  void run() {
    while (!verdict_.over()) step();
    for (const Patch& patch : patches_) expect(patch.check_all(), "at the end");
  }
  std::atomic<long> steps{0};
  std::atomic<long> forks{0};

  void expect(long wrong_at, const char* when) {
    if (wrong_at >= 0) verdict_.fail("byte " + std::to_string(wrong_at) + " is wrong " + when);
  }
  void step() {
    Patch& patch = any(random_);
    ++steps;
    switch (random_() % 64) {
      case 0:
        expect(patch.check_all(), "before it is freed");
        patch.renew(random_);
        if (random_() % 4 == 0) patch.move_all(static_cast<int>(random_() % tiers_));
        return;
      case 1:
        return fork_and_check();
      case 2:
      case 3:
        return expect(patch.check_by_system_call(random_() % patch.chunks()), "to a system call");
      case 4:
        return expect(patch.check_all(), "looking at all");
      default:
        expect(patch.check(random_() % patch.chunks()), "looking at some");
        if (random_() % 2 == 0) patch.rewrite(random_);
    }
  }
  // The child has what this thread had, and what it writes is its own.
  void fork_and_check() {
    ++forks;
    const pid_t child = fork();
    if (child == 0) {
      long wrong = -1;
      for (Patch& patch : patches_) {
        wrong = std::max(wrong, patch.check_all());
        patch.rewrite(random_);
        wrong = std::max(wrong, patch.check_all());
      }
      _exit(wrong < 0 ? 0 : 1);
    }
    int status = -1;
    if (child > 0 && random_() % 2 == 0) any(random_).rewrite(random_);
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
      verdict_.fail("a child saw other bytes, or died: status " + std::to_string(status));
    }
  }

  Verdict& verdict_;
  Random random_;
  const unsigned tiers_ = static_cast<unsigned>(heaptier_tiers());
  Patch patches_[kAreas];
};

// Somebody who asks for anything at all, of memory that may not even be there any more.
class Mover {
 public:
  Mover(Verdict& verdict, std::vector<std::unique_ptr<Writer>>& writers, std::uint64_t seed)
      : verdict_(verdict), writers_(writers), random_(seed) {}
  void run() {
    while (!verdict_.over()) step();
    for (const int node : {0, 1}) heaptier_undrain(node);
  }
  void step() {
    const Patch& patch = writers_[random_() % kWriters]->any(random_);
    unsigned char* const data = patch.data();
    if (data == nullptr) return;
    const std::size_t offset = random_() % patch.bytes();
    void* const at = data + offset;
    const std::size_t bytes = 1 + random_() % (random_() % 2 == 0 ? kLargest : 16 * kPage);
    const int tier = any_tier();
    switch (random_() % 24) {
      case 0:
      case 1:
      case 2:
      case 3:
      case 4:
        return move_some(data, patch.bytes());
      case 5:
      case 6:
      case 7:
        (void)heaptier_move_lazy(at, bytes, tier);
        return;
      case 8:
      case 9:
        (void)heaptier_park(at, bytes);
        return;
      case 10:
      case 11:
        (void)heaptier_demote(at, bytes);
        return;
      case 12:
        (void)heaptier_fetch(at, std::min(bytes, 64 * kPage));
        return;
      case 13:
        (void)heaptier_advise(at, bytes, HEAPTIER_HOT);
        return;
      case 14:
      case 15:
        (void)heaptier_advise(at, bytes, HEAPTIER_COLD);
        return;
      case 16:
        (void)heaptier_advise(at, bytes, HEAPTIER_PIN);
        (void)heaptier_advise(at, bytes, HEAPTIER_UNPIN);
        return;
      case 17:
        (void)heaptier_advise(at, bytes, HEAPTIER_INTERLEAVE);
        return;
      case 18:
      case 19:
        (void)heaptier_advise(at, bytes, HEAPTIER_UNINTERLEAVE);
        return;
      case 20:
        if (random_() % 8 == 0) drain();
        return;
      case 21: {
        int nodes[64];
        (void)heaptier_nodes(at, std::min(bytes, 60 * kPage), nodes);
        return;
      }
      default:  // and what the engine does by itself is to have its time
        std::this_thread::sleep_for(std::chrono::milliseconds(random_() % 20));
    }
  }
  int any_tier() { return static_cast<int>(random_() % static_cast<unsigned>(tiers_)); }
  void move_some(unsigned char* data, std::size_t bytes) {
    std::vector<void*> pages(1 + random_() % 700);
    std::vector<int> tiers(pages.size());
    std::vector<int> status(pages.size(), 0);
    const bool in_order = random_() % 2 == 0;
    for (std::size_t i = 0; i < pages.size(); ++i) {
      pages[i] = data + (in_order ? i * kPage : random_() % bytes);
      tiers[i] = any_tier();
    }
    if (in_order) std::fill(tiers.begin(), tiers.end(), tiers[0]);
    (void)heaptier_move(pages.data(), tiers.data(), status.data(), pages.size(),
                        random_() % 2 == 0 ? HEAPTIER_MOVE_SPLIT : 0);
  }
  void drain() {
    const int node = static_cast<int>(random_() % 2);
    (void)heaptier_drain(node);
    (void)heaptier_undrain(node);
  }

  Verdict& verdict_;
  std::vector<std::unique_ptr<Writer>>& writers_;
  Random random_;
  const int tiers_ = heaptier_tiers();
};

std::vector<const char*> what_is_to_happen() {
  std::vector<const char*> happened = {"pages_stored_parked", "pages_fetched", "faults_hint",
                                       "faults_fetch", "forks"};
  // Huge pages are parked to be watched.
  if (counter("sampler_starts") == 0) happened.push_back("huge_parked");
  if (heaptier_tiers() > 2) {
    happened.insert(happened.end(), {"nodes_demoted", "nodes_asked", "nodes_drained",
                                     "nodes_interleaved", "nodes_huge_moved"});
  }
  return happened;
}
bool all_of(const std::vector<const char*>& names) {
  return std::all_of(names.begin(), names.end(), [](const char* n) { return counter(n) > 0; });
}

TEST(Churn, NoByteChangesWhateverIsMoved) {
  if (!preloaded() || heaptier_tiers() < 2) GTEST_SKIP() << "not under heaptier";
  ASSERT_EQ(wake(), 0);
  note_away(1);
  const auto seed = static_cast<std::uint64_t>(number_of("CHURN_SEED", 1));
  Verdict verdict(static_cast<int>(number_of("CHURN_SECONDS", 60)));
  std::vector<std::unique_ptr<Writer>> writers;
  for (std::uint64_t i = 0; i < kWriters; ++i) {
    writers.push_back(std::make_unique<Writer>(verdict, seed * 100 + i));
  }
  std::vector<std::thread> threads;
  for (auto& writer : writers) threads.emplace_back([&writer] { writer->run(); });
  for (std::uint64_t i = 0; i < 2; ++i) {
    threads.emplace_back([&, i] { Mover(verdict, writers, seed * 100 + 50 + i).run(); });
  }
  for (std::thread& thread : threads) thread.join();
  // What comes at random may not have come yet where everything takes long.
  const std::vector<const char*> happened = what_is_to_happen();
  Mover more(verdict, writers, seed * 100 + 60);
  for (const char* name : happened) {
    if (counter(name) == 0) std::printf("churn: waits for %s\n", name);
  }
  while (verdict.goes_on() && !all_of(happened)) {
    for (auto& writer : writers) writer->step();
    more.step();
  }
  long steps = 0;
  long forks = 0;
  for (const auto& writer : writers) {
    steps += writer->steps;
    forks += writer->forks;
  }
  std::printf("churn: %ld steps, %ld forks\n", steps, forks);
  EXPECT_FALSE(verdict.wrong());
  // That which was to be survived did happen, and the books agree.
  for (const char* name : happened) {
    std::printf("  %s %lld\n", name, counter(name));
    EXPECT_GT(counter(name), 0) << name;
  }
  EXPECT_EQ(counter("errors_transition"), 0);
  EXPECT_EQ(counter("poisoned_pages"), 0);
  EXPECT_EQ(counter("pages_poisoned"), 0);
}

}  // namespace
}  // namespace heaptier::test
