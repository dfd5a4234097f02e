// Stored numbers to float32 and back, and groups of 32 quantised weights against int8 activations.
//
// Requires everywhere: weights at a multiple of 2 bytes, float32 at a multiple of 4, activations at a multiple of 4.
// Source of the layouts: base/blocks.h.
#pragma once

#include "base/blocks.h"
#include "kernels_gpu/portable.h"

namespace tandem::gpu {

TANDEM_DEVICE float half_to_float(Half half) {
#if defined(__CUDA_ARCH__)
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
  return value;
#else
  const uint32_t sign = uint32_t{half & 0x8000u} << 16;
  const uint32_t exponent = (half >> 10) & 31u;
  const uint32_t mantissa = half & 0x3ffu;
  if (exponent == 31) {  // infinity, or NaN made quiet
    const uint32_t quiet = mantissa != 0 ? 0x400000u : 0u;
    return bits_as<float>(sign | 0x7f800000u | quiet | (mantissa << 13));
  }
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24, exact
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return bits_as<float>(sign | bits_as<uint32_t>(magnitude));
  }
  return bits_as<float>(sign | ((exponent + 112u) << 23) | (mantissa << 13));
#endif
}

// To nearest, ties to even; overflow to infinity; NaN stays NaN.
TANDEM_DEVICE Half float_to_half(float value) {
#if defined(__CUDA_ARCH__)
  Half half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
  return half;
#else
  const uint32_t bits = bits_as<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  const auto to_even = [](uint32_t v, uint32_t dropped) {  // v / 2^dropped
    const uint32_t rest = v & ((1u << dropped) - 1u), half = 1u << (dropped - 1u);
    const uint32_t kept = v >> dropped;
    return kept + (rest > half || (rest == half && (kept & 1u) != 0) ? 1u : 0u);
  };
  if (magnitude > 0x7f800000u)
    return static_cast<Half>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
  if (magnitude >= 0x477ff000u) return static_cast<Half>(sign | 0x7c00u);  // rounds to 2^16 or more
  if (magnitude >= 0x38800000u)  // normal as half; a carry runs on into the exponent
    return static_cast<Half>(sign | to_even(magnitude - (112u << 23), 13));
  const uint32_t exponent = magnitude >> 23;
  if (exponent < 102) return static_cast<Half>(sign);  // below 2^-25
  return static_cast<Half>(sign | to_even((magnitude & 0x7fffffu) | 0x800000u, 126u - exponent));
#endif
}

TANDEM_DEVICE float bf16_to_float(uint16_t bits) { return bits_as<float>(uint32_t{bits} << 16); }

// Four bytes at a multiple of 2.
TANDEM_DEVICE uint32_t load_word(const void* place) {
#if defined(__CUDA_ARCH__)
  const auto* halves = static_cast<const uint16_t*>(place);
  return halves[0] | (static_cast<uint32_t>(halves[1]) << 16);
#else
  uint32_t word;
  memcpy(&word, place, sizeof word);
  return word;
#endif
}

// The i-th four of a block's 32 activations.
TANDEM_DEVICE uint32_t four_of(const BlockQ8A& x, int i) {
#if defined(__CUDA_ARCH__)
  return reinterpret_cast<const uint32_t*>(x.qs)[i];
#else
  return load_word(x.qs + 4 * i);
#endif
}

TANDEM_DEVICE int sum_of(const BlockQ8A& x) { return x.sums[0] + x.sums[1]; }

// sum + the products of four signed bytes.
TANDEM_DEVICE int dot_four(uint32_t a, uint32_t b, int sum) {
#if defined(__CUDA_ARCH__)
  return __dp4a(static_cast<int>(a), static_cast<int>(b), sum);
#else
  for (int i = 0; i < 4; ++i)
    sum += static_cast<int8_t>(a >> (8 * i)) * static_cast<int8_t>(b >> (8 * i));
  return sum;
#endif
}

struct ScaleMin {
  int scale, min;
};

// Of group j (0..7) of a Q4_K block.
TANDEM_DEVICE ScaleMin scale_min_q4_k(const uint8_t* bytes, int j) {
  if (j < 4) return {bytes[j] & 63, bytes[j + 4] & 63};
  return {(bytes[j + 4] & 15) | ((bytes[j - 4] >> 6) << 4),
          (bytes[j + 4] >> 4) | ((bytes[j] >> 6) << 4)};
}

// ---------------------------------------------------------------- weights as numbers

struct F32 {
  TANDEM_DEVICE static float value(const void* row, int64_t i) {
    return static_cast<const float*>(row)[i];
  }
};

struct F16 {
  TANDEM_DEVICE static float value(const void* row, int64_t i) {
    return half_to_float(static_cast<const Half*>(row)[i]);
  }
};

struct BF16 {
  TANDEM_DEVICE static float value(const void* row, int64_t i) {
    return bf16_to_float(static_cast<const uint16_t*>(row)[i]);
  }
};

// Each of the following has value(row, i) as dequantisation rounds it, a group of 32 weights in registers, and
// dot(group, x) in double: the integer sum is exact.

struct Q4_0 {
  TANDEM_DEVICE static float value(const void* row, int64_t i) {
    const BlockQ4_0& block = static_cast<const BlockQ4_0*>(row)[i / 32];
    const int place = static_cast<int>(i % 32);
    const int byte = block.qs[place % 16];
    return half_to_float(block.d) * static_cast<float>((place < 16 ? byte & 15 : byte >> 4) - 8);
  }

