// Matrix products with Q4_0 and Q8_0 weights.  Contract: MatmulQ8A in kernels.h.
// Integer dot products are exact; 8 partial sums per result in float32.
#include "kernels_cpu/avx2.h"
#include "kernels_cpu/avx2_helpers.h"
#include "kernels_cpu/matmul_tiles.h"

namespace tandem::cpu::avx2 {
namespace {

// A stored block as 32 unsigned bytes; dot() gives what the signed weights would give.
struct Q8_0 {
  static constexpr int kBlockBytes = 34;
  static __m256i load(const unsigned char* block) { return load_32_bytes(block + 2); }
  // |w| * (x with the sign of w): |w| is at most 128, as an unsigned byte.
  static __m256i dot(__m256i w, __m256i x) {
    return dot_u8_i8(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
  }
};

struct Q4_0 {
  static constexpr int kBlockBytes = 18;
  static __m256i load(const unsigned char* block) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block + 2));
    const __m256i both =
        _mm256_inserti128_si256(_mm256_castsi128_si256(bytes), _mm_srli_epi16(bytes, 4), 1);
    return _mm256_and_si256(both, _mm256_set1_epi8(15));
  }
  // Weights are stored as 0..15 and mean -8..7.
  static __m256i dot(__m256i w, __m256i x) {
    return _mm256_sub_epi32(dot_u8_i8(w, x), dot_u8_i8(_mm256_set1_epi8(8), x));
  }
};

template <typename Format>
struct SmallBlocks {
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
    for (int64_t b = 0; b < K / 32; ++b) {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const unsigned char* block =
            rows + static_cast<size_t>(r) * row_bytes + b * Format::kBlockBytes;
        prefetch(block, kPrefetchBytes);
        const __m256i q = Format::load(block);
        const __m256 d = half_to_floats(load_u16(block));
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) {
          const BlockQ8A* activations = x + static_cast<size_t>(t) * x_stride + b;
          const __m256i dot = Format::dot(q, load_32_bytes(activations->qs));
          const __m256 scale = _mm256_mul_ps(d, _mm256_set1_ps(activations->d));
          sums[r][t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, sums[r][t]);
        }
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

void matmul_q4_0(const void* w, size_t row_bytes, const BlockQ8A* x, size_t x_stride, float* y,
                 size_t y_stride, int64_t row_begin, int64_t row_end, int64_t K, int64_t T) {
  multiply_in_tiles<SmallBlocks<Q4_0>>(w, row_bytes, x, x_stride, y, y_stride, row_begin, row_end,
                                       K, T);
}

void matmul_q8_0(const void* w, size_t row_bytes, const BlockQ8A* x, size_t x_stride, float* y,
                 size_t y_stride, int64_t row_begin, int64_t row_end, int64_t K, int64_t T) {
  multiply_in_tiles<SmallBlocks<Q8_0>>(w, row_bytes, x, x_stride, y, y_stride, row_begin, row_end,
                                       K, T);
}

}  // namespace tandem::cpu::avx2
