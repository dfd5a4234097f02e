// float32 to int8 blocks of 32.  Contract: QuantizeQ8A in kernels.h; the same bits as the scalar
// file.
#include "kernels_cpu/avx2.h"
#include "kernels_cpu/avx2_helpers.h"

namespace tandem::cpu::avx2 {
namespace {

// Magnitudes compare as integers, with every NaN above infinity.
inline uint32_t largest_magnitude(const __m256 (&x)[4]) {
  const __m256 mask = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  __m256i largest = _mm256_setzero_si256();
  for (const __m256 values : x)
    largest = _mm256_max_epu32(largest, _mm256_castps_si256(_mm256_and_ps(values, mask)));
  __m128i four =
      _mm_max_epu32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256(largest, 1));
  four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0x4e));
  four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0xb1));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(four));
}

inline int32_t sum_lanes(__m256i v) {
  __m128i four = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}

// To the nearest integer, ties to even.
inline __m256i round_scaled(__m256 x, __m256 inverse) {
  constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return _mm256_cvtps_epi32(_mm256_round_ps(_mm256_mul_ps(x, inverse), mode));
}

inline void quantize_block(const float* x, BlockQ8A* q) {
  const __m256 values[4] = {_mm256_loadu_ps(x), _mm256_loadu_ps(x + 8), _mm256_loadu_ps(x + 16),
                            _mm256_loadu_ps(x + 24)};
  const uint32_t largest = largest_magnitude(values);
  if (largest < kTwoToMinus118 || largest >= kInfinity) {
    *q = BlockQ8A{};
    if (largest >= kInfinity) q->d = q->d_sum = __builtin_nanf("");
    return;
  }
  const float max = _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<int>(largest))));
  const __m256 inverse = _mm256_set1_ps(127.0f / max);
  const __m256i a = round_scaled(values[0], inverse), b = round_scaled(values[1], inverse),
                c = round_scaled(values[2], inverse), d = round_scaled(values[3], inverse);
  q->d = max / 127.0f;
  q->sums[0] = static_cast<int16_t>(sum_lanes(_mm256_add_epi32(a, b)));
  q->sums[1] = static_cast<int16_t>(sum_lanes(_mm256_add_epi32(c, d)));
  q->d_sum = q->d * static_cast<float>(q->sums[0] + q->sums[1]);
  // Packing works within 128-bit halves; the last step puts the groups of four back in order.
  const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(q->qs), _mm256_permutevar8x32_epi32(bytes, order));
}

}  // namespace

void quantize_q8a(const float* x, BlockQ8A* q, int64_t K) {
  for (int64_t b = 0; b < K / 32; ++b) quantize_block(x + b * 32, q + b);
}

}  // namespace tandem::cpu::avx2
