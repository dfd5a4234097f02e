// Matrix products with Q6_K weights.  Contract: MatmulQ8A in kernels.h.
// Integer dot products are exact; 8 partial sums per result in float32.
#include "kernels_cpu/avx2.h"
#include "kernels_cpu/avx2_helpers.h"
#include "kernels_cpu/matmul_tiles.h"

namespace tandem::cpu::avx2 {
namespace {

// Weights j*32 .. j*32+31 of a block as 0..63.
inline __m256i load_group(const unsigned char* block, int j) {
  const int half = j / 4, quarter = j % 4;
  __m256i low = load_32_bytes(block + half * 64 + (quarter % 2) * 32);
  if (quarter >= 2) low = _mm256_srli_epi16(low, 4);
  const __m256i bytes = load_32_bytes(block + 128 + half * 32);
  // The two bits of this quarter go to bits 4 and 5 of each byte.
  const __m256i high = quarter < 2 ? _mm256_sll_epi16(bytes, _mm_cvtsi32_si128(4 - 2 * quarter))
                                   : _mm256_srl_epi16(bytes, _mm_cvtsi32_si128(2 * quarter - 4));
  return _mm256_or_si256(_mm256_and_si256(low, _mm256_set1_epi8(15)),
                         _mm256_and_si256(high, _mm256_set1_epi8(0x30)));
}

// d times the sixteen group scales, those of the even and of the odd groups of 16.
struct Scales {
  __m256 even, odd;
};
inline Scales load_group_scales(const unsigned char* block) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block + 192));
  const __m256i words = _mm256_cvtepi8_epi16(bytes);
  const __m256 d = half_to_floats(load_u16(block + 208));
  const __m256i even = _mm256_srai_epi32(_mm256_slli_epi32(words, 16), 16);
  const __m256i odd = _mm256_srai_epi32(words, 16);
  return {_mm256_mul_ps(_mm256_cvtepi32_ps(even), d), _mm256_mul_ps(_mm256_cvtepi32_ps(odd), d)};
}

// sums[t] += one block of weights times the activations of token t.
template <int T>
inline void add_products(const unsigned char* block, const BlockQ8A* x, size_t x_stride,
                         const __m256 (&d)[T], __m256 (&sums)[T]) {
  const Scales w = load_group_scales(block);
  __m256 even[T], odd[T];
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
    even[t] = _mm256_mul_ps(w.even, d[t]);
    odd[t] = _mm256_mul_ps(w.odd, d[t]);
  }
#pragma GCC unroll 8
  for (int j = 0; j < 8; ++j) {
    const __m256i q = load_group(block, j);
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
      const __m256i activations =
          load_32_bytes(x[static_cast<size_t>(t) * x_stride + static_cast<size_t>(j)].qs);
      // Taking weights as 0..63 adds 32 times the activations.
      const __m256i offset = dot_u8_i8(_mm256_set1_epi8(32), activations);
      const __m256i dot = _mm256_sub_epi32(dot_u8_i8(q, activations), offset);
      const __m256 scale = _mm256_blend_ps(lane(even[t], j), lane(odd[t], j), 0xf0);
      sums[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, sums[t]);
    }
  }
}

struct Q6_K {
  static constexpr int kRows = 4;
  static constexpr int kTokens = 2;

  template <int R, int T>
  static void tile(const unsigned char* rows, size_t row_bytes, const BlockQ8A* x, size_t x_stride,
                   float* y, size_t y_stride, int64_t K) {
    __m256 sums[R][T];
#pragma GCC unroll 8
    for (auto& of_row : sums)
#pragma GCC unroll 8
      for (__m256& sum : of_row) sum = _mm256_setzero_ps();
    for (int64_t b = 0; b < K / 256; ++b) {
      const BlockQ8A* activations = x + b * 8;
      __m256 d[T];
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t)
        d[t] = load_scales(activations + static_cast<size_t>(t) * x_stride);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const unsigned char* block = rows + static_cast<size_t>(r) * row_bytes + b * 210;
#pragma GCC unroll 8
        for (size_t line = 0; line < 210; line += 64) prefetch(block, kPrefetchBytes + line);
        add_products<T>(block, activations, x_stride, d, sums[r]);
      }
    }
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t)
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
        y[static_cast<size_t>(t) * y_stride + static_cast<size_t>(r)] = sum_lanes(sums[r][t]);
  }
};

}  // namespace

void matmul_q6_k(const void* w, size_t row_bytes, const BlockQ8A* x, size_t x_stride, float* y,
                 size_t y_stride, int64_t row_begin, int64_t row_end, int64_t K, int64_t T) {
  multiply_in_tiles<Q6_K>(w, row_bytes, x, x_stride, y, y_stride, row_begin, row_end, K, T);
}

}  // namespace tandem::cpu::avx2
