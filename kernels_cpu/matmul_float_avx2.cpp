// Matrix products with float32, float16 and bfloat16 weights.  Contract: MatmulFloat in kernels.h.
// Fused multiply-add in float32, 8 partial sums per result.
#include "kernels_cpu/avx2.h"
#include "kernels_cpu/avx2_helpers.h"
#include "kernels_cpu/float_tiles.h"

namespace tandem::cpu::avx2 {
namespace {

// As F32 and F16 in avx2_helpers.h.
struct Bf16 {
  static constexpr int64_t kBytes = 2;
  static __m256 load(const unsigned char* p, int64_t n) {
    uint16_t last[8] = {};
    if (n < 8) {
      __builtin_memcpy(last, p, static_cast<size_t>(n) * 2);
      p = reinterpret_cast<const unsigned char*>(last);
    }
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
};

// sums[r][t] += the n (at most 8) weights at column k of each row times the values of each token.
template <typename Format, int R, int T>
inline void add_columns(const unsigned char* rows, size_t row_bytes, const float* x,
                        size_t x_stride, int64_t k, int64_t n, __m256 (&sums)[R][T]) {
  __m256 values[T];
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
    const float* p = x + static_cast<size_t>(t) * x_stride + k;
    values[t] = F32::load(reinterpret_cast<const unsigned char*>(p), n);
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const unsigned char* p = rows + static_cast<size_t>(r) * row_bytes + k * Format::kBytes;
    prefetch(p, kPrefetchBytes);
    const __m256 weights = Format::load(p, n);
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) sums[r][t] = _mm256_fmadd_ps(weights, values[t], sums[r][t]);
  }
}

template <typename Format>
struct Float {
  static constexpr int kRows = 4;
  static constexpr int kTokens = 2;

  template <int R, int T>
  static void tile(const unsigned char* rows, size_t row_bytes, const float* x, size_t x_stride,
                   float* y, size_t y_stride, int64_t K) {
    __m256 sums[R][T];
#pragma GCC unroll 8
    for (auto& of_row : sums)
#pragma GCC unroll 8
      for (__m256& sum : of_row) sum = _mm256_setzero_ps();
    int64_t k = 0;
    for (; k + 8 <= K; k += 8) add_columns<Format, R, T>(rows, row_bytes, x, x_stride, k, 8, sums);
    if (k < K) add_columns<Format, R, T>(rows, row_bytes, x, x_stride, k, K - k, sums);
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t)
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
        y[static_cast<size_t>(t) * y_stride + static_cast<size_t>(r)] = sum_lanes(sums[r][t]);
  }
};

}  // namespace

void matmul_f32(const void* w, size_t row_bytes, const float* x, size_t x_stride, float* y,
                size_t y_stride, int64_t row_begin, int64_t row_end, int64_t K, int64_t T) {
  multiply_in_tiles<Float<F32>>(w, row_bytes, x, x_stride, y, y_stride, row_begin, row_end, K, T);
}

void matmul_f16(const void* w, size_t row_bytes, const float* x, size_t x_stride, float* y,
                size_t y_stride, int64_t row_begin, int64_t row_end, int64_t K, int64_t T) {
  multiply_in_tiles<Float<F16>>(w, row_bytes, x, x_stride, y, y_stride, row_begin, row_end, K, T);
}

void matmul_bf16(const void* w, size_t row_bytes, const float* x, size_t x_stride, float* y,
                 size_t y_stride, int64_t row_begin, int64_t row_end, int64_t K, int64_t T) {
  multiply_in_tiles<Float<Bf16>>(w, row_bytes, x, x_stride, y, y_stride, row_begin, row_end, K, T);
}

}  // namespace tandem::cpu::avx2
