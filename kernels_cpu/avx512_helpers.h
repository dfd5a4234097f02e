// Loads and conversions for the AVX-512 operators.  Unnamed on purpose: each file has its own copy.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "base/blocks.h"

namespace tandem::cpu::avx512 {
namespace {

// The quantised activations of two blocks side by side.
inline __m512i load_pair(const BlockQ8A* x, int first, int second) {
  const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x[first].qs));
  const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x[second].qs));
  return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

// d and sum of eight blocks: each block's first eight bytes.
struct ScalesAndSums {
  __m256 d;
  __m256i sum;
};
inline ScalesAndSums load_scales_and_sums(const BlockQ8A* x) {
  static_assert(sizeof(BlockQ8A) == 40);
  const __m256i at = _mm256_setr_epi32(0, 5, 10, 15, 20, 25, 30, 35);
  const __m512i pairs = _mm512_i32gather_epi64(at, x, 8);
  return {_mm256_castsi256_ps(_mm512_cvtepi64_epi32(pairs)),
          _mm512_cvtepi64_epi32(_mm512_srli_epi64(pairs, 32))};
}

// Per lane: value times the sum of its four activations.
inline __m512i offset_of(__m512i x, char value) {
  return _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(value), x);
}

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

// Eight lanes of values[first], then eight of values[second].
inline __m512 spread_by_8(__m256 values, int first, int second) {
  const __m512i lanes = _mm512_inserti64x4(_mm512_set1_epi32(first), _mm256_set1_epi32(second), 1);
  return _mm512_permutexvar_ps(lanes, _mm512_castps256_ps512(values));
}

}  // namespace
}  // namespace tandem::cpu::avx512
