// Matrix products with Q4_0 and Q8_0 weights.  Contract: MatmulQ8A in kernels.h.
// Eight blocks of 32 at a time; a row's last blocks are padded with zeros to eight.  Integer dot
// products are exact; 16 partial sums per result in float32.
#include "kernels_cpu/avx512.h"
#include "kernels_cpu/avx512_helpers.h"
#include "kernels_cpu/matmul_tiles.h"

namespace tandem::cpu::avx512 {
namespace {

// The scales of eight blocks that are stride bytes apart.
template <int stride>
inline __m256 load_scales(const unsigned char* blocks) {
  const auto at = [blocks](int b) { return static_cast<int16_t>(load_u16(blocks + b * stride)); };
  return _mm256_cvtph_ps(_mm_setr_epi16(at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7)));
}

// Weights are taken as unsigned, offset by kOffset; the integer sums start from what takes that
// back.
struct Q8_0 {
  static constexpr int kRows = 4, kTokens = 4, kBlockBytes = 34, kOffset = 128;

  static __m512i load_two(const unsigned char* block) {
    const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + 2));
    const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + 36));
    const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
    return _mm512_xor_si512(both, _mm512_set1_epi8(static_cast<char>(0x80)));
  }
  template <int R, int T>
  static void tile(const unsigned char* rows, size_t row_bytes, const BlockQ8A* x, size_t x_stride,
                   float* y, size_t y_stride, int64_t K);
};

struct Q4_0 {
  static constexpr int kRows = 4, kTokens = 4, kBlockBytes = 18, kOffset = 8;

  static __m512i load_two(const unsigned char* block) {
    const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block + 2));
    const __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block + 20));
    const __m512i both =
        _mm512_inserti64x4(_mm512_broadcast_i32x4(low), _mm256_broadcastsi128_si256(high), 1);
    const __m512i shifts = _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4);
    return _mm512_and_si512(_mm512_srlv_epi64(both, shifts), _mm512_set1_epi8(15));
  }
  template <int R, int T>
  static void tile(const unsigned char* rows, size_t row_bytes, const BlockQ8A* x, size_t x_stride,
                   float* y, size_t y_stride, int64_t K);
};

struct Activations {
  __m512i q[4];
  __m512i start[4];
  __m256 d;
};

template <int offset>
inline Activations load_activations(const BlockQ8A* x) {
  Activations result;
#pragma GCC unroll 8
  for (int z = 0; z < 4; ++z) {
    result.q[z] = load_pair(x, 2 * z, 2 * z + 1);
    result.start[z] =
        _mm512_sub_epi32(_mm512_setzero_si512(), offset_of(result.q[z], static_cast<char>(offset)));
  }
  result.d = load_scales_and_sums(x).d;
  return result;
}

// sums[r][t] += eight blocks of row r times the activations of token t.
template <typename Format, int R, int T>
inline void add_eight_blocks(const unsigned char* rows, size_t row_bytes, const BlockQ8A* x,
                             size_t x_stride, __m512 (&sums)[R][T]) {
  Activations activations[T];
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t)
    activations[t] = load_activations<Format::kOffset>(x + static_cast<size_t>(t) * x_stride);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const unsigned char* blocks = rows + static_cast<size_t>(r) * row_bytes;
#pragma GCC unroll 8
    for (size_t line = 0; line < 8 * Format::kBlockBytes; line += 64)
      prefetch(blocks, kPrefetchBytes + line);
    __m512i q[4];
#pragma GCC unroll 8
    for (int z = 0; z < 4; ++z) q[z] = Format::load_two(blocks + z * 2 * Format::kBlockBytes);
    const __m256 d = load_scales<Format::kBlockBytes>(blocks);
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
      const __m256 scale = _mm256_mul_ps(d, activations[t].d);
#pragma GCC unroll 8
      for (int z = 0; z < 4; ++z) {
        const __m512i dot = _mm512_dpbusd_epi32(activations[t].start[z], q[z], activations[t].q[z]);
        sums[r][t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), spread_by_8(scale, 2 * z, 2 * z + 1),
                                     sums[r][t]);
      }
    }
  }
}

template <typename Format, int R, int T>
inline void multiply_tile(const unsigned char* rows, size_t row_bytes, const BlockQ8A* x,
                          size_t x_stride, float* y, size_t y_stride, int64_t K) {
  __m512 sums[R][T];
#pragma GCC unroll 8
  for (auto& of_row : sums)
#pragma GCC unroll 8
    for (__m512& sum : of_row) sum = _mm512_setzero_ps();
  const int64_t n_blocks = K / 32;
  int64_t b = 0;
  for (; b + 8 <= n_blocks; b += 8)
    add_eight_blocks<Format, R, T>(rows + b * Format::kBlockBytes, row_bytes, x + b, x_stride,
                                   sums);
  if (b < n_blocks) {
    const size_t rest = static_cast<size_t>(n_blocks - b);
    unsigned char last_w[R][8 * Format::kBlockBytes] = {};
    BlockQ8A last_x[T][8] = {};
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
      __builtin_memcpy(last_w[r],
                       rows + static_cast<size_t>(r) * row_bytes + b * Format::kBlockBytes,
                       rest * Format::kBlockBytes);
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t)
      __builtin_memcpy(last_x[t], x + static_cast<size_t>(t) * x_stride + b,
                       rest * sizeof(BlockQ8A));
    add_eight_blocks<Format, R, T>(last_w[0], sizeof last_w[0], last_x[0], 8, sums);
  }
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t)
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
      y[static_cast<size_t>(t) * y_stride + static_cast<size_t>(r)] =
          _mm512_reduce_add_ps(sums[r][t]);
}

template <int R, int T>
void Q8_0::tile(const unsigned char* rows, size_t row_bytes, const BlockQ8A* x, size_t x_stride,
                float* y, size_t y_stride, int64_t K) {
  multiply_tile<Q8_0, R, T>(rows, row_bytes, x, x_stride, y, y_stride, K);
}

template <int R, int T>
void Q4_0::tile(const unsigned char* rows, size_t row_bytes, const BlockQ8A* x, size_t x_stride,
                float* y, size_t y_stride, int64_t K) {
  multiply_tile<Q4_0, R, T>(rows, row_bytes, x, x_stride, y, y_stride, K);
}

}  // namespace

void matmul_q4_0(const void* w, size_t row_bytes, const BlockQ8A* x, size_t x_stride, float* y,
                 size_t y_stride, int64_t row_begin, int64_t row_end, int64_t K, int64_t T) {
  multiply_in_tiles<Q4_0>(w, row_bytes, x, x_stride, y, y_stride, row_begin, row_end, K, T);
}

void matmul_q8_0(const void* w, size_t row_bytes, const BlockQ8A* x, size_t x_stride, float* y,
                 size_t y_stride, int64_t row_begin, int64_t row_end, int64_t K, int64_t T) {
  multiply_in_tiles<Q8_0>(w, row_bytes, x, x_stride, y, y_stride, row_begin, row_end, K, T);
}

}  // namespace tandem::cpu::avx512
