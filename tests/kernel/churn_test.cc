// Threads that malloc, realloc, touch and free at random while everything is evicted all the time.
// What an object holds follows from its seed and size; every byte is checked when it is touched,
// resized and freed. Bounded by the number of operations, not by time; CHURN_PERCENT of them are
// enough where each takes a hundred times as long, in an emulated machine.
#include <cstdlib>
#include <memory>
#include <new>
#include <random>

#include "tests/support/managed.h"

namespace heaptier::test {
namespace {

struct Slot {
  std::atomic<unsigned char*> object{nullptr};  // read by the evictors, who may come too late
  std::atomic<std::size_t> bytes{0};
  std::uint64_t seed = 0;
  bool aligned = false;
};

std::size_t random_size(std::mt19937_64& random) {
  switch (random() % 16) {
    case 0:  // huge: several pageblocks
      return 2 * kMiB + random() % (3 * kMiB);
    case 1:
    case 2:  // large: many pages
      return 64 * kKiB + random() % (512 * kKiB);
    case 3:
    case 4:
    case 5:
      return 4 * kKiB + random() % (28 * kKiB);
    default:
      return 1 + random() % 3000;
  }
}

class Churn {
 public:
  static constexpr std::size_t kSlots = 120;
  explicit Churn(std::uint64_t seed) : random_(seed), slots_(std::make_unique<Slot[]>(kSlots)) {}

  // Empty: every byte was right.
  std::string run(int operations) {
    std::string wrong;
    for (int i = 0; i < operations && wrong.empty(); ++i) wrong = step(slots_[random_() % kSlots]);
    for (std::size_t i = 0; i < kSlots && wrong.empty(); ++i) wrong = drop(slots_[i]);
    return wrong;
  }

  void shove_one(std::mt19937_64& random) const {
    const Slot& slot = slots_[random() % kSlots];
    unsigned char* const object = slot.object.load(std::memory_order_relaxed);
    if (object == nullptr) return;
    // The whole neighbourhood: the pages before and after hold other threads' objects and free
    // memory.
    auto* const start =
        reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(object) & ~(kPageblock - 1));
    shove(start,
          random() % 4 == 0 ? kPageblock : slot.bytes.load(std::memory_order_relaxed) + kPage);
    shove(object, slot.bytes.load(std::memory_order_relaxed));
  }

 private:
  std::string step(Slot& slot) {
    if (slot.object == nullptr) return make(slot);
    switch (random_() % 8) {
      case 0:
      case 1:
        return drop(slot);
      case 2:
        return resize(slot);
      case 3:
        return rewrite(slot);
      default:
        return check(slot, slot.bytes);
    }
  }

  std::string make(Slot& slot) {
    const std::size_t bytes = random_size(random_);
    slot.seed = random_();
    slot.aligned = false;
    void* p = nullptr;
    switch (random_() % 6) {
      case 0:
        p = std::calloc(1, bytes);
        if (p != nullptr && first_nonzero(p, bytes) != bytes)
          return "calloc gave memory that is not zero";
        break;
      case 1:
        slot.aligned = true;
        if (posix_memalign(&p, std::size_t{1} << (4 + random_() % 12), bytes) != 0) p = nullptr;
        break;
      default:
        p = std::malloc(bytes);
    }
    if (p == nullptr) return "no memory for " + std::to_string(bytes) + " bytes";
    fill(p, bytes, slot.seed);
    slot.bytes = bytes;
    slot.object = static_cast<unsigned char*>(p);
    return {};
  }

  std::string drop(Slot& slot) {
    if (slot.object == nullptr) return {};
    // Half of all objects are freed without being read: that must not bring them back, nor leak
    // into the next.
    std::string wrong = random_() % 2 == 0 ? check(slot, slot.bytes) : std::string();
    std::free(slot.object.exchange(nullptr));
    return wrong;
  }

  std::string resize(Slot& slot) {
    const std::size_t bytes = random_size(random_);
    const std::size_t kept = std::min<std::size_t>(bytes, slot.bytes);
    auto* const p = static_cast<unsigned char*>(std::realloc(slot.object.exchange(nullptr), bytes));
    if (p == nullptr) return "no memory to resize to " + std::to_string(bytes) + " bytes";
    slot.object = p;
    slot.bytes = bytes;
    std::string wrong = check(slot, kept);
    if (bytes > kept) fill(p + kept, bytes - kept, slot.seed, kept);
    return wrong;
  }

