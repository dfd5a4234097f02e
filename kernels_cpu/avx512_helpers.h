// Loads and conversions for the AVX-512 operators.  Unnamed on purpose: each file has its own copy.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "base/blocks.h"
#include "kernels_cpu/vector_helpers.h"

namespace tandem::cpu::avx512 {
namespace {

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

}  // namespace
}  // namespace tandem::cpu::avx512
