// Loads and conversions for the AVX-512 operators.  Unnamed on purpose: each file has its own copy.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "base/blocks.h"
#include "kernels_cpu/vector_helpers.h"

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

// Mask of the first n (0 or more) lanes.
inline __mmask16 first_lanes(int64_t n) {
  return n >= 16 ? static_cast<__mmask16>(0xffff) : static_cast<__mmask16>((1u << n) - 1u);
}

// Sixteen stored numbers at any alignment as floats, those outside the mask zero.
struct F32 {
  static constexpr int64_t kBytes = 4;
  static __m512 load(const unsigned char* p) { return _mm512_loadu_ps(p); }
  static __m512 load(const unsigned char* p, __mmask16 mask) {
    return _mm512_maskz_loadu_ps(mask, p);
  }
};
struct F16 {
  static constexpr int64_t kBytes = 2;
  static __m512 load(const unsigned char* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static __m512 load(const unsigned char* p, __mmask16 mask) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, p));
  }
};

// Eight lanes of values[first], then eight of values[second].
inline __m512 spread_by_8(__m256 values, int first, int second) {
  const __m512i lanes = _mm512_inserti64x4(_mm512_set1_epi32(first), _mm256_set1_epi32(second), 1);
  return _mm512_permutexvar_ps(lanes, _mm512_castps256_ps512(values));
}

}  // namespace
}  // namespace tandem::cpu::avx512
