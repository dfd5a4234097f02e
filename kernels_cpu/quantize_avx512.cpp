// float32 to int8 blocks of 32.  Contract: QuantizeQ8A in kernels.h; the same bits as the scalar
// file.
#include "kernels_cpu/avx512.h"
#include "kernels_cpu/avx512_helpers.h"

namespace tandem::cpu::avx512 {
namespace {

// Magnitudes compare as integers, with every NaN above infinity.
inline uint32_t largest_magnitude(__m512 a, __m512 b) {
  const __m512i mask = _mm512_set1_epi32(0x7fffffff);
  return _mm512_reduce_max_epu32(_mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(a), mask),
                                                  _mm512_and_si512(_mm512_castps_si512(b), mask)));
}

// To the nearest integer, ties to even.
inline __m512i round_scaled(__m512 x, __m512 inverse) {
  constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return _mm512_cvt_roundps_epi32(_mm512_mul_ps(x, inverse), mode);
}

inline void quantize_block(const float* x, BlockQ8A* q) {
  const __m512 a = _mm512_loadu_ps(x), b = _mm512_loadu_ps(x + 16);
  const uint32_t largest = largest_magnitude(a, b);
  if (largest < kTwoToMinus118 || largest >= kInfinity) {
    *q = BlockQ8A{};
    if (largest >= kInfinity) q->d = q->d_sum = __builtin_nanf("");
    return;
  }
  const float max = _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<int>(largest))));
  const __m512 inverse = _mm512_set1_ps(127.0f / max);
  const __m512i low = round_scaled(a, inverse), high = round_scaled(b, inverse);
  q->d = max / 127.0f;
  q->sums[0] = static_cast<int16_t>(_mm512_reduce_add_epi32(low));
  q->sums[1] = static_cast<int16_t>(_mm512_reduce_add_epi32(high));
  q->d_sum = q->d * static_cast<float>(q->sums[0] + q->sums[1]);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(q->qs), _mm512_cvtepi32_epi8(low));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(q->qs + 16), _mm512_cvtepi32_epi8(high));
}

}  // namespace

void quantize_q8a(const float* x, BlockQ8A* q, int64_t K) {
  for (int64_t b = 0; b < K / 32; ++b) quantize_block(x + b * 32, q + b);
}

}  // namespace tandem::cpu::avx512
