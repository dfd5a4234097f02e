// Loads and number formats for the scalar operators.  Unnamed on purpose: each file has its own
// copy.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/blocks.h"

namespace tandem::cpu::scalar {
namespace {

// A T from any alignment.
template <typename T>
inline T load(const void* base, int64_t index) {
  T value;
  std::memcpy(&value,
              static_cast<const unsigned char*>(base) + index * static_cast<int64_t>(sizeof(T)),
              sizeof(T));
  return value;
}

inline const unsigned char* row_of(const void* w, size_t row_bytes, int64_t n) {
  return static_cast<const unsigned char*>(w) + static_cast<size_t>(n) * row_bytes;
}

inline float half_to_float(Half half) {
  const uint32_t sign = uint32_t{half & 0x8000u} << 16;
  const uint32_t exponent = (half >> 10) & 31u;
  const uint32_t mantissa = half & 0x3ffu;
  if (exponent == 31) {  // infinity, or NaN made quiet as the processor's conversion does
    const uint32_t quiet = mantissa != 0 ? 0x400000u : 0u;
    return std::bit_cast<float>(sign | 0x7f800000u | quiet | (mantissa << 13));
  }
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24, exact
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
  }
  return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}

inline float bf16_to_float(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

// Scale and minimum of group j (0..7) of a Q4_K block: six bits each.  Layout in base/blocks.h.
struct ScaleMin {
  int scale, min;
};
inline ScaleMin scale_min_q4_k(const uint8_t* bytes, int j) {
  if (j < 4) return {bytes[j] & 63, bytes[j + 4] & 63};
  return {(bytes[j + 4] & 15) | ((bytes[j - 4] >> 6) << 4),
          (bytes[j + 4] >> 4) | ((bytes[j] >> 6) << 4)};
}

// Weight i (0..31) of group j as 0..15.
inline int nibble_q4_k(const BlockQ4_K& block, int j, int i) {
  const int byte = block.qs[(j / 2) * 32 + i];
  return j % 2 == 0 ? byte & 15 : byte >> 4;
}

// Weight i (0..255) as -32..31.
inline int value_q6_k(const BlockQ6_K& block, int i) {
  const int half = i / 128, in_half = i % 128, quarter = in_half / 32, column = in_half % 32;
  const int low_byte = block.ql[half * 64 + (quarter % 2) * 32 + column];
  const int low = quarter < 2 ? low_byte & 15 : low_byte >> 4;
  const int high = (block.qh[half * 32 + column] >> (2 * quarter)) & 3;
  return (low | (high << 4)) - 32;
}

}  // namespace
}  // namespace tandem::cpu::scalar
