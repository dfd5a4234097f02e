// Loads and conversions for the AVX2 operators.  Unnamed on purpose: each file has its own copy.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "base/blocks.h"
#include "kernels_cpu/vector_helpers.h"

namespace tandem::cpu::avx2 {
namespace {

inline __m256i load_32_bytes(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}

// Always in this order: lanes i and i+4, then i and i+2, then the two left.
inline float sum_lanes(__m256 v) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// Mask for _mm256_maskload_ps: the first n lanes.
inline __m256i first_lanes(int64_t n) {
  const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n >= 8 ? 8 : static_cast<int>(n)), index);
}

// n (1 or more) stored numbers at any alignment, eight at most, as floats; the other lanes zero.
struct F32 {
  static constexpr int64_t kBytes = 4;
  static __m256 load(const unsigned char* p, int64_t n) {
    const float* floats = reinterpret_cast<const float*>(p);
    return n >= 8 ? _mm256_loadu_ps(floats) : _mm256_maskload_ps(floats, first_lanes(n));
  }
};
struct F16 {
  static constexpr int64_t kBytes = 2;
  static __m256 load(const unsigned char* p, int64_t n) {
    if (n >= 8) return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    uint16_t bits[8] = {};
    __builtin_memcpy(bits, p, static_cast<size_t>(n) * 2);
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bits)));
  }
};

}  // namespace
}  // namespace tandem::cpu::avx2
