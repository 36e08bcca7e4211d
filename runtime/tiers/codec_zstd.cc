// zstd: one frame a page, without magic number, content size, dictionary id and checksum (the tier
// keeps its own). Contexts are static ones (ZSTD_initStatic...): they live in the state's memory
// and cannot grow.
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>

#include "runtime/base/units.h"
#include "runtime/tiers/codec.h"

namespace heaptier {
namespace {

constexpr std::size_t kAlign = 64;

struct ZstdState {
  ZSTD_CCtx* compressor;
  ZSTD_DCtx* decompressor;
};

// Parameters for sources of exactly a page: tables no larger than 4 KiB can fill.
ZSTD_compressionParameters parameters(int level) {
  return ZSTD_getCParams(level == 0 ? 1 : level, kPageSize, 0);
}

std::size_t compressor_bytes(int level) {
  return round_up(ZSTD_estimateCCtxSize_usingCParams(parameters(level)), kAlign);
}

class ZstdCodec final : public Codec {
 public:
  const char* name() const override { return "zstd"; }
  bool has_level(int level) const override {
    return level >= ZSTD_minCLevel() && level <= ZSTD_maxCLevel();
  }
  std::size_t state_bytes(int level) const override {
    return kAlign + compressor_bytes(level) + round_up(ZSTD_estimateDCtxSize(), kAlign);
  }

  bool make_state(void* memory, int level) const override {
    auto* bytes = static_cast<char*>(memory);
    auto* state = static_cast<ZstdState*>(memory);
    const std::size_t room = compressor_bytes(level);
    state->compressor = ZSTD_initStaticCCtx(bytes + kAlign, room);
    state->decompressor =
        ZSTD_initStaticDCtx(bytes + kAlign + room, round_up(ZSTD_estimateDCtxSize(), kAlign));
    return state->compressor != nullptr && state->decompressor != nullptr &&
           configure(*state, level);
  }

  std::size_t compress(void* memory, const void* page, void* out,
                       std::size_t capacity) const override {
    const std::size_t n =
        ZSTD_compress2(static_cast<ZstdState*>(memory)->compressor, out, capacity, page, kPageSize);
    return ZSTD_isError(n) ? 0 : n;
  }

  bool decompress(void* memory, const void* from, std::size_t bytes, void* page) const override {
    return ZSTD_decompressDCtx(static_cast<ZstdState*>(memory)->decompressor, page, kPageSize, from,
                               bytes) == kPageSize;
  }

 private:
  static bool configure(const ZstdState& state, int level) {
    const ZSTD_compressionParameters p = parameters(level);
    const struct {
      ZSTD_cParameter name;
      int value;
    } settings[] = {
        {ZSTD_c_compressionLevel, level == 0 ? 1 : level},
        // Spelled out, so that the context needs exactly the memory that was estimated for them.
        {ZSTD_c_windowLog, static_cast<int>(p.windowLog)},
        {ZSTD_c_chainLog, static_cast<int>(p.chainLog)},
        {ZSTD_c_hashLog, static_cast<int>(p.hashLog)},
        {ZSTD_c_searchLog, static_cast<int>(p.searchLog)},
        {ZSTD_c_minMatch, static_cast<int>(p.minMatch)},
        {ZSTD_c_targetLength, static_cast<int>(p.targetLength)},
        {ZSTD_c_strategy, static_cast<int>(p.strategy)},
        {ZSTD_c_format, ZSTD_f_zstd1_magicless},
        {ZSTD_c_contentSizeFlag, 0},
        {ZSTD_c_checksumFlag, 0},
        {ZSTD_c_dictIDFlag, 0},
    };
    for (const auto& s : settings) {
      if (ZSTD_isError(ZSTD_CCtx_setParameter(state.compressor, s.name, s.value))) return false;
    }
    return !ZSTD_isError(
        ZSTD_DCtx_setParameter(state.decompressor, ZSTD_d_format, ZSTD_f_zstd1_magicless));
  }
};

}  // namespace

const Codec& zstd_codec() {
  static constinit const ZstdCodec instance;
  return instance;
}

}  // namespace heaptier
