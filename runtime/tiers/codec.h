// A codec turns one 4 KiB page into fewer bytes and back. Two exist: lz4 (fast) and zstd (small).
// What a codec needs to work lives in memory that the caller provides, so that compressing never
// calls malloc: these functions run inside malloc and inside fault handlers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace heaptier {

enum class CodecKind : std::uint8_t { kLz4, kZstd };

// Thread rule: a codec is constant and shared; a state belongs to one thread at a time.
class Codec {
 public:
  virtual const char* name() const = 0;
  // Whether the codec has such a level. Higher is smaller and slower; 0 is the default.
  //   lz4: 0 or negative; -n skips faster over what does not match (LZ4's acceleration n).
  //   zstd: zstd's own levels, 0 meaning 1.
  virtual bool has_level(int level) const = 0;
  // Bytes of one state for `level`, to be aligned to 64.
  virtual std::size_t state_bytes(int level) const = 0;
  // Makes a state in zeroed or unused memory. false: not enough memory for it (never for
  // state_bytes()).
  virtual bool make_state(void* memory, int level) const = 0;
  // Bytes written to `out`, or 0 if the page does not shrink to `capacity` bytes.
  virtual std::size_t compress(void* state, const void* page, void* out,
                               std::size_t capacity) const = 0;
  // Fills the page. false: the bytes are no whole page; `page` then holds anything. Safe on any
  // input.
  virtual bool decompress(void* state, const void* from, std::size_t bytes, void* page) const = 0;

 protected:
  ~Codec() = default;
};

const Codec& lz4_codec();
const Codec& zstd_codec();
const Codec& codec(CodecKind kind);

}  // namespace heaptier
