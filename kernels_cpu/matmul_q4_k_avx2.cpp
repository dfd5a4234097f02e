// Matrix products with Q4_K weights.  Contract: MatmulQ8A in kernels.h.
// Integer dot products are exact; 8 partial sums per result in float32.
#include "kernels_cpu/avx2.h"
#include "kernels_cpu/avx2_helpers.h"
#include "kernels_cpu/matmul_tiles.h"

namespace tandem::cpu::avx2 {
namespace {

struct Scales {
  __m256 scale, min;  // of the eight groups
};

inline __m256 bytes_to_floats(uint64_t bytes) {
  const __m128i low = _mm_cvtsi64_si128(static_cast<int64_t>(bytes));
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(low));
}

inline Scales load_scales_and_mins(const unsigned char* block) {
  const ScalesAndMinsQ4K packed = unpack_scales_q4_k(block);
  const __m256 scales = bytes_to_floats(packed.scales), mins = bytes_to_floats(packed.mins);
  return {_mm256_mul_ps(scales, half_to_floats(load_u16(block))),
          _mm256_mul_ps(mins, half_to_floats(load_u16(block + 2)))};
}

// sums[t] += one block of weights times the activations of token t.  Always inline: g++ 12 is at its
// limit here, and a call per block would pass the sums through memory.
template <int T>
[[gnu::always_inline]] inline void add_products(const unsigned char* block, const BlockQ8A* x,
                                                size_t x_stride, const __m256 (&d)[T],
                                                const __m256 (&d_sum)[T], __m256 (&sums)[T]) {
  const Scales w = load_scales_and_mins(block);
  const __m256i low_nibbles = _mm256_set1_epi8(15);
  __m256 scale[T];
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) scale[t] = _mm256_mul_ps(w.scale, d[t]);
#pragma GCC unroll 8
  for (int pair = 0; pair < 4; ++pair) {
    const __m256i bytes = load_32_bytes(block + 16 + pair * 32);
    const __m256i q[2] = {_mm256_and_si256(bytes, low_nibbles),
                          _mm256_and_si256(_mm256_srli_epi16(bytes, 4), low_nibbles)};
#pragma GCC unroll 8
    for (int half = 0; half < 2; ++half) {
      const int j = pair * 2 + half;
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) {
        const __m256i activations =
            load_32_bytes(x[static_cast<size_t>(t) * x_stride + static_cast<size_t>(j)].qs);
        const __m256 dot = _mm256_cvtepi32_ps(dot_u8_i8(q[half], activations));
        sums[t] = _mm256_fmadd_ps(dot, lane(scale[t], j), sums[t]);
      }
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) sums[t] = _mm256_fnmadd_ps(w.min, d_sum[t], sums[t]);
}

struct Q4_K {
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
      __m256 d[T], d_sum[T];
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) {
        const BlockQ8A* of_token = activations + static_cast<size_t>(t) * x_stride;
        d[t] = load_scales(of_token);
        d_sum[t] = _mm256_mul_ps(d[t], _mm256_cvtepi32_ps(load_sums(of_token)));
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const unsigned char* block = rows + static_cast<size_t>(r) * row_bytes + b * 144;
#pragma GCC unroll 8
        for (size_t line = 0; line < 144; line += 64) prefetch(block, kPrefetchBytes + line);
        add_products<T>(block, activations, x_stride, d, d_sum, sums[r]);
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

void matmul_q4_k(const void* w, size_t row_bytes, const BlockQ8A* x, size_t x_stride, float* y,
                 size_t y_stride, int64_t row_begin, int64_t row_end, int64_t K, int64_t T) {
  multiply_in_tiles<Q4_K>(w, row_bytes, x, x_stride, y, y_stride, row_begin, row_end, K, T);
}

}  // namespace tandem::cpu::avx2
