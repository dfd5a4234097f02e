// Quantised blocks exactly as GGUF files hold them.  Only <cstdint>: kernels of every instruction
// set include this file.  Source: the GGUF specification and the gguf Python package's quants.
#pragma once

#include <cstdint>

namespace tandem {

// IEEE binary16 bits.
using Half = uint16_t;

// 32 weights, 4.5 bits each:  w = d * (q - 8).  Byte j holds weight j (low) and j+16 (high nibble).
struct BlockQ4_0 {
  Half d;
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_0) == 18);

// 32 weights, 8.5 bits each:  w = d * q.
struct BlockQ8_0 {
  Half d;
  int8_t qs[32];
};
static_assert(sizeof(BlockQ8_0) == 34);

// 256 weights in 8 groups of 32, 4.5 bits each:  w = d * scale[j] * q - dmin * min[j].
// scales: eight 6-bit scales and eight 6-bit mins.  For j < 4 the scale is the low six bits of byte j
// and the min those of byte j+4; for j >= 4 the scale is the low nibble of byte j+4 with its two top
// bits in the top of byte j-4, the min the high nibble of byte j+4 with its top bits in the top of
// byte j.  qs: 32 bytes hold group 2i in the low and group 2i+1 in the high nibbles.
struct BlockQ4_K {
  Half d;
  Half dmin;
  uint8_t scales[12];
  uint8_t qs[128];
};
static_assert(sizeof(BlockQ4_K) == 144);

// 256 weights in 16 groups of 16, 6.5625 bits each:  w = d * scale[j] * (q - 32).
// ql holds the low four bits, qh the high two.  Each half of 128 weights takes 64 bytes of ql and 32
// of qh: weight i of the half (i < 32) is ql[i] low, i+32 is ql[i+32] low, i+64 is ql[i] high, i+96
// is ql[i+32] high; the bits 2k, 2k+1 of qh[i] belong to weight i + 32 k.
struct BlockQ6_K {
  uint8_t ql[128];
  uint8_t qh[64];
  int8_t scales[16];
  Half d;
};
static_assert(sizeof(BlockQ6_K) == 210);

// Activations beside quantised weights: 32 values, x = d * q with q in [-127, 127], d = max|x| / 127.
// sums: of the first and the last sixteen q, for formats whose weights are stored with an offset.
// d_sum = d * (both sums), rounded once, for those with a minimum.
struct BlockQ8A {
  float d;
  float d_sum;
  int16_t sums[2];
  int8_t qs[32];
};
static_assert(sizeof(BlockQ8A) == 44);

}  // namespace tandem
