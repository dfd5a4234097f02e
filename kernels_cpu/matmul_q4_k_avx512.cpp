// Matrix products with Q4_K weights.  Contract: MatmulQ8A in kernels.h.
// Integer dot products are exact; 16 partial sums per result in float32.
#include "kernels_cpu/avx512.h"
#include "kernels_cpu/avx512_helpers.h"
#include "kernels_cpu/matmul_tiles.h"

namespace tandem::cpu::avx512 {
namespace {

// 64 bytes of quants hold groups 0 and 2 in the low nibbles and 1 and 3 in the high ones;
// activations are paired the same way.
struct Activations {
  __m512i q[4];
  __m256 d;
  __m256 d_sum;  // d * sum: what a minimum is multiplied with
};

inline Activations load_activations(const BlockQ8A* x) {
  const ScalesAndSums scales = load_scales_and_sums(x);
  return {{load_pair(x, 0, 2), load_pair(x, 1, 3), load_pair(x, 4, 6), load_pair(x, 5, 7)},
          scales.d,
          _mm256_mul_ps(scales.d, _mm256_cvtepi32_ps(scales.sum))};
}

struct Weights {
  __m512i q[4];
  __m256 scale, min;  // of the eight groups
};

inline __m256 bytes_to_floats(uint64_t bytes) {
  const __m128i low = _mm_cvtsi64_si128(static_cast<int64_t>(bytes));
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(low));
}

inline Weights load_weights(const unsigned char* block) {
  const __m128 d_and_min = _mm_cvtph_ps(_mm_cvtsi32_si128(static_cast<int>(load_u32(block))));
  const ScalesAndMinsQ4K packed = unpack_scales_q4_k(block);
  const __m256 scales = bytes_to_floats(packed.scales), mins = bytes_to_floats(packed.mins);
  const __m512i low_nibbles = _mm512_set1_epi8(15);
  const __m512i front = _mm512_loadu_si512(block + 16), back = _mm512_loadu_si512(block + 80);
  return {{_mm512_and_si512(front, low_nibbles),
           _mm512_and_si512(_mm512_srli_epi16(front, 4), low_nibbles),
           _mm512_and_si512(back, low_nibbles),
           _mm512_and_si512(_mm512_srli_epi16(back, 4), low_nibbles)},
          _mm256_mul_ps(scales, _mm256_broadcastss_ps(d_and_min)),
          _mm256_mul_ps(mins, _mm256_broadcastss_ps(_mm_movehdup_ps(d_and_min)))};
}

inline __m512 add_products(const Weights& w, const Activations& x, __m512 sum) {
  const __m256 scale = _mm256_mul_ps(w.scale, x.d);
  const __m512 spread[4] = {spread_by_8(scale, 0, 2), spread_by_8(scale, 1, 3),
                            spread_by_8(scale, 4, 6), spread_by_8(scale, 5, 7)};
#pragma GCC unroll 8
  for (int z = 0; z < 4; ++z) {
    const __m512i dot = _mm512_dpbusd_epi32(_mm512_setzero_si512(), w.q[z], x.q[z]);
    sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), spread[z], sum);
  }
  return _mm512_fnmadd_ps(_mm512_zextps256_ps512(w.min), _mm512_zextps256_ps512(x.d_sum), sum);
}

struct Q4_K {
  static constexpr int kRows = 4;
  static constexpr int kTokens = 4;

  template <int R, int T>
  static void tile(const unsigned char* rows, size_t row_bytes, const BlockQ8A* x, size_t x_stride,
                   float* y, size_t y_stride, int64_t K) {
    __m512 sums[R][T];
#pragma GCC unroll 8
    for (auto& of_row : sums)
#pragma GCC unroll 8
      for (__m512& sum : of_row) sum = _mm512_setzero_ps();
    for (int64_t b = 0; b < K / 256; ++b) {
      Activations activations[T];
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t)
        activations[t] = load_activations(x + static_cast<size_t>(t) * x_stride + b * 8);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const unsigned char* block = rows + static_cast<size_t>(r) * row_bytes + b * 144;
#pragma GCC unroll 8
        for (size_t line = 0; line < 144; line += 64) prefetch(block, kPrefetchBytes + line);
        const Weights weights = load_weights(block);
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) sums[r][t] = add_products(weights, activations[t], sums[r][t]);
      }
    }
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t)
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
        y[static_cast<size_t>(t) * y_stride + static_cast<size_t>(r)] =
            _mm512_reduce_add_ps(sums[r][t]);
  }
};

}  // namespace

void matmul_q4_k(const void* w, size_t row_bytes, const BlockQ8A* x, size_t x_stride, float* y,
                 size_t y_stride, int64_t row_begin, int64_t row_end, int64_t K, int64_t T) {
  multiply_in_tiles<Q4_K>(w, row_bytes, x, x_stride, y, y_stride, row_begin, row_end, K, T);
}

}  // namespace tandem::cpu::avx512
