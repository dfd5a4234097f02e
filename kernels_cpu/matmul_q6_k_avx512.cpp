// Matrix products with Q6_K weights.  Contract: MatmulQ8A in kernels.h.
// Integer dot products are exact; 16 partial sums per result in float32.
#include "kernels_cpu/avx512.h"
#include "kernels_cpu/avx512_helpers.h"
#include "kernels_cpu/matmul_tiles.h"

namespace tandem::cpu::avx512 {
namespace {

// Weights are taken as 0..63; what that adds to the dot product (32 times the sum of the
// activations) depends on the activations alone and is what the integer sums start from.
struct Activations {
  __m512i q[4];
  __m512i start[4];
  __m512 d;  // of each group of 16 weights
};

inline Activations load_activations(const BlockQ8A* x) {
  Activations result;
#pragma GCC unroll 8
  for (int z = 0; z < 4; ++z) {
    result.q[z] = load_pair(x, 2 * z, 2 * z + 1);
    result.start[z] = _mm512_sub_epi32(_mm512_setzero_si512(), offset_of(result.q[z], 32));
  }
  const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  result.d = _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(load_scales_and_sums(x).d));
  return result;
}

struct Weights {
  __m512i q[4];
  __m512 scale;  // of each group of 16
};

// Four low bits of each weight joined with the two high ones, already moved to bits 4 and 5.
inline __m512i six_bits(__m512i low, __m512i high_in_place) {
  const __m512i high = _mm512_and_si512(high_in_place, _mm512_set1_epi8(0x30));
  return _mm512_or_si512(low, high);
}

inline void load_half(const unsigned char* ql, const unsigned char* qh, __m512i* q) {
  const __m512i low_nibbles = _mm512_set1_epi8(15);
  const __m512i low = _mm512_loadu_si512(ql);
  const __m512i high =
      _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(qh)));
  // Bits 0-1 and 2-3 go to 4-5 for the first 64 weights, bits 4-5 and 6-7 for the second.
  const __m512i left = _mm512_setr_epi64(4, 4, 4, 4, 2, 2, 2, 2);
  const __m512i right = _mm512_setr_epi64(0, 0, 0, 0, 2, 2, 2, 2);
  q[0] = six_bits(_mm512_and_si512(low, low_nibbles), _mm512_sllv_epi64(high, left));
  q[1] = six_bits(_mm512_and_si512(_mm512_srli_epi16(low, 4), low_nibbles),
                  _mm512_srlv_epi64(high, right));
}

inline Weights load_weights(const unsigned char* block) {
  Weights result;
  load_half(block, block + 128, result.q);
  load_half(block + 64, block + 160, result.q + 2);
  const __m128i scales = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block + 192));
  const __m512 d = _mm512_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(load_u16(block + 208))));
  result.scale = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(scales)), d);
  return result;
}

inline __m512 add_products(const Weights& w, const Activations& x, __m512 sum) {
  const __m512 scale = _mm512_mul_ps(w.scale, x.d);
  const __m512i first = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
#pragma GCC unroll 8
  for (int z = 0; z < 4; ++z) {
    const __m512i dot = _mm512_dpbusd_epi32(x.start[z], w.q[z], x.q[z]);
    const __m512i lanes = _mm512_add_epi32(first, _mm512_set1_epi32(4 * z));
    sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_permutexvar_ps(lanes, scale), sum);
  }
  return sum;
}

struct Q6_K {
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
        const unsigned char* block = rows + static_cast<size_t>(r) * row_bytes + b * 210;
#pragma GCC unroll 8
        for (size_t line = 0; line < 210; line += 64) prefetch(block, kPrefetchBytes + line);
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

void matmul_q6_k(const void* w, size_t row_bytes, const BlockQ8A* x, size_t x_stride, float* y,
                 size_t y_stride, int64_t row_begin, int64_t row_end, int64_t K, int64_t T) {
  multiply_in_tiles<Q6_K>(w, row_bytes, x, x_stride, y, y_stride, row_begin, row_end, K, T);
}

}  // namespace tandem::cpu::avx512
