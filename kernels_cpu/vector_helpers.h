// What the AVX2 and the AVX-512 operators share: unaligned loads, the packed scales of Q4_K and the
// limits of quantisation, in plain integers.  Unnamed on purpose: each file has its own copy,
// compiled for its own instruction set.
#pragma once

#include <cstdint>

namespace tandem::cpu {
namespace {

inline uint32_t load_u32(const void* p) {
  uint32_t value;
  __builtin_memcpy(&value, p, sizeof value);
  return value;
}

inline uint16_t load_u16(const void* p) {
  uint16_t value;
  __builtin_memcpy(&value, p, sizeof value);
  return value;
}

// The eight scales and the eight minima of a Q4_K block, six bits each, as bytes: that of group 0
// lowest.  Layout in base/blocks.h.
struct ScalesAndMinsQ4K {
  uint64_t scales, mins;
};
inline ScalesAndMinsQ4K unpack_scales_q4_k(const unsigned char* block) {
  const uint32_t a = load_u32(block + 4), b = load_u32(block + 8), c = load_u32(block + 12);
  const uint32_t last_scales = (c & 0x0f0f0f0fu) | ((a >> 2) & 0x30303030u);
  const uint32_t last_mins = ((c >> 4) & 0x0f0f0f0fu) | ((b >> 2) & 0x30303030u);
  return {uint64_t{last_scales} << 32 | (a & 0x3f3f3f3fu),
          uint64_t{last_mins} << 32 | (b & 0x3f3f3f3fu)};
}

// Bits of float32 magnitudes: a block that reaches the first is NaN, one below the second is zero.
constexpr uint32_t kInfinity = 0x7f800000u;
constexpr uint32_t kTwoToMinus118 = (127u - 118u) << 23;

}  // namespace
}  // namespace tandem::cpu
