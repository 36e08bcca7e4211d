// The store that bench_kv measures: 512-byte objects in slabs from malloc, found through an index,
// each with a key, a version and a checksum, so that a read proves that it got exactly what was
// last written.
//
// Threads: an object belongs to one thread (key % threads), like the shards of a thread-per-core
// store; objects of all threads share pages. Nothing here takes a lock.
#ifndef HEAPTIER_BENCH_KV_STORE_H_
#define HEAPTIER_BENCH_KV_STORE_H_

#include <xxhash.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "bench/harness/random.h"

namespace heaptier::bench {

struct Object {
  static constexpr std::size_t kBytes = 512;
  static constexpr std::size_t kPayload = kBytes - 24;

  std::uint64_t checksum;  // of the payload, seeded with key and version
  std::uint64_t key;
  std::uint64_t version;
  unsigned char payload[kPayload];
};
static_assert(sizeof(Object) == Object::kBytes);

// Payloads that compress like the records of a log: phrases from a vocabulary, numbers between
// them, a random token. Made once; a write copies one and stamps it. Eight objects make a page,
// which lz4 shrinks to about 1/2.9, at about the speed it has on real data (`data` of bench_kv
// tells).
class Payloads {
 public:
  Payloads() {
    Random random(42);
    std::vector<std::string> phrases;
    for (int i = 0; i < 22; ++i) {
      std::string phrase;
      for (int word = 0; word < 2; ++word) {
        for (std::uint32_t n = 3 + random.below(8); n > 0; --n) {
          phrase += static_cast<char>('a' + random.below(26));
        }
        if (word == 0) phrase += ' ';
      }
      phrases.push_back(phrase);
    }
    for (auto& payload : templates_) {
      std::string text;
      while (text.size() < Object::kPayload) {
        // Cube of a uniform number: some phrases are much more common than others.
        const double u = random.unit();
        text += phrases[static_cast<std::size_t>(u * u * u * static_cast<double>(phrases.size()))];
        text += random.below(20) == 0 ? "=" + std::to_string(random.below(100000)) + ";" : " ";
      }
      std::memcpy(payload, text.data(), Object::kPayload);
    }
  }

  void write(Object& object, std::uint64_t key, std::uint64_t version) const {
    const std::uint64_t seed = mix(key * 257 + version);
    std::memcpy(object.payload, templates_[seed % kTemplates], Object::kPayload);
    for (std::size_t i = 0; i < kToken; i += 8) {
      const std::uint64_t word = mix(seed + i);
      std::memcpy(object.payload + i, &word, 8);
    }
    object.key = key;
    object.version = version;
    object.checksum = checksum_of(object);
  }

  static std::uint64_t checksum_of(const Object& object) {
    return XXH3_64bits_withSeed(object.payload, Object::kPayload,
                                object.key * 257 + object.version);
  }

 private:
  static constexpr std::size_t kTemplates = 256;
  static constexpr std::size_t kToken =
      32;  // incompressible bytes at the front, different in every version

  unsigned char templates_[kTemplates][Object::kPayload];
};

enum class Layout { kSlabs, kObjects };

class KvStore {
 public:
  // Allocates and fills `objects` (a multiple of 2048, at most 2^24). kSlabs: page-aligned slabs of
  // 1 MiB, as memcached has them; kObjects: one malloc(512) each, given out in the order of the
  // keys' slots.
  KvStore(std::uint32_t objects, Layout layout)
      : layout_(layout), count_(objects), index_(objects) {
    for (std::uint32_t i = 0; i < objects; ++i) index_[i] = i;
    Random random(1);
    for (std::uint32_t i = objects - 1; i > 0; --i)
      std::swap(index_[i], index_[random.below(i + 1)]);
    const std::size_t pieces = layout == Layout::kSlabs ? objects / kSlabObjects : objects;
    pieces_.resize(pieces);
    for (Object*& piece : pieces_) {
      void* p = layout == Layout::kSlabs ? std::aligned_alloc(4096, kSlabObjects * sizeof(Object))
                                         : std::malloc(sizeof(Object));
      if (p == nullptr) {
        std::fputs("bench_kv: out of memory\n", stderr);
        std::_Exit(1);
      }
      piece = static_cast<Object*>(p);
      // Filled at once, slab by slab, with what no reader expects: the keys follow in their random
      // order.
      if (layout == Layout::kSlabs) std::memset(p, 0xee, kSlabObjects * sizeof(Object));
    }
    std::vector<std::uint32_t> key_of(objects);
    for (std::uint32_t key = 0; key < objects; ++key) key_of[index_[key]] = key;
    for (std::uint32_t slot = 0; slot < objects; ++slot) {
      payloads_.write(*object_at(slot), key_of[slot], 0);
    }
  }

  // True when the object is what was last written under the key.
  bool read(std::uint32_t key) const {
    const std::uint32_t entry = index_[key];
    const Object& object = *object_at(entry & kSlotMask);
    return object.key == key && object.version == entry >> kSlotBits &&
           object.checksum == Payloads::checksum_of(object);
  }

  void write(std::uint32_t key) {
    const std::uint32_t entry = index_[key] + (1u << kSlotBits);  // the version counts modulo 256
    index_[key] = entry;
    payloads_.write(*object_at(entry & kSlotMask), key, entry >> kSlotBits);
  }

  std::uint32_t count() const { return count_; }

  // Page `i` of the data, for measuring how well it compresses (kSlabs only).
  const unsigned char* page(std::size_t i) const {
    return reinterpret_cast<const unsigned char*>(object_at(static_cast<std::uint32_t>(i * 8)));
  }

 private:
  static constexpr std::uint32_t kSlabObjects = 2048;
  static constexpr std::uint32_t kSlotBits =
      24;  // the rest of an index entry is the object's version
  static constexpr std::uint32_t kSlotMask = (1u << kSlotBits) - 1;

  Object* object_at(std::uint32_t slot) const {
    return layout_ == Layout::kSlabs ? pieces_[slot / kSlabObjects] + slot % kSlabObjects
                                     : pieces_[slot];
  }

  Layout layout_;
  std::uint32_t count_;
  Payloads payloads_;
  std::vector<std::uint32_t> index_;  // by key: slot and version
  std::vector<Object*> pieces_;       // slabs, or single objects
};

}  // namespace heaptier::bench

#endif  // HEAPTIER_BENCH_KV_STORE_H_
