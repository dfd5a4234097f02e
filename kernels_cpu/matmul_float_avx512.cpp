// Matrix products with float32, float16 and bfloat16 weights.  Contract: MatmulFloat in kernels.h.
// Fused multiply-add in float32, 16 partial sums per result.
#include "kernels_cpu/avx512.h"
#include "kernels_cpu/avx512_helpers.h"
#include "kernels_cpu/float_tiles.h"

namespace tandem::cpu::avx512 {
namespace {

// As F32 and F16 in avx512_helpers.h.
struct Bf16 {
  static constexpr int64_t kBytes = 2;
  static __m512 widen(__m256i bits) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  static __m512 load(const unsigned char* p) {
    return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static __m512 load(const unsigned char* p, __mmask16 mask) {
    return widen(_mm256_maskz_loadu_epi16(mask, p));
  }
};

template <typename Format>
struct Float {
  static constexpr int kRows = 4;
  static constexpr int kTokens = 4;

  template <int R, int T>
  static void tile(const unsigned char* rows, size_t row_bytes, const float* x, size_t x_stride,
                   float* y, size_t y_stride, int64_t K) {
    __m512 sums[R][T];
#pragma GCC unroll 8
    for (auto& of_row : sums)
#pragma GCC unroll 8
      for (__m512& sum : of_row) sum = _mm512_setzero_ps();
    int64_t k = 0;
    for (; k + 16 <= K; k += 16) {
      __m512 values[T];
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t)
        values[t] = _mm512_loadu_ps(x + static_cast<size_t>(t) * x_stride + k);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const unsigned char* p = rows + static_cast<size_t>(r) * row_bytes + k * Format::kBytes;
        prefetch(p, kPrefetchBytes);
        const __m512 weights = Format::load(p);
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) sums[r][t] = _mm512_fmadd_ps(weights, values[t], sums[r][t]);
      }
    }
    if (k < K) {
      const __mmask16 mask = static_cast<__mmask16>((1u << (K - k)) - 1u);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const __m512 weights =
            Format::load(rows + static_cast<size_t>(r) * row_bytes + k * Format::kBytes, mask);
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) {
          const __m512 value =
              _mm512_maskz_loadu_ps(mask, x + static_cast<size_t>(t) * x_stride + k);
          sums[r][t] = _mm512_fmadd_ps(weights, value, sums[r][t]);
        }
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

}  // namespace tandem::cpu::avx512