  std::string rewrite(Slot& slot) {
    slot.seed = random_();
    fill(slot.object, slot.bytes, slot.seed);
    return {};
  }

  std::string check(const Slot& slot, std::size_t bytes) {
    const unsigned char* const object = slot.object;
    const auto answer = pattern_holds(object, bytes, slot.seed);
    return answer ? std::string()
                  : answer.message() + std::string(" | ") + places_of(object, kPage);
  }

  std::mt19937_64 random_;
  std::unique_ptr<Slot[]> slots_;
};

int share_of(int operations) {
  const char* const percent = std::getenv("CHURN_PERCENT");
  return percent == nullptr ? operations : operations * std::atoi(percent) / 100;
}

void churn(std::size_t threads, std::size_t evictors, int operations) {
  std::vector<std::unique_ptr<Churn>> churns;
  for (std::size_t i = 0; i < threads; ++i) churns.push_back(std::make_unique<Churn>(1000 + i));
  std::atomic<bool> stop{false};
  std::vector<std::thread> evicting;
  for (std::size_t i = 0; i < evictors; ++i) {
    evicting.emplace_back([&, i] {
      std::mt19937_64 random(i);
      while (!stop.load(std::memory_order_relaxed)) {
        churns[random() % churns.size()]->shove_one(random);
        if (!tiered()) std::this_thread::yield();
      }
    });
  }
  std::vector<std::thread> working;
  std::vector<std::string> wrong(threads);
  for (std::size_t i = 0; i < threads; ++i) {
    working.emplace_back([&, i] { wrong[i] = churns[i]->run(share_of(operations)); });
  }
  for (auto& thread : working) thread.join();
  stop = true;
  for (auto& thread : evicting) thread.join();
  for (const auto& message : wrong) EXPECT_EQ(message, "");
}

TEST(Churn, OneThread) {
  churn(1, 1, 1500);
}
TEST(Churn, FourThreads) {
  churn(4, 1, 600);
}
TEST(Churn, TwoEvictors) {
  churn(2, 2, 600);
}
TEST(Churn, BackgroundEvictionAlone) {
  // No help from the test: 40 MiB against a budget of a few.
  churn(2, 0, 800);
  if (tiered()) {
    std::vector<std::unique_ptr<Area>> areas;
    for (std::uint64_t i = 0; i < 20; ++i) areas.push_back(std::make_unique<Area>(kPageblock, i));
    for (int round = 0; round < 2; ++round) {
      for (const auto& area : areas) ASSERT_TRUE(area->holds());
    }
    // Nothing is touched any more: the background gets there alone, if not at once.
    constexpr std::size_t kEnough = 20 * kPageblock / kPage / 4;
    std::size_t away = 0;
    for (int tries = 0; away <= kEnough && tries < 200; ++tries) {
      if (tries > 0) usleep(50000);
      away = 0;
      for (const auto& area : areas) {
        for (const char c : places_of(area->data(), area->size()))
          away += c == 's' || c == 'f' || c == 'p';
      }
    }
    EXPECT_GT(away, kEnough) << "the budget was not kept";
    note_away(static_cast<long>(away));
  }
}

TEST(Churn, ManySmallObjectsStayTheirOwn) {
  // A page holds many threads' small objects; each checks only its own.
  constexpr std::size_t kObjects = 40000;
  std::vector<std::unique_ptr<std::uint64_t[]>> objects(kObjects);
  std::vector<Evictor::Range> pages;
  for (std::size_t i = 0; i < kObjects; ++i) {
    objects[i] = std::make_unique<std::uint64_t[]>(4 + i % 30);
    for (std::size_t w = 0; w < 4 + i % 30; ++w) objects[i][w] = mix(i * 64 + w);
    if (i % 64 == 0) pages.emplace_back(objects[i].get(), 16 * kPage);
  }
  const Evictor evictor(pages);
  std::vector<std::thread> threads;
  std::atomic<long> wrong{0};
  for (std::size_t t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round < 4; ++round) {
        for (std::size_t i = t; i < kObjects; i += 3) {
          for (std::size_t w = 0; w < 4 + i % 30; ++w) {
            const std::uint64_t sign = round % 2 == 0 ? 0 : ~std::uint64_t{0};
            wrong += objects[i][w] != (mix(i * 64 + w) ^ sign);
            objects[i][w] = ~objects[i][w];
          }
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace heaptier::test
