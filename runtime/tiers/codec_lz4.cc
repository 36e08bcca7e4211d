// lz4: raw blocks, no frame. On mixed 4 KiB pages acceleration 2 compresses 2 to 10 % faster than
// 1, the default, at a ratio of 1.75 for 1.82; from 4 on pages of pointers are refused altogether
// (`bench_zpool codecs`).
//
// Decompression is LZ4_decompress_safe: it is bounded on any input and, in 1.9.4, 1.5 to 7 times as
// fast as the deprecated LZ4_decompress_fast, by kind of page.
#ifdef HEAPTIER_LZ4_FAST_RESET
#define LZ4_STATIC_LINKING_ONLY
#endif
#include <lz4.h>

#include "runtime/base/units.h"
#include "runtime/tiers/codec.h"

namespace heaptier {
namespace {

struct Lz4State {
  int acceleration;
  LZ4_stream_t stream;
};

class Lz4Codec final : public Codec {
 public:
  const char* name() const override { return "lz4"; }
  bool has_level(int level) const override { return level <= 0 && level >= -kMostAcceleration; }
  std::size_t state_bytes(int) const override { return sizeof(Lz4State); }

  bool make_state(void* memory, int level) const override {
    auto* state = static_cast<Lz4State*>(memory);
    state->acceleration = level < 0 ? -level : 1;
    return LZ4_initStream(&state->stream, sizeof state->stream) != nullptr;
  }

  std::size_t compress(void* memory, const void* page, void* out,
                       std::size_t capacity) const override {
    auto* state = static_cast<Lz4State*>(memory);
    const auto* from = static_cast<const char*>(page);
    auto* to = static_cast<char*>(out);
    constexpr int kBytes = static_cast<int>(kPageSize);
    const int limit = static_cast<int>(capacity);
#ifdef HEAPTIER_LZ4_FAST_RESET
    // Clears the 16 KiB hash table once in 15 pages instead of for each.
    const int written = LZ4_compress_fast_extState_fastReset(&state->stream, from, to, kBytes,
                                                             limit, state->acceleration);
    // After an overrun the library promises nothing about the stream.
    if (written <= 0) LZ4_initStream(&state->stream, sizeof state->stream);
#else
    const int written =
        LZ4_compress_fast_extState(&state->stream, from, to, kBytes, limit, state->acceleration);
#endif
    return written > 0 ? static_cast<std::size_t>(written) : 0;
  }

  bool decompress(void*, const void* from, std::size_t bytes, void* page) const override {
    constexpr int kBytes = static_cast<int>(kPageSize);
    return LZ4_decompress_safe(static_cast<const char*>(from), static_cast<char*>(page),
                               static_cast<int>(bytes), kBytes) == kBytes;
  }

 private:
  static constexpr int kMostAcceleration = 65537;  // LZ4 itself clamps there
};

}  // namespace

const Codec& lz4_codec() {
  static constinit const Lz4Codec instance;
  return instance;
}

}  // namespace heaptier
