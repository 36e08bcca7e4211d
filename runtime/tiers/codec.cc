#include "runtime/tiers/codec.h"

namespace heaptier {

const Codec& codec(CodecKind kind) {
  return kind == CodecKind::kZstd ? zstd_codec() : lz4_codec();
}

}  // namespace heaptier