  double d;
  uint32_t low[4], high[4];
  TANDEM_DEVICE void load(const void* row, int64_t group) {
    const BlockQ4_0& block = static_cast<const BlockQ4_0*>(row)[group];
    d = double{half_to_float(block.d)};
    TANDEM_UNROLL for (int i = 0; i < 4; ++i) {
      const uint32_t word = load_word(block.qs + 4 * i);
      low[i] = word & 0x0f0f0f0fu;
      high[i] = (word >> 4) & 0x0f0f0f0fu;
    }
  }
  TANDEM_DEVICE double dot(const BlockQ8A& x) const {
    int sum = -8 * sum_of(x);
    TANDEM_UNROLL for (int i = 0; i < 4; ++i) {
      sum = dot_four(low[i], four_of(x, i), sum);
      sum = dot_four(high[i], four_of(x, i + 4), sum);
    }
    return d * double{x.d} * sum;
  }
};

struct Q8_0 {
  TANDEM_DEVICE static float value(const void* row, int64_t i) {
    const BlockQ8_0& block = static_cast<const BlockQ8_0*>(row)[i / 32];
    return half_to_float(block.d) * static_cast<float>(block.qs[i % 32]);
  }

  double d;
  uint32_t q[8];
  TANDEM_DEVICE void load(const void* row, int64_t group) {
    const BlockQ8_0& block = static_cast<const BlockQ8_0*>(row)[group];
    d = double{half_to_float(block.d)};
    TANDEM_UNROLL for (int i = 0; i < 8; ++i) q[i] = load_word(block.qs + 4 * i);
  }
  TANDEM_DEVICE double dot(const BlockQ8A& x) const {
    int sum = 0;
    TANDEM_UNROLL for (int i = 0; i < 8; ++i) sum = dot_four(q[i], four_of(x, i), sum);
    return d * double{x.d} * sum;
  }
};

struct Q4_K {
  TANDEM_DEVICE static float value(const void* row, int64_t i) {
    const BlockQ4_K& block = static_cast<const BlockQ4_K*>(row)[i / 256];
    const int j = static_cast<int>(i % 256) / 32;
    const ScaleMin s = scale_min_q4_k(block.scales, j);
    const int byte = block.qs[(j / 2) * 32 + static_cast<int>(i % 32)];
    const float d = half_to_float(block.d) * static_cast<float>(s.scale);
    const float offset = half_to_float(block.dmin) * static_cast<float>(s.min);
    return d * static_cast<float>(j % 2 == 0 ? byte & 15 : byte >> 4) - offset;
  }

  double d, min;
  uint32_t q[8];
  TANDEM_DEVICE void load(const void* row, int64_t group) {
    const BlockQ4_K& block = static_cast<const BlockQ4_K*>(row)[group / 8];
    const int j = static_cast<int>(group % 8);
    const ScaleMin s = scale_min_q4_k(block.scales, j);
    d = double{half_to_float(block.d)} * s.scale;
    min = double{half_to_float(block.dmin)} * s.min;
    const int shift = j % 2 * 4;
    TANDEM_UNROLL for (int i = 0; i < 8; ++i) q[i] =
        (load_word(block.qs + (j / 2) * 32 + 4 * i) >> shift) & 0x0f0f0f0fu;
  }
  TANDEM_DEVICE double dot(const BlockQ8A& x) const {
    int sum = 0;
    TANDEM_UNROLL for (int i = 0; i < 8; ++i) sum = dot_four(q[i], four_of(x, i), sum);
    return double{x.d} * (d * sum - min * sum_of(x));
  }
};

struct Q6_K {
  TANDEM_DEVICE static float value(const void* row, int64_t i) {
    const BlockQ6_K& block = static_cast<const BlockQ6_K*>(row)[i / 256];
    const int place = static_cast<int>(i % 256);
    const int half = place / 128, quarter = place % 128 / 32, column = place % 32;
    const int low_byte = block.ql[half * 64 + (quarter % 2) * 32 + column];
    const int low = quarter < 2 ? low_byte & 15 : low_byte >> 4;
    const int high = (block.qh[half * 32 + column] >> (2 * quarter)) & 3;
    const float d = half_to_float(block.d) * static_cast<float>(block.scales[place / 16]);
    return d * static_cast<float>((low | (high << 4)) - 32);
  }

  double d[2];  // of the first and of the second sixteen
  uint32_t q[8];
  TANDEM_DEVICE void load(const void* row, int64_t group) {
    const BlockQ6_K& block = static_cast<const BlockQ6_K*>(row)[group / 8];
    const int j = static_cast<int>(group % 8), half = j / 4, quarter = j % 4;
    for (int i = 0; i < 2; ++i) d[i] = double{half_to_float(block.d)} * block.scales[2 * j + i];
    const int low_shift = quarter < 2 ? 0 : 4;
    TANDEM_UNROLL for (int i = 0; i < 8; ++i) {
      const uint32_t low = load_word(block.ql + half * 64 + (quarter % 2) * 32 + 4 * i);
      const uint32_t high = load_word(block.qh + half * 32 + 4 * i);
      const uint32_t value =
          ((low >> low_shift) & 0x0f0f0f0fu) | (((high >> (2 * quarter)) & 0x03030303u) << 4);
      q[i] = ((value | 0x80808080u) - 0x20202020u) ^ 0x80808080u;  // every byte minus 32
    }
  }
  TANDEM_DEVICE double dot(const BlockQ8A& x) const {
    int sum[2] = {0, 0};
    TANDEM_UNROLL for (int i = 0; i < 8; ++i) sum[i / 4] =
        dot_four(q[i], four_of(x, i), sum[i / 4]);
    return double{x.d} * (d[0] * sum[0]) + double{x.d} * (d[1] * sum[1]);
  }
};

}  // namespace tandem::gpu
